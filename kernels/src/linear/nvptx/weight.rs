//! How the bytes of a weight meet those of x: the operands of matrix instructions in 16 bytes of a row.

use sail_ir::scheme::Scheme;

use crate::emit::{Builder, F32, I32, Index, Ptr};
use crate::packing::rows::RUN;

/// Rows of a weight in memory, from one on.
pub struct Rows<'c> {
    pub scheme: Scheme,
    pub k: u32,
    /// Rows that there are.
    pub rows: u32,
    pub place: Ptr<'c>,
    /// What stands behind the rows.
    pub behind: Ptr<'c>,
    pub first: Index<'c>,
}

impl<'c> Rows<'c> {
    #[must_use]
    pub fn row_bytes(&self) -> u64 {
        self.scheme.row_bytes(self.k.into())
    }

    /// Bytes of the words of a run's groups.
    #[must_use]
    pub fn words_bytes(&self) -> u64 {
        u64::from(RUN) * self.scheme.bytes_behind(self.k.into())
    }

    /// Row `row` from the first one on; the last one of the weight for those that it lacks.
    pub fn row(&self, k: &mut Builder<'c>, row: Index<'c>) -> Ptr<'c> {
        let row = k.add(row, self.first);
        self.at(k, self.place, (row, self.rows), self.row_bytes())
    }

    /// The words of run `run` of these rows, likewise.
    pub fn words(&self, k: &mut Builder<'c>, run: Index<'c>) -> Ptr<'c> {
        let before = k.div_constant(self.first, RUN.into());
        let run = k.add(run, before);
        self.at(k, self.behind, (run, self.rows / RUN), self.words_bytes())
    }

    fn at(
        &self,
        k: &mut Builder<'c>,
        place: Ptr<'c>,
        (index, count): (Index<'c>, u32),
        bytes: u64,
    ) -> Ptr<'c> {
        let last = k.index(u64::from(count) - 1);
        let index = k.min(index, last);
        let start = k.mul_constant(index, bytes);
        k.at_bytes(place, start)
    }
}

/// Values of a row in a unit of 16 bytes.
#[must_use]
pub const fn values_per_unit(scheme: Scheme) -> u64 {
    match scheme {
        Scheme::Bf16 => 8,
        Scheme::Int8 | Scheme::Int8Weight | Scheme::Fp8 => 16,
        Scheme::Int4 => 32,
    }
}

/// Bytes of x, as a matrix instruction takes them, that meet a byte of the weight.
#[must_use]
pub const fn bytes_of_x(scheme: Scheme) -> u64 {
    match scheme {
        Scheme::Bf16 | Scheme::Int8 | Scheme::Fp8 => 1,
        Scheme::Int8Weight | Scheme::Int4 => 2,
    }
}

/// Operands of a matrix instruction, and which words of x they meet.
pub type Meeting<'c, const N: usize> = ([I32<'c>; N], [usize; 2]);

/// The operands in a unit of a weight row, two for each matrix instruction, and which of the unit's
/// words of x each of them meets; `group` is the word of the unit's group, of a scheme that has some.
pub fn operands<'c>(
    k: &mut Builder<'c>,
    scheme: Scheme,
    unit: I32<'c>,
    group: Option<I32<'c>>,
) -> Vec<Meeting<'c, 2>> {
    let words = k.lanes_of(unit);
    if bytes_of_x(scheme) == 1 {
        return vec![([words[0], words[1]], [0, 1]), ([words[2], words[3]], [2, 3])];
    }
    let zero = group.map(|word| zero_of(k, word));
    let words = words.into_iter().enumerate();
    words.map(|(at, word)| (expanded(k, scheme, word, zero), [at, at + 4])).collect()
}

/// The two operands that a word of a packed weight holds; `zero` as [`zero_of`] gives it.
pub fn expanded<'c>(
    k: &mut Builder<'c>,
    scheme: Scheme,
    word: I32<'c>,
    zero: Option<I32<'c>>,
) -> [I32<'c>; 2] {
    match (scheme, zero) {
        (Scheme::Int8Weight, None) => k.bf16_of_signed_bytes(word),
        (Scheme::Int4, Some(zero)) => k.bytes_of_nibbles(word, zero),
        _ => panic!("words of `{scheme}` are multiplied as they are"),
    }
}

/// Does a scheme have groups along K?
#[must_use]
pub const fn has_groups(scheme: Scheme) -> bool {
    matches!(scheme, Scheme::Int4)
}

/// The zero point of a group's word in each byte.
pub fn zero_of<'c>(k: &mut Builder<'c>, word: I32<'c>) -> I32<'c> {
    k.pick_bytes(word, word, 0x0000)
}

/// The scale of a group's word.
pub fn scale_of<'c>(k: &mut Builder<'c>, word: I32<'c>) -> F32<'c> {
    k.high_of_pairs(word)
}
