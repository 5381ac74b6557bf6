//! Matrix products of a warp in registers, and dot products of bytes in a thread. Both targets.
//!
//! Fragments, with `g = lane / 4` and `q = lane % 4` (a register holds neighbouring elements along
//! the inner size, the first in its low bits):
//!
//! ```text
//!              bf16, k = 16                            int8, k = 32
//! a[0], a[1]   rows g, g + 8; k = 2q, 2q+1             rows g, g + 8; k = 4q .. 4q+3
//! a[2], a[3]   the same rows; k = 2q+8, 2q+9           the same rows; k = 4q+16 .. 4q+19
//! b[0], b[1]   column g; k = 2q.., then 2q+8..         column g; k = 4q.., then 4q+16..
//! acc[0..2]    row g, columns 2q, 2q+1
//! acc[2..4]    row g + 8, the same columns
//! ```

use super::super::{Builder, F32, I32, Number};
use super::asm::Effect;

impl<'c> Builder<'c> {
    /// `acc + a · b` of bf16: `a` 16×16 by rows, `b` 16×8 by columns, sums in f32.
    pub fn matrix_bf16(
        &mut self,
        acc: [F32<'c>; 4],
        a: [I32<'c>; 4],
        b: [I32<'c>; 2],
    ) -> [F32<'c>; 4] {
        self.matrix("llvm.nvvm.mma.m16n8k16.row.col.bf16", acc, a, b)
    }

    /// `acc + a · b` of signed bytes, exact: `a` 16×32 by rows, `b` 32×8 by columns.
    pub fn matrix_int8(
        &mut self,
        acc: [I32<'c>; 4],
        a: [I32<'c>; 4],
        b: [I32<'c>; 2],
    ) -> [I32<'c>; 4] {
        self.matrix("llvm.nvvm.mma.m16n8k32.row.col.s8", acc, a, b)
    }

    /// `acc + a · b` of floats of 8 bits (e4m3): fragments as those of [`Builder::matrix_int8`], sums in
    /// f32. They are multiplied as f16, exactly. `sm_90` only.
    pub fn matrix_e4m3(
        &mut self,
        acc: [F32<'c>; 4],
        a: [I32<'c>; 4],
        b: [I32<'c>; 2],
    ) -> [F32<'c>; 4] {
        let [a, b] = [a.to_vec(), b.to_vec()]
            .map(|words| words.into_iter().map(|word| self.f16_of_e4m3(word)).collect::<Vec<_>>());
        // The inner elements of a word are two operands of a product of half as many.
        let lower = self.matrix_f16(acc, [a[0][0], a[1][0], a[0][1], a[1][1]], b[0]);
        self.matrix_f16(lower, [a[2][0], a[3][0], a[2][1], a[3][1]], b[1])
    }

    fn matrix_f16(&mut self, acc: [F32<'c>; 4], a: [I32<'c>; 4], b: [I32<'c>; 2]) -> [F32<'c>; 4] {
        let text = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 \
                    {$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};";
        let constraints = format!("{}{}f,f,f,f", "=f,".repeat(4), "r,".repeat(6));
        let words = a.into_iter().chain(b).map(|word| word.0);
        let operands: Vec<_> = words.chain(acc.map(|sum| sum.0)).collect();
        let types = [self.context.f32_type().into(); 4];
        let sums = self.ptx(text, &constraints, &types, &operands, Effect::None);
        std::array::from_fn(|at| F32(sums[at]))
    }

    fn matrix<T: Number<'c>>(
        &mut self,
        name: &str,
        acc: [T; 4],
        a: [I32<'c>; 4],
        b: [I32<'c>; 2],
    ) -> [T; 4] {
        let operands: Vec<_> = a
            .iter()
            .chain(&b)
            .map(|value| value.0)
            .chain(acc.iter().map(|value| value.raw()))
            .collect();
        let value = self.intrinsic(name, &[], &operands);
        let fields = self.fields(value, 4);
        std::array::from_fn(|at| T::from_raw(fields[at]))
    }

    /// `acc + Σ a · b` over the four signed bytes of each, exact (`dp4a`).
    pub fn dot_signed_bytes(&mut self, acc: I32<'c>, a: I32<'c>, b: I32<'c>) -> I32<'c> {
        I32(self.intrinsic("llvm.nvvm.idp4a.s.s", &[], &[a.0, b.0, acc.0]))
    }

    /// Four bytes picked from the eight of `low` (0 to 3) and `high` (4 to 7): byte `i` of the
    /// result is the one that nibble `i` of `selector` names.
    pub fn pick_bytes(&mut self, low: I32<'c>, high: I32<'c>, selector: u16) -> I32<'c> {
        let selector = self.i32(i32::from(selector));
        I32(self.intrinsic("llvm.nvvm.prmt", &[], &[low.0, high.0, selector.0]))
    }

    /// Two f32 rounded to bf16, as a pair: `first` in the low half.
    pub fn round_pair(&mut self, first: F32<'c>, second: F32<'c>) -> I32<'c> {
        let both = self.vector_of(&[first, second]);
        let both = self.round(both);
        self.as_pairs(both)
    }
}
