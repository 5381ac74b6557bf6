//! What the two warpgroups do that multiply: the sums of a tile, step by step along K.

use sail_ir::scheme::Scheme;

use super::ring::Ring;
use super::sum::Sum;
use super::warpgroup::{STEP, Warpgroups};
use crate::emit::gpu::Swizzle;
use crate::emit::{Builder, Index};

/// A tile's steps as they come through a ring.
#[derive(Clone, Copy)]
pub(crate) struct Steps<'c> {
    pub shape: Warpgroups,
    pub scheme: Scheme,
    pub ring: Ring<'c>,
}

impl<'c> Steps<'c> {
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

/// [`Steps::multiply`].
fn multiply<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    all: Steps<'c>,
    (before, steps): (Index<'c>, u64),
) -> Vec<T> {
    let half = half(k, all);
    let sums: Vec<T> = (0..all.shape.columns / 2).map(|_| T::zero(k)).collect();
    let (zero, end) = (k.index(0), k.index(steps));
    let sums = k.fold(zero, end, 1, sums, |k, step, sums| {
        let at = k.add(before, step);
        let sums = step_of(k, all, (at, half), &sums, false);
        // This step's products are under way; those of the one before have read their stage.
        let sums = k.wait_for_products(1, &sums);
        let has = k.less(zero, step);
        let last = k.sub_constant(at, 1);
        k.when(has, |k| all.ring.free(k, last));
        sums
    });
    let sums = k.wait_for_products(0, &sums);
    let last = k.add_constant(before, steps - 1);
    all.ring.free(k, last);
    sums
}

/// As [`multiply`], each step in sums of its own that are added to the others as f32: those of the
/// hardware have too few bits for many products of 8-bit floats.
fn multiply_apart<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    all: Steps<'c>,
    (before, steps): (Index<'c>, u64),
) -> Vec<T> {
    let half = half(k, all);
    let zeros: Vec<T> = (0..all.shape.columns / 2).map(|_| T::zero(k)).collect();
    let (zero, end) = (k.index(0), k.index(steps));
    k.fold(zero, end, 1, zeros.clone(), |k, step, sums| {
        let at = k.add(before, step);
        let parts = step_of(k, all, (at, half), &zeros, true);
        let parts = k.wait_for_products(0, &parts);
        all.ring.free(k, at);
        sums.into_iter().zip(parts).map(|(sum, part)| k.add(sum, part)).collect()
    })
}

/// Where this warpgroup's rows begin in the left side of a stage.
fn half<'c>(k: &mut Builder<'c>, all: Steps<'c>) -> Index<'c> {
    let warp = k.warp();
    let half = k.div_constant(warp, 4);
    k.mul_constant(half, all.shape.left_bytes() / 2)
}

/// Ask for the products of step `at` as soon as it is there; with `fresh`, what stood in the sums is not
/// added.
fn step_of<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    all: Steps<'c>,
    (at, half): (Index<'c>, Index<'c>),
    sums: &[T],
    fresh: bool,
) -> Vec<T> {
    let left = all.ring.full(k, at).place;
    let right = k.at_bytes_constant(left, all.shape.left_bytes());
    let left = k.at_bytes(left, half);
    let [left, right] = [left, right].map(|place| k.descriptor(place, 1024, Swizzle::Bytes128));
    let mut sums = k.begin_products_on(sums);
    for part in 0..STEP / 32 {
        let sides = [left, right].map(|d| k.add_constant(d, 2 * part));
        sums = T::product(k, all.scheme, &sums, sides, fresh && part == 0);
    }
    k.commit_products();
    sums
}
