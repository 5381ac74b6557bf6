//! Values of a checkpoint that no answer survives: infinite ones, and such that are no numbers.

use half::bf16;

/// All bits of bf16's exponent: set together in what is not finite, and in nothing else.
const EXPONENT: u16 = 0x7f80;

/// Words that are looked at before the first of them is looked for.
const AT_ONCE: usize = 512;

/// The first of `values`, bf16 in little endian, that is not finite, and its place among them.
///
/// Found by runs, so that the loop that sees every byte of a model is one without a way out.
#[must_use]
pub fn first_not(values: &[u8]) -> Option<(u64, f32)> {
    let words = values.as_chunks::<2>().0;
    let is_not = |word: &[u8; 2]| u16::from_le_bytes(*word) & EXPONENT == EXPONENT;
    let any = |run: &&[[u8; 2]]| run.iter().fold(false, |any, word| any | is_not(word));
    let (run, words) = words.chunks(AT_ONCE).enumerate().find(|(_, words)| any(words))?;
    let at = words.iter().position(is_not).expect("one of the run is not finite");
    Some(((run * AT_ONCE + at) as u64, bf16::from_le_bytes(words[at]).to_f32()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bf16_is_told_apart_wherever_it_stands() {
        for bits in 0..=u16::MAX {
            let finite = bf16::from_bits(bits).is_finite();
            assert_eq!(first_not(&bits.to_le_bytes()).is_none(), finite, "{bits:#06x}");
        }
        for place in [0, 1, AT_ONCE - 1, AT_ONCE, 3 * AT_ONCE + 7] {
            let mut values = bf16::MAX.to_le_bytes().repeat(3 * AT_ONCE + 9);
            assert_eq!(first_not(&values), None);
            values[2 * place..][..2].copy_from_slice(&bf16::NEG_INFINITY.to_le_bytes());
            values.extend(bf16::NAN.to_le_bytes());
            assert_eq!(first_not(&values), Some((place as u64, f32::NEG_INFINITY)));
        }
        assert_eq!(first_not(&[]), None);
    }
}
