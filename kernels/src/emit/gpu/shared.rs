//! Shared memory: places in it, copies into it that threads do not wait for, matrices out of it.

use super::super::{Bf16, Builder, I32, Index, Ptr};
use super::asm::Effect;

/// How many 8×8 matrices of 16-bit elements one `ldmatrix` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrices {
    One = 1,
    Two = 2,
    Four = 4,
}

impl<'c> Builder<'c> {
    /// `bytes` of the block's shared memory, aligned to `alignment` (at most 1024); contents
    /// undefined. What all calls take together must be within the kernel's `shared_bytes`.
    pub fn shared(&mut self, bytes: u64, alignment: u64) -> Ptr<'c> {
        assert!(alignment.is_power_of_two() && alignment <= 1024, "shared memory starts at 1024");
        self.carved = self.carved.next_multiple_of(alignment);
        let base = self.frame().shared;
        let place = self.at_bytes_constant(base, self.carved);
        self.carved += bytes;
        place
    }

    /// Have 16 bytes brought from global to shared memory, past the first cache; both aligned to 16.
    pub fn copy_async(&mut self, to: Ptr<'c>, from: Ptr<'c>) {
        self.call_intrinsic("llvm.nvvm.cp.async.cg.shared.global.16", &[], &[to.0, from.0]);
    }

    /// As [`Builder::copy_async`], only the first `bytes` (0 to 16) of them, zeros after. With 0
    /// the source is not touched.
    pub fn copy_async_partial(&mut self, to: Ptr<'c>, from: Ptr<'c>, bytes: I32<'c>) {
        let operands = [to.0, from.0, bytes.0];
        self.call_intrinsic("llvm.nvvm.cp.async.cg.shared.global.16.s", &[], &operands);
    }

    /// Have 4 or 8 bytes brought from global to shared memory; both aligned to their number.
    pub fn copy_async_small(&mut self, to: Ptr<'c>, from: Ptr<'c>, bytes: u32) {
        assert!(bytes == 4 || bytes == 8, "no copy of {bytes} bytes");
        let name = format!("llvm.nvvm.cp.async.ca.shared.global.{bytes}");
        self.call_intrinsic(&name, &[], &[to.0, from.0]);
    }

    /// As [`Builder::copy_async_small`], only the first `taken` of them, zeros after.
    pub fn copy_async_small_partial(
        &mut self,
        to: Ptr<'c>,
        from: Ptr<'c>,
        bytes: u32,
        taken: I32<'c>,
    ) {
        assert!(bytes == 4 || bytes == 8, "no copy of {bytes} bytes");
        let name = format!("llvm.nvvm.cp.async.ca.shared.global.{bytes}.s");
        self.call_intrinsic(&name, &[], &[to.0, from.0, taken.0]);
    }

    /// Have 16 bytes of bf16 brought to shared memory, `to` aligned to 16, `from` to `piece` bytes (a
    /// power of two); of them the first `left`, zeros after, where it is given. All or nothing of a
    /// piece is there.
    pub fn copy_unit(&mut self, to: Ptr<'c>, from: Ptr<'c>, piece: u32, left: Option<Index<'c>>) {
        const UNIT: u64 = 16;
        match (piece, left) {
            (16.., None) => self.copy_async(to, from),
            (16.., Some(left)) => {
                let taken = self.at_most(left, UNIT);
                self.copy_async_partial(to, from, taken);
            }
            (4 | 8, left) => {
                for at in (0..UNIT).step_by(piece as usize) {
                    let [from, to] = [from, to].map(|place| self.at_bytes_constant(place, at));
                    match left {
                        None => self.copy_async_small(to, from, piece),
                        Some(left) => {
                            let left = self.sub_constant(left, at);
                            let taken = self.at_most(left, piece.into());
                            self.copy_async_small_partial(to, from, piece, taken);
                        }
                    }
                }
            }
            // Rows that begin at odd elements: through registers.
            (_, left) => {
                let values: Vec<Bf16<'c>> = (0..UNIT / 2)
                    .map(|at| {
                        let place = self.at_bytes_constant(from, 2 * at);
                        let Some(left) = left else { return self.load::<Bf16>(place, 1) };
                        let end = self.index(2 * at);
                        let has = self.less(end, left);
                        self.choose(
                            has,
                            |k| k.load::<Bf16>(place, 1),
                            |k| {
                                let zero = k.f32(0.0);
                                k.round(zero)
                            },
                        )
                    })
                    .collect();
                let unit = self.vector_of(&values);
                self.store_whole(to, unit);
            }
        }
    }

    /// Which row, and which half of its 32 bytes, this thread gives `ldmatrix` for 16 rows. Of the left
    /// side of a product, matrices 0 to 3 are rows 0–7 and 8–15 of the first half, then of the second;
    /// of the right side, both halves of rows 0–7, then of rows 8–15.
    pub fn matrix_row(&mut self, right: bool) -> [Index<'c>; 2] {
        let lane = self.lane_id();
        let [eight, sixteen] = [8, 16].map(|by| self.div_constant(lane, by));
        let row = self.rem_constant(lane, 8);
        let second = self.rem_constant(eight, 2);
        let (beyond, half) = if right { (sixteen, second) } else { (second, sixteen) };
        let beyond = self.mul_constant(beyond, 8);
        [self.add(row, beyond), half]
    }

    /// `left`, at least 0 and at most `most`.
    fn at_most(&mut self, left: Index<'c>, most: u64) -> I32<'c> {
        let (zero, most) = (self.index(0), self.index(most));
        let left = self.max(left, zero);
        let left = self.min(left, most);
        self.i32_of(left)
    }

    /// The copies this thread asked for since the last call are one group.
    pub fn commit_copies(&mut self) {
        self.call_intrinsic("llvm.nvvm.cp.async.commit.group", &[], &[]);
    }

    /// Wait until at most `pending` of this thread's groups are under way. Other threads see what
    /// was copied after a barrier.
    pub fn wait_for_copies(&mut self, pending: u32) {
        let pending = self.i32(pending as i32).0;
        self.call_intrinsic("llvm.nvvm.cp.async.wait.group", &[], &[pending]);
    }

    /// 8×8 matrices of 16-bit elements from shared memory, spread over the warp.
    ///
    /// Thread `8·m + r` gives the address of row `r` (16 bytes, aligned) of matrix `m`. Of each
    /// matrix, thread `t` gets elements `2·(t % 4)` and the next of row `t / 4`; with `transposed`,
    /// those of column `t / 4`.
    pub fn load_matrices(
        &mut self,
        row: Ptr<'c>,
        matrices: Matrices,
        transposed: bool,
    ) -> Vec<I32<'c>> {
        let count = matrices as usize;
        let turned = if transposed { ".trans" } else { "" };
        let name = format!("llvm.nvvm.ldmatrix.sync.aligned.m8n8.x{count}{turned}.b16");
        let value = self.intrinsic(&name, &[row.0.get_type()], &[row.0]);
        match matrices {
            Matrices::One => vec![I32(value)],
            _ => self.fields(value, count).into_iter().map(I32).collect(),
        }
    }

    /// The reverse of [`Builder::load_matrices`]: `sm_90` only.
    pub fn store_matrices(&mut self, row: Ptr<'c>, values: &[I32<'c>], transposed: bool) {
        let address = self.shared_address(row);
        let turned = if transposed { ".trans" } else { "" };
        let list: Vec<String> = (1..=values.len()).map(|at| format!("${at}")).collect();
        let text = format!(
            "stmatrix.sync.aligned.m8n8.x{}{turned}.shared.b16 [$0], {{{}}};",
            values.len(),
            list.join(", ")
        );
        let constraints = vec!["r"; values.len() + 1].join(",");
        let operands: Vec<_> =
            [address.0].into_iter().chain(values.iter().map(|value| value.0)).collect();
        self.ptx(&text, &constraints, &[], &operands, Effect::Memory);
    }

    /// `place + (offset ^ ((offset >> 3) & 0x70))` for an `offset` in bytes: where an element of
    /// rows of 128 bytes lies when its 16-byte units are swizzled by the row, as a tensor map with
    /// a swizzle of 128 does it. `place` is aligned to 1024.
    pub fn at_swizzled(&mut self, place: Ptr<'c>, offset: Index<'c>) -> Ptr<'c> {
        let offset = self.i32_of(offset);
        let row = self.shift_right(offset, 3);
        let units = self.i32(0x70);
        let row = self.and(row, units);
        let offset = self.xor(offset, row);
        let offset = self.index_of(offset);
        self.at_bytes(place, offset)
    }
}
