//! What the GPU can do at best: bytes that it copies in a second, operations by its data sheet.

use super::driver::About;
use super::error::Pair;
use super::memory::DeviceMemory;
use super::stream::{Event, Stream};
use crate::device::DeviceError;
use crate::trace::Limits;

/// More than the second-level cache of any GPU.
const COPY_BYTES: u64 = 512 << 20;
/// Runs of the copy. The best counts: a limit is what was reached once.
const RUNS: usize = 5;

/// Measured where it can be: memory by a copy inside of it, which reads and writes.
///
/// Operations are those of the matrix units at the highest clock; a GPU that runs into its power
/// limit has fewer.
///
/// Refuses what the driver refuses.
pub(super) fn limits(stream: &Stream) -> Result<Limits, DeviceError> {
    let context = stream.context();
    let (free, _) = context.memory()?;
    let bytes = COPY_BYTES.min(free / 4);
    let [from, to] = [(); 2].map(|()| DeviceMemory::new(context, "the copy probe", bytes));
    let (from, to) = (from?, to?);
    from.zero(stream)?;
    let (start, end) = (Event::new(context, true)?, Event::new(context, true)?);
    let mut best = u64::MAX;
    for _ in 0..RUNS {
        start.mark(stream)?;
        to.take(0, &from, bytes, stream)?;
        end.mark(stream)?;
        stream.wait("copy on the GPU")?;
        best = best.min(end.since(&start)?);
    }
    let read_bytes = 2.0 * bytes as f64 / (best.max(1) as f64 / 1e9);
    let operations = operations(&context.about);
    // All of these do twice as many with integers of 8 bits.
    Ok(Limits { read_bytes, operations, byte_operations: 2.0 * operations })
}

/// Multiplications and additions of bf16 in a second, sums in f32.
///
/// Source: NVIDIA's white papers on A100, GA102, AD102 and H100: matrix-unit operations of one
/// multiprocessor in one cycle.
fn operations(about: &About) -> f64 {
    let each = match about.capability {
        Pair(8, 0) => 2048,
        Pair(8, _) => 1024,
        _ => 4096,
    };
    f64::from(about.multiprocessors) * f64::from(about.clock_khz) * 1e3 * f64::from(each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_those_of_the_data_sheets() {
        let about = |capability, multiprocessors, clock_khz| About {
            ordinal: 0,
            name: "a GPU".to_owned(),
            capability,
            multiprocessors,
            clock_khz,
            driver: Pair(12, 0),
        };
        // A100: 312 TFLOP/s; H100 SXM: 989.
        let near = |found: f64, sheet: f64| (found / 1e12 - sheet).abs() < sheet * 0.01;
        assert!(near(operations(&about(Pair(8, 0), 108, 1_410_000)), 312.0));
        assert!(near(operations(&about(Pair(9, 0), 132, 1_830_000)), 989.0));
    }
}
