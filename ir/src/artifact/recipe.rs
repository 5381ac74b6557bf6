//! Weights that a file has no bytes of: how they are made when a program is loaded. For timing shapes
//! whose weights are gigabytes; answers of such a model mean nothing.
//!
//! Every word of four bytes is a function of its fill's key and its own number, made of whole-number
//! mixing and correctly rounded arithmetic: [`Fill::word`]. A GPU makes the same words with the kernel
//! that the recipe names.

use serde::{Deserialize, Serialize};

use super::ArtifactError;
use super::launches;
use crate::plan::Cuda;

/// Bytes of a word.
const WORD_BYTES: u64 = 4;
/// Most words of a fill: threads of a GPU are counted in 31 bits, whole blocks of them.
const MAX_WORDS: u64 = (1 << 31) - 1024;
/// The middle of the sum of four numbers of four bits, and its deviation: `√(4 · (16² - 1) / 12)`.
const MIDDLE: i32 = 30;
const DEVIATION: f64 = 9.219_544_457_292_887;

/// How all weights are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Bytes of all weights; those that no fill writes are zeros.
    pub bytes: u64,
    /// Makes one fill on a GPU; absent of other targets.
    ///
    /// Pointers: where the fill starts, and its [`Fill::job`]. A thread for each word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Cuda>,
    /// No two write the same word.
    pub fills: Vec<Fill>,
}

/// A run of rows with values of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fill {
    /// Byte of the weights at which the first row starts.
    pub offset: u64,
    pub rows: u64,
    /// Bytes from one row to the next.
    pub pitch: u64,
    /// Bytes of a row that are written, from its start on.
    pub used: u64,
    pub key: u32,
    pub values: Values,
}

/// What the words of a fill are, out of 32 random bits each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Values {
    /// Two bf16: `mean + (s - 30) · step`, `s` the sum of four numbers of four bits.
    Bell { mean: f32, step: f32 },
    /// `bits & keep | set`: codes of any width, or the same word everywhere.
    Bits { keep: u32, set: u32 },
}

impl Values {
    /// bf16 of this mean and standard deviation.
    #[must_use]
    pub fn bell(mean: f64, deviation: f64) -> Self {
        Self::Bell { mean: mean as f32, step: (deviation / DEVIATION) as f32 }
    }

    /// The same word everywhere.
    #[must_use]
    pub fn same(word: u32) -> Self {
        Self::Bits { keep: 0, set: word }
    }

    /// As the kernel takes it: which kind, and its two numbers.
    fn words(self) -> [u32; 3] {
        match self {
            Self::Bell { mean, step } => [1, mean.to_bits(), step.to_bits()],
            Self::Bits { keep, set } => [0, keep, set],
        }
    }

    fn of(self, bits: u32) -> u32 {
        match self {
            Self::Bits { keep, set } => bits & keep | set,
            Self::Bell { mean, step } => {
                let value = |bits: u32| {
                    let sum: u32 = (0..4).map(|nibble| bits >> (4 * nibble) & 15).sum();
                    let sum = sum.cast_signed() - MIDDLE;
                    let scaled = sum as f32 * step; // rounded, then the sum is: never in one
                    rounded(scaled + mean)
                };
                value(bits) | value(bits >> 16) << 16
            }
        }
    }
}

impl Fill {
    /// Words of a [`job`](Self::job).
    pub const JOB_WORDS: usize = 8;

    /// Words that it writes.
    #[must_use]
    pub fn words(&self) -> u64 {
        self.rows * (self.used / WORD_BYTES)
    }

    /// Byte from its offset on at which word number `index` stands.
    #[must_use]
    pub fn place(&self, index: u64) -> u64 {
        let per_row = self.used / WORD_BYTES;
        index / per_row * self.pitch + index % per_row * WORD_BYTES
    }

    /// Word number `index`, counted through all rows.
    #[must_use]
    pub fn word(&self, index: u64) -> u32 {
        let index = u32::try_from(index).expect("broken invariant `recipe.words`: checked");
        self.values.of(mixed(index, self.key))
    }

    /// What the kernel is told: words in all, of a row, from row to row, the key, the values.
    #[must_use]
    pub fn job(&self) -> [u32; Self::JOB_WORDS] {
        let [bell, first, second] = self.values.words();
        let narrow = |count: u64| u32::try_from(count).expect("broken invariant `recipe.words`");
        let [words, row, pitch] = [self.words(), self.used / WORD_BYTES, self.pitch / WORD_BYTES];
        [narrow(words), narrow(row), narrow(pitch), self.key, bell, first, second, 0]
    }

