//! How the bytes of a weight meet those of x: the operands of matrix instructions in 16 bytes of a row.

use sail_ir::scheme::Scheme;

use crate::emit::{Builder, I32};

/// Values of a row in a unit of 16 bytes.
#[must_use]
pub const fn values_per_unit(scheme: Scheme) -> u64 {
    match scheme {
        Scheme::Bf16 => 8,
        Scheme::Int8 | Scheme::Int8Weight => 16,
        Scheme::Int4 => 32,
    }
}

/// Bytes of x, as a matrix instruction takes them, that meet a byte of the weight.
#[must_use]
pub const fn bytes_of_x(scheme: Scheme) -> u64 {
    match scheme {
        Scheme::Bf16 | Scheme::Int8 => 1,
        Scheme::Int8Weight | Scheme::Int4 => 2,
    }
}

/// The operands in a unit of a weight row, two for each matrix instruction, and which of the unit's
/// words of x each of them meets.
pub fn operands<'c>(
    k: &mut Builder<'c>,
    scheme: Scheme,
    unit: I32<'c>,
) -> Vec<([I32<'c>; 2], [usize; 2])> {
    let words = k.lanes_of(unit);
    match bytes_of_x(scheme) {
        1 => vec![([words[0], words[1]], [0, 1]), ([words[2], words[3]], [2, 3])],
        _ => {
            let words = words.into_iter().enumerate();
            words.map(|(at, word)| (expanded(k, scheme, word), [at, at + 4])).collect()
        }
    }
}

/// The two operands that a word of a packed weight holds.
pub fn expanded<'c>(k: &mut Builder<'c>, scheme: Scheme, word: I32<'c>) -> [I32<'c>; 2] {
    match scheme {
        Scheme::Int8Weight => k.bf16_of_signed_bytes(word),
        _ => panic!("`{scheme}` has no packed words here"),
    }
}
