//! The ring of stages through which steps along K come to the warpgroups that multiply them.

use sail_ir::scheme::Scheme;

use super::sum::Sum;
use super::warpgroup::{MULTIPLYING, STEP, Warpgroups};
use crate::emit::gpu::{Swizzle, WARP};
use crate::emit::{Builder, I32, Index, Ptr};

/// Shared memory of the ring.
#[derive(Clone, Copy)]
pub(crate) struct Ring<'c> {
    pub shape: Warpgroups,
    scheme: Scheme,
    pub stages: Ptr<'c>,
    barriers: Ptr<'c>,
}

impl<'c> Ring<'c> {
    /// Take the shared memory, and set up its barriers: a stage is full when `filling` have arrived. A
    /// barrier of the block must follow.
    pub fn carve(k: &mut Builder<'c>, shape: Warpgroups, scheme: Scheme, filling: u32) -> Self {
        let stages = k.shared(shape.stages * shape.stage_bytes(), 1024);
        let barriers = k.shared(shape.stages * 16, 16);
        let (thread, zero) = (k.thread(), k.index(0));
        let one = k.equal(thread, zero);
        k.when(one, |k| {
            for stage in 0..shape.stages {
                let full = k.at_bytes_constant(barriers, 16 * stage);
                let empty = k.at_bytes_constant(full, 8);
                k.init_barrier(full, filling);
                k.init_barrier(empty, MULTIPLYING / WARP);
            }
            k.fence_barriers();
        });
        Self { shape, scheme, stages, barriers }
    }

    /// Where the left side of a step's stage is, its barriers `full` and `empty`, and the parity of the
    /// step's turn.
    pub fn stage(&self, k: &mut Builder<'c>, step: Index<'c>) -> (Ptr<'c>, [Ptr<'c>; 2], I32<'c>) {
        let (slot, turn) =
            (k.rem_constant(step, self.shape.stages), k.div_constant(step, self.shape.stages));
        let start = k.mul_constant(slot, self.shape.stage_bytes());
        let barriers = k.mul_constant(slot, 16);
        let full = k.at_bytes(self.barriers, barriers);
        let empty = k.at_bytes_constant(full, 8);
        let parity = k.rem_constant(turn, 2);
        let parity = k.i32_of(parity);
        (k.at_bytes(self.stages, start), [full, empty], parity)
    }

    /// The sums of this warpgroup's 64 rows, of the steps after those `before`.
    pub fn multiply<T: Sum<'c>>(
        self,
        k: &mut Builder<'c>,
        (before, steps): (Index<'c>, u64),
    ) -> Vec<T> {
        match self.scheme {
            Scheme::Fp8 => multiply_apart(k, self, (before, steps)),
            _ => multiply(k, self, (before, steps)),
        }
    }
}

/// [`Ring::multiply`].
fn multiply<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    ring: Ring<'c>,
    (before, steps): (Index<'c>, u64),
) -> Vec<T> {
    let half = half(k, ring);
    let sums: Vec<T> = (0..ring.shape.columns / 2).map(|_| T::zero(k)).collect();
    let (zero, end) = (k.index(0), k.index(steps));
    let sums = k.fold(zero, end, 1, sums, |k, step, sums| {
        let at = k.add(before, step);
        let sums = step_of(k, ring, (at, half), &sums, false);
        // This step's products are under way; those of the one before have read their stage.
        let sums = k.wait_for_products(1, &sums);
        let has = k.less(zero, step);
        let last = k.sub_constant(at, 1);
        k.when(has, |k| free(k, ring, last));
        sums
    });
    let sums = k.wait_for_products(0, &sums);
    let last = k.add_constant(before, steps - 1);
    free(k, ring, last);
    sums
}

/// As [`multiply`], each step in sums of its own that are added to the others as f32: those of the
/// hardware have too few bits for many products of 8-bit floats.
fn multiply_apart<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    ring: Ring<'c>,
    (before, steps): (Index<'c>, u64),
) -> Vec<T> {
    let half = half(k, ring);
    let zeros: Vec<T> = (0..ring.shape.columns / 2).map(|_| T::zero(k)).collect();
    let (zero, end) = (k.index(0), k.index(steps));
    k.fold(zero, end, 1, zeros.clone(), |k, step, sums| {
        let at = k.add(before, step);
        let parts = step_of(k, ring, (at, half), &zeros, true);
        let parts = k.wait_for_products(0, &parts);
        free(k, ring, at);
        sums.into_iter().zip(parts).map(|(sum, part)| k.add(sum, part)).collect()
    })
}

/// Where this warpgroup's rows begin in the left side of a stage.
fn half<'c>(k: &mut Builder<'c>, ring: Ring<'c>) -> Index<'c> {
    let warp = k.warp();
    let half = k.div_constant(warp, 4);
    k.mul_constant(half, ring.shape.left_bytes() / 2)
}

/// Ask for the products of step `at` as soon as it is there; with `fresh`, what stood in the sums is not
/// added.
fn step_of<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    ring: Ring<'c>,
    (at, half): (Index<'c>, Index<'c>),
    sums: &[T],
    fresh: bool,
) -> Vec<T> {
    let (left, [full, _], parity) = ring.stage(k, at);
    k.wait_for_phase(full, parity);
    let right = k.at_bytes_constant(left, ring.shape.left_bytes());
    let left = k.at_bytes(left, half);
    let [left, right] = [left, right].map(|place| k.descriptor(place, 1024, Swizzle::Bytes128));
    let mut sums = k.begin_products_on(sums);
    for part in 0..STEP / 32 {
        let sides = [left, right].map(|d| k.add_constant(d, 2 * part));
        sums = T::product(k, ring.scheme, &sums, sides, fresh && part == 0);
    }
    k.commit_products();
    sums
}

/// This warp has read the stage of a step.
pub(crate) fn free<'c>(k: &mut Builder<'c>, ring: Ring<'c>, step: Index<'c>) {
    let (_, [_, empty], _) = ring.stage(k, step);
    let one = k.elected();
    k.when(one, |k| k.arrive(empty));
}
