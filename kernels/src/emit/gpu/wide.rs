//! Whole numbers of 64 bits without a sign, of two words each: taken apart, multiplied, passed between
//! the threads of a warp and summed there.

use super::super::{Builder, I32, Index};
use super::WARP;

/// One more than the greatest word.
const WORD: u64 = 1 << 32;

impl<'c> Builder<'c> {
    /// A word without a sign.
    pub fn unsigned(&mut self, word: I32<'c>) -> Index<'c> {
        let word = self.index_of(word);
        let mask = self.index(WORD - 1);
        self.and(word, mask)
    }

    /// The low word and the high one.
    pub fn halves(&mut self, value: Index<'c>) -> [I32<'c>; 2] {
        let high = self.div_constant(value, WORD);
        [value, high].map(|half| self.i32_of(half))
    }

    /// The number of a low word and a high one.
    pub fn of_halves(&mut self, halves: [I32<'c>; 2]) -> Index<'c> {
        let [low, high] = halves.map(|half| self.unsigned(half));
        let high = self.mul_constant(high, WORD);
        self.or(low, high)
    }

    /// The upper 64 bits of a product of 128.
    pub fn high_of_product(&mut self, a: Index<'c>, b: Index<'c>) -> Index<'c> {
        Index(self.intrinsic("llvm.nvvm.mulhi.ull", &[], &[a.0, b.0]))
    }

    /// Sum of the values of the threads of the warp before this one, and with this one.
    pub fn sums_along_warp(&mut self, value: Index<'c>) -> [Index<'c>; 2] {
        let lane = self.lane_id();
        let zero = self.index(0);
        let mut sum = value;
        let mut distance = 1;
        while distance < WARP {
            let other = self.halves(sum).map(|half| self.from_lane_before(half, distance));
            let other = self.of_halves(other);
            let last = self.index(u64::from(distance - 1));
            let has = self.less(last, lane);
            let other = self.select(has, other, zero);
            sum = self.add(sum, other);
            distance *= 2;
        }
        let before = self.sub(sum, value);
        [before, sum]
    }

    /// Sum over the threads of the warp, in every one of them.
    pub fn wide_sum_of_warp(&mut self, value: Index<'c>) -> Index<'c> {
        let mut sum = value;
        let mut distance = WARP / 2;
        while distance > 0 {
            let other = self.halves(sum).map(|half| self.from_lane_across(half, distance));
            let other = self.of_halves(other);
            sum = self.add(sum, other);
            distance /= 2;
        }
        sum
    }
}
