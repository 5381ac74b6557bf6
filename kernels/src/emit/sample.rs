//! Bytes for a kernel's arguments, drawn from a seed: for tests, benchmarks and tuning.

use sail_ir::scheme::Scheme;

use super::run::{bf16_bytes, i32_bytes, poisoned, random};
use crate::config::Operand;
use crate::packing::{Join, pack_whole};

/// Values drawn one by one; longer arguments repeat them, which the clock does not see.
const DRAWN: usize = 1 << 18;

/// Panels packed one by one; longer weights repeat them.
const PACKED: u64 = 8;

/// What `operand` holds, for panels of `panel_width` outputs.
#[must_use]
pub fn bytes(operand: &Operand, panel_width: u32, seed: u64) -> Vec<u8> {
    match operand {
        Operand::Values(count) => {
            let count = narrow(*count);
            repeated(&bf16_bytes(&random(seed, count.min(DRAWN))), 2 * count)
        }
        Operand::Numbers(numbers) => i32_bytes(numbers),
        Operand::Output(bytes) => poisoned(narrow(*bytes)),
        Operand::Panels { scheme, count, k } => {
            let panels = packed(*scheme, (*count).min(PACKED), *k, panel_width, seed);
            let one = panels.len() as u64 / (*count).clamp(1, PACKED);
            repeated(&panels, narrow(one * count))
        }
    }
}

/// Whole panels of drawn rows.
fn packed(scheme: Scheme, count: u64, k: u32, panel_width: u32, seed: u64) -> Vec<u8> {
    let (rows, k) = (count * u64::from(panel_width), k as usize);
    let scale = 1.0 / (k as f32).sqrt();
    let values: Vec<f32> =
        random(seed, narrow(rows) * k).into_iter().map(|value| value * scale).collect();
    pack_whole(scheme, Join::One, &[(&bf16_bytes(&values), rows)], k, panel_width)
}

fn repeated(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(length);
    while all.len() < length {
        all.extend_from_slice(&bytes[..bytes.len().min(length - all.len())]);
    }
    all
}

fn narrow(size: u64) -> usize {
    usize::try_from(size).expect("an argument fits memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_bytes_that_are_asked_for() {
        let panels = |count| Operand::Panels { scheme: Scheme::Int4, count, k: 130 };
        let one = bytes(&panels(1), 16, 1).len();
        for (operand, length) in [
            (Operand::Values(3), 6),
            (Operand::Values(300_000), 600_000),
            (Operand::Numbers(vec![1, 2]), 8),
            (Operand::Output(5), 5),
            (panels(11), 11 * one),
        ] {
            assert_eq!(bytes(&operand, 16, 1).len(), length, "{operand:?}");
        }
        assert_eq!(one as u64, Scheme::Int4.packed_bytes(16, 130, 16));
    }
}
