//! Rows of 8-bit integers: what their steps are, and how they become bf16 values again.

use super::{Builder, F32, I32, Ptr};

impl<'c> Builder<'c> {
    /// The four signed bytes of each word, the lowest first.
    pub fn of_bytes(&mut self, words: I32<'c>) -> [F32<'c>; 4] {
        [24, 16, 8, 0].map(|above| {
            let integer = if above == 0 { words } else { self.shift_left(words, above) };
            let integer = self.shift_right_signed(integer, 24);
            self.f32_of(integer)
        })
    }

    /// Two values that are bf16 already as pairs of them.
    pub fn exact_pairs(&mut self, low: F32<'c>, high: F32<'c>) -> I32<'c> {
        const HIGH: i32 = 0xffff_0000_u32 as i32;
        let [low, high] = [low, high].map(|value| self.bits(value));
        let low = self.shift_right(low, 16);
        let mask = self.i32(HIGH);
        let high = self.and(high, mask);
        self.or(low, high)
    }

    /// Of all values of a row; not a number when one of them is none.
    pub fn greatest_magnitude(&mut self, row: Ptr<'c>, length: u64) -> F32<'c> {
        // Magnitudes are ordered as their bits are, those that are no numbers last.
        let none = self.i32s(0, self.lanes());
        let greatest = self.fold_pieces(length, none, |k, piece, greatest| {
            let value = k.read_widened(row, piece);
            let bits = k.bits(value);
            let magnitude = k.i32(i32::MAX);
            let magnitude = k.and(bits, magnitude);
            k.max(greatest, magnitude)
        });
        let greatest = self.max_lanes(greatest);
        self.of_bits(greatest)
    }

    /// [`integer_step`](Self::integer_step) of bytes: the greatest magnitude becomes 127.
    pub fn byte_step(&mut self, greatest: F32<'c>) -> [F32<'c>; 2] {
        self.integer_step(greatest, 127.0)
    }

    /// What an integer of a row is worth whose greatest magnitude becomes `most`, and how many a value
    /// of 1 is; a row of zeros has no inverse and needs none.
    pub fn integer_step(&mut self, greatest: F32<'c>, most: f32) -> [F32<'c>; 2] {
        let most = self.f32(most);
        let step = self.div(greatest, most);
        let zero = self.f32(0.0);
        let is_zero = self.equal(greatest, zero);
        let inverse = self.div(most, greatest);
        [step, self.select(is_zero, zero, inverse)]
    }
}
