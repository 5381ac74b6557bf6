//! Words of packed integers as operands of matrix instructions, exactly.

use super::super::{Builder, F32, I32};
use super::asm::Effect;

impl<'c> Builder<'c> {
    /// The four signed bytes of a word as bf16 values: bytes 0 and 1 as a pair, bytes 2 and 3.
    ///
    /// A byte below the exponent of 128 is 128 + its low 7 bits, and with the high bit alone it is 128,
    /// or 256 where the byte is negative: the difference is the integer.
    pub fn bf16_of_signed_bytes(&mut self, word: I32<'c>) -> [I32<'c>; 2] {
        const EXPONENTS: i32 = 0x4343_4343;
        let exponents = self.i32(EXPONENTS);
        let masks = [0xff7f_ff7f_u32, 0xff80_ff80].map(|mask| self.i32(mask.cast_signed()));
        [0x4140, 0x4342].map(|bytes| {
            let both = self.pick_bytes(word, exponents, bytes);
            let [low, high] = masks.map(|mask| self.and(both, mask));
            self.sub_bf16_pairs(low, high)
        })
    }

    /// The nibbles of a word less `zero`, which is the same number from 0 to 15 in each of its bytes, as
    /// signed bytes: the four low nibbles, then the four high ones.
    pub fn bytes_of_nibbles(&mut self, word: I32<'c>, zero: I32<'c>) -> [I32<'c>; 2] {
        // With the high bit set no byte borrows from the next one.
        let [mask, high] = [0x0f0f_0f0f_u32, 0x8080_8080].map(|bits| self.i32(bits.cast_signed()));
        let upper = self.shift_right(word, 4);
        [word, upper].map(|nibbles| {
            let nibbles = self.and(nibbles, mask);
            let nibbles = self.or(nibbles, high);
            let difference = self.sub(nibbles, zero);
            self.xor(difference, high)
        })
    }

    /// The four floats of 8 bits (e4m3) of a word as f16: bytes 0 and 1 as a pair, bytes 2 and 3.
    /// `sm_90` only.
    pub fn f16_of_e4m3(&mut self, word: I32<'c>) -> [I32<'c>; 2] {
        let text = "{ .reg .b16 low, high; mov.b32 {low, high}, $2; \
                    cvt.rn.f16x2.e4m3x2 $0, low; cvt.rn.f16x2.e4m3x2 $1, high; }";
        let pairs = [self.word_type(); 2];
        let pairs = self.ptx(text, "=r,=r,r", &pairs, &[word.0], Effect::None);
        [I32(pairs[0]), I32(pairs[1])]
    }

    /// Four values as the nearest floats of 8 bits (e4m3), ties to even, those beyond the greatest as
    /// that one; the first in byte 0. `sm_90` only.
    pub fn e4m3_of(&mut self, values: [F32<'c>; 4]) -> I32<'c> {
        let text = "{ .reg .b16 low, high; cvt.rn.satfinite.e4m3x2.f32 low, $2, $1; \
                    cvt.rn.satfinite.e4m3x2.f32 high, $4, $3; mov.b32 $0, {low, high}; }";
        let word = [self.word_type()];
        let values = values.map(|value| value.0);
        I32(self.ptx(text, "=r,f,f,f,f", &word, &values, Effect::None)[0])
    }

    /// Integers below 2^22 as f32, exactly, without the unit for conversions.
    pub fn f32_of_small(&mut self, value: I32<'c>) -> F32<'c> {
        // 1.5 · 2^23, whose last place is 1.
        const ONES: u32 = 0x4b40_0000;
        let ones = self.i32(ONES.cast_signed());
        let sum = self.add(value, ones);
        let sum = self.of_bits(sum);
        let ones = self.f32(f32::from_bits(ONES));
        self.sub(sum, ones)
    }

    /// `a - b` of bf16 pairs, rounded once each.
    pub fn sub_bf16_pairs(&mut self, a: I32<'c>, b: I32<'c>) -> I32<'c> {
        // -1, twice: both targets have this instruction, not both have a difference.
        let text = "fma.rn.bf16x2 $0, $1, $2, $3;";
        let minus = self.i32(0xbf80_bf80_u32.cast_signed());
        let word = self.word_type();
        I32(self.ptx(text, "=r,r,r,r", &[word], &[b.0, minus.0, a.0], Effect::None)[0])
    }
}
