//! Shared memory of a block: its vectors, and the ring of stages that steps are brought to.
//!
//! Keys and values have barriers of their own: `full` completes with the bytes, `empty` with an arrival
//! of each warp that multiplies. The copying thread runs ahead by as many steps as there are stages.

use super::{ATTENDING, PAGE, PIECE, REGISTERS, Shape};
use crate::emit::gpu::WARP;
use crate::emit::{Builder, I32, Index, Ptr};

/// Stages of the ring: a power of two.
const STAGES: u64 = 2;

/// Bytes of a stage's barriers: full and empty, of keys and of values.
const BARRIERS: u64 = 32;

/// Barrier of the block's threads that multiply.
pub(super) const AMONG_ATTENDING: u32 = 1;

/// Rows of the map where both pages of a step begin: of keys, then of values.
pub(super) type RowsOf<'c> = [I32<'c>; 4];

/// Keys or values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Keys,
    Values,
}

/// One side of a stage in the turn of a step.
#[derive(Clone, Copy)]
pub(super) struct Stage<'c> {
    pub place: Ptr<'c>,
    pub full: Ptr<'c>,
    pub empty: Ptr<'c>,
    /// Parity of the turn.
    pub parity: I32<'c>,
}

#[derive(Clone, Copy)]
pub(super) struct Ring<'c> {
    pub shape: Shape,
    pub queries: Ptr<'c>,
    sides: [Ptr<'c>; 2],
    barriers: Ptr<'c>,
}

impl<'c> Ring<'c> {
    /// Bytes of all stages.
    pub fn bytes(shape: Shape) -> u64 {
        STAGES * (2 * shape.side_bytes() + BARRIERS)
    }

    pub fn carve(k: &mut Builder<'c>, shape: Shape) -> Self {
        let queries = k.shared(shape.side_bytes(), 1024);
        let sides = [0, 1].map(|_| k.shared(STAGES * shape.side_bytes(), 1024));
        let barriers = k.shared(STAGES * BARRIERS, 16);
        Self { shape, queries, sides, barriers }
    }

    /// The stages' memory, when no step is on its way any more: keys' and values' follow each other.
    pub fn free_memory(&self) -> Ptr<'c> {
        self.sides[0]
    }

    /// Set up the barriers; a barrier of the block must follow.
    pub fn init(&self, k: &mut Builder<'c>) {
        let (thread, zero) = (k.thread(), k.index(0));
        let one = k.equal(thread, zero);
        k.when(one, |k| {
            for barrier in 0..2 * STAGES {
                let full = k.at_bytes_constant(self.barriers, 16 * barrier);
                let empty = k.at_bytes_constant(full, 8);
                k.init_barrier(full, 1);
                k.init_barrier(empty, ATTENDING / WARP);
            }
            k.fence_barriers();
            let map = k.tensor_map(0);
            k.prefetch_map(map);
        });
    }

    /// Run `bring` in one thread, `attend` in those that multiply.
    pub fn by_role(
        k: &mut Builder<'c>,
        bring: impl FnOnce(&mut Builder<'c>),
        attend: impl FnOnce(&mut Builder<'c>),
    ) {
        k.by_role(
            ATTENDING,
            |k| {
                k.take_registers(REGISTERS[0]);
                attend(k);
            },
            |k, [warp, first]| {
                k.note("bring keys and values");
                k.give_registers(REGISTERS[1]);
                let copying = k.equal(warp, first);
                k.in_one_when(copying, bring);
            },
        );
    }

    /// The side of the stage of step `at`, counted from the block's first.
    pub fn stage(&self, k: &mut Builder<'c>, at: I32<'c>, side: Side) -> Stage<'c> {
        let [mask, one] = [STAGES - 1, 1].map(|mask| k.i32(mask as i32));
        let slot = k.and(at, mask);
        let turn = k.shift_right(at, STAGES.ilog2() as i32);
        let parity = k.and(turn, one);
        let slot = k.index_of(slot);
        let start = k.mul_constant(slot, self.shape.side_bytes());
        let place = k.at_bytes(self.sides[side as usize], start);
        let barriers = k.mul_constant(slot, BARRIERS);
        let full = k.at_bytes(self.barriers, barriers);
        let full = k.at_bytes_constant(full, 16 * side as u64);
        let empty = k.at_bytes_constant(full, 8);
        Stage { place, full, empty, parity }
    }

    /// Have `steps` steps brought in, each side as soon as its stage is empty; `before` steps were. Rows
    /// of the map are those that `rows_of` gives for a step, columns begin at `columns`. Gives how many
    /// steps there were then.
    pub fn bring(
        &self,
        k: &mut Builder<'c>,
        (before, steps): (Index<'c>, Index<'c>),
        columns: [I32<'c>; 2],
        rows_of: impl Fn(&mut Builder<'c>, Index<'c>) -> RowsOf<'c>,
    ) -> Index<'c> {
        let map = k.tensor_map(0);
        let zero = k.index(0);
        let first = rows_of(k, zero);
        let last = k.sub_constant(steps, 1);
        k.fold(zero, steps, 1, first, |k, step, rows| {
            // Asked for before the stages are waited for: where pages are is read from memory.
            let next = k.add_constant(step, 1);
            let next = k.min(next, last);
            let next = rows_of(k, next);
            let at = k.add(before, step);
            let at = k.i32_of(at);
            for side in [Side::Keys, Side::Values] {
                let Stage { place, full, empty, parity } = self.stage(k, at, side);
                // In the first turn the stages are empty: the turn before the first one has ended.
                let one = k.i32(1);
                let other = k.xor(parity, one);
                k.wait_for_phase(empty, other);
                k.arrive_expecting(full, self.shape.side_bytes() as u32);
                for piece in 0..self.shape.pieces() {
                    let column = k.i32((PIECE * piece) as i32);
                    let column = k.add(columns[side as usize], column);
                    for half in 0..2 {
                        let start = piece * Shape::PIECE_BYTES + half * 2 * PIECE * PAGE;
                        let to = k.at_bytes_constant(place, start);
                        let row = rows[2 * side as usize + half as usize];
                        k.copy_box_in(to, map, [column, row], full);
                    }
                }
            }
            next
        });
        k.add(before, steps)
    }

    /// This warp has read a stage.
    pub fn free(&self, k: &mut Builder<'c>, stage: Stage<'c>) {
        let one = k.elected();
        k.when(one, |k| k.arrive(stage.empty));
    }
}