    fn check(&self, all: u64) -> Result<(), String> {
        let Self { offset, rows, pitch, used, .. } = self;
        let whole = [offset, pitch, used].into_iter().all(|bytes| bytes % WORD_BYTES == 0);
        let last = rows.checked_sub(1).and_then(|before| before.checked_mul(*pitch));
        let end = last.and_then(|last| last.checked_add(*used)?.checked_add(*offset));
        let words = rows.checked_mul(used / WORD_BYTES);
        let few = words.is_some_and(|words| (1..=MAX_WORDS).contains(&words));
        let narrow = pitch / WORD_BYTES <= MAX_WORDS;
        match whole && used <= pitch && few && narrow && end.is_some_and(|end| end <= all) {
            true => Ok(()),
            false => Err(format!("a fill does not fit its {all} bytes: {self:?}")),
        }
    }
}

impl Recipe {
    /// Refuse what a device could not carry out. `gpu`: whether the code is for one.
    pub(super) fn check(&self, gpu: bool) -> Result<(), ArtifactError> {
        let wrong = |because: String| ArtifactError::malformed("section `recipe`", because);
        match &self.kernel {
            Some(kernel) => launches::launch(kernel, 2).map_err(wrong)?,
            None if gpu => return Err(wrong("it has no kernel for a GPU".to_owned())),
            None => {}
        }
        let alone = self.kernel.as_ref().is_none_or(|kernel| {
            kernel.cluster == 1 && kernel.shared_bytes == 0 && kernel.tensor_maps.is_empty()
        });
        if !alone {
            return Err(wrong("its kernel takes more than two pointers".to_owned()));
        }
        self.fills.iter().try_for_each(|fill| fill.check(self.bytes)).map_err(wrong)
    }
}

/// 32 random bits of one word: the finisher of MurmurHash3 behind a step of the golden ratio.
fn mixed(index: u32, key: u32) -> u32 {
    let x = index.wrapping_mul(0x9e37_79b9).wrapping_add(key);
    let x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
    let x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

/// The bits of the nearest bf16, ties to even, of a number that is finite.
fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    (bits + 0x7fff + (bits >> 16 & 1)) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(values: Values) -> Fill {
        Fill { offset: 256, rows: 700, pitch: 384, used: 380, key: 9, values }
    }

    #[test]
    fn bells_have_the_spread_that_was_asked_for() {
        let fill = fill(Values::bell(1.0, 0.2));
        let halves = (0..fill.words()).flat_map(|index| {
            let word = fill.word(index);
            [word << 16, word & 0xffff_0000].map(|bits| f64::from(f32::from_bits(bits)))
        });
        let values: Vec<f64> = halves.collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((mean - 1.0).abs() < 0.005, "{mean}");
        assert!((square.sqrt() / 0.2 - 1.0).abs() < 0.02, "{}", square.sqrt());
        assert!(values.iter().all(|x| (0.3..1.7).contains(x)));
    }

    #[test]
    fn bits_are_kept_and_set_and_words_differ() {
        let odd = fill(Values::Bits { keep: u32::MAX, set: 0x0101_0101 });
        let words: std::collections::BTreeSet<u32> = (0..1000).map(|at| odd.word(at)).collect();
        assert!(words.len() > 990, "{}", words.len());
        assert!(words.iter().all(|word| word & 0x0101_0101 == 0x0101_0101));
        assert_eq!(fill(Values::same(7)).word(12), 7);
        let other = Fill { key: 10, ..odd.clone() };
        assert_ne!(odd.word(3), other.word(3));
    }

    #[test]
    fn words_stand_in_their_rows() {
        let fill = fill(Values::same(0));
        assert_eq!(fill.words(), 700 * 95);
        assert_eq!([0, 94, 95, 96].map(|at| fill.place(at)), [0, 376, 384, 388]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let sound = fill(Values::same(0));
        let bytes = 256 + 700 * 384;
        let recipe = |fill: Fill| Recipe { bytes, kernel: None, fills: vec![fill] };
        assert!(recipe(sound.clone()).check(false).is_ok());
        type Change = fn(&mut Fill);
        let changes: [Change; 6] = [
            |fill| fill.offset = 512 + 4,
            |fill| fill.offset = 258,
            |fill| fill.rows = 0,
            |fill| fill.rows = u64::MAX,
            |fill| fill.used = 388,
            |fill| fill.pitch = u64::MAX - 3,
        ];
        for change in changes {
            let mut wrong = sound.clone();
            change(&mut wrong);
            assert!(recipe(wrong.clone()).check(false).is_err(), "{wrong:?}");
        }
        assert!(recipe(sound).check(true).is_err(), "a GPU without a kernel");
    }
}
