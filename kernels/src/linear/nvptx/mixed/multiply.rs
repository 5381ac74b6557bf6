//! The two warpgroups that multiply. While products of half a step are under way, a thread unpacks the
//! other half; with groups, it scales sums of the half that is done.

use super::super::ring::{Ring, Stage};
use super::super::weight::{has_groups, scale_of, zero_of};
use super::fragments::{Fragments, Left, UNITS, first_of_x};
use super::{Mixed, STEP};
use crate::emit::gpu::{Left as From, Swizzle};
use crate::emit::{Builder, F32, I32, Index};

/// A thread that multiplies.
#[derive(Clone, Copy)]
pub(crate) struct Multiplying<'c> {
    shape: Mixed,
    ring: Ring<'c>,
    fragments: Fragments<'c>,
    /// Bytes of a stage before the rows of x of this warpgroup.
    skipped: Index<'c>,
    /// How many of these are multiplied.
    rows: u32,
}

impl<'c> Multiplying<'c> {
    pub fn new(k: &mut Builder<'c>, shape: Mixed, ring: Ring<'c>) -> Self {
        let fragments = Fragments::new(k, shape);
        let first = first_of_x(k, shape);
        let skipped = k.mul_constant(first, STEP);
        Self { shape, ring, fragments, skipped, rows: shape.own_rows() }
    }

    /// The same for the first `rows` rows of x alone, a multiple of 32, where both warpgroups have all.
    pub fn of_first(self, rows: u32) -> Self {
        assert!(self.shape.along_weight() == 2 && rows <= self.rows, "rows of both warpgroups");
        Self { rows, ..self }
    }

    /// This thread's sums over the steps after those `before`: of each part of the warpgroup's weight
    /// rows, as [`crate::emit::gpu::warpgroup`] deals them, rows being those of the weight and columns
    /// those of x.
    pub fn multiply(&self, k: &mut Builder<'c>, steps: (Index<'c>, u64)) -> Vec<F32<'c>> {
        match has_groups(self.shape.scheme) {
            true => self.groups(k, steps),
            false => self.floats(k, steps),
        }
    }

    /// Sums of a thread in each part.
    fn sums(&self) -> usize {
        self.rows as usize / 2
    }

    /// The descriptor of the warpgroup's rows of x.
    fn right(&self, k: &mut Builder<'c>, stage: Stage<'c>) -> Index<'c> {
        let place = k.at_bytes(stage.place, self.skipped);
        k.descriptor(place, 1024, Swizzle::Bytes128)
    }

    /// The step before `at` has been read, if it is one of this tile.
    fn free_before(&self, k: &mut Builder<'c>, step: Index<'c>, at: Index<'c>) {
        let zero = k.index(0);
        let has = k.less(zero, step);
        k.when(has, |k| {
            let before = k.sub_constant(at, 1);
            self.free(k, before);
        });
    }

    /// All threads of this warp have read the stage of a step.
    fn free(&self, k: &mut Builder<'c>, step: Index<'c>) {
        k.warp_barrier();
        self.ring.free(k, step);
    }

    /// Sums of bf16 products, half a step after the other. Two halves are in registers: one that is
    /// multiplied, and one that is unpacked.
    fn floats(&self, k: &mut Builder<'c>, (before, steps): (Index<'c>, u64)) -> Vec<F32<'c>> {
        let parts = self.shape.parts() as usize;
        let sums = vec![k.f32(0.0); parts * self.sums()];
        let nothing = vec![[k.i32(0); 4]; parts * UNITS];
        let (zero, end) = (k.index(0), k.index(steps));
        let (sums, held) = k.fold(zero, end, 1, (sums, nothing), |k, step, (sums, held)| {
            let at = k.add(before, step);
            let stage = self.ring.full(k, at);
            let right = self.right(k, stage);
            let left = self.fragments.half(k, (stage.place, 0), None);
            let (sums, left) = self.ask(k, sums, left, (right, 0));
            // What was asked for in the last step has been done.
            let sums = k.wait_for_products_of(1, &sums, &held);
            self.free_before(k, step, at);
            let next = self.fragments.half(k, (stage.place, 1), None);
            let (sums, next) = self.ask(k, sums, next, (right, 1));
            let sums = k.wait_for_products_of(1, &sums, &left);
            (sums, next)
        });
        let sums = k.wait_for_products_of(0, &sums, &held);
        let last = k.add_constant(before, steps - 1);
        self.free(k, last);
        sums
    }

    /// Ask for the products of half `half` of a step.
    fn ask(
        &self,
        k: &mut Builder<'c>,
        sums: Vec<F32<'c>>,
        left: Vec<Left<'c>>,
        (right, half): (Index<'c>, usize),
    ) -> (Vec<F32<'c>>, Vec<Left<'c>>) {
        let (sums, left) = k.begin_products_with(&sums, &left);
        let mut parts: Vec<Vec<F32<'c>>> =
            sums.chunks_exact(self.sums()).map(<[_]>::to_vec).collect();
        for unit in 0..UNITS {
            let right = k.add_constant(right, 2 * (UNITS * half + unit) as u64);
            for (part, sums) in parts.iter_mut().enumerate() {
                let left = From::Registers(left[UNITS * part + unit]);
                *sums = k.product_bf16(sums, left, right, false);
            }
        }
        k.commit_products();
        (parts.concat(), left)
    }

    /// Sums of integer products, a group after the other: its sums, once they are there, times its
    /// scales. Rows of x come in two halves, so that the products of one are under way while the sums
    /// of the other are scaled; the other warpgroup's are under way while a thread unpacks. None is when
    /// a turn ends: the assembler does not follow sums of a group over that.
    fn groups(&self, k: &mut Builder<'c>, (before, steps): (Index<'c>, u64)) -> Vec<F32<'c>> {
        let half = self.sums() / 2;
        let zeros = vec![k.f32(0.0); 2 * half];
        let (zero, end) = (k.index(0), k.index(steps));
        k.fold(zero, end, 1, zeros, |k, step, sums| {
            let at = k.add(before, step);
            let stage = self.ring.full(k, at);
            let right = self.right(k, stage);
            let words = self.fragments.words(k, stage.place);
            let zeros = Some(words.map(|word| zero_of(k, word)));
            let scales = words.map(|word| scale_of(k, word));
            let left = [0, 1].map(|half| self.fragments.half(k, (stage.place, half), zeros));
            let (sums, left) = k.begin_products_with(&sums, &left.concat());
            // Rows are STEP bytes apart, descriptors count 16.
            let other = k.add_constant(right, u64::from(self.rows / 2) * STEP / 16);
            let [early, late] = [right, other].map(|right| self.ask_group(k, &left, right));
            let early = k.wait_for_products(1, &early);
            let early = add(k, &sums[..half], &early, scales);
            let late = k.wait_for_products_of(0, &late, &left);
            self.free(k, at);
            let late = add(k, &sums[half..], &late, scales);
            [early, late].concat()
        })
    }

    /// Ask for the products of a whole group with a half of the rows of x.
    fn ask_group(&self, k: &mut Builder<'c>, left: &[Left<'c>], right: Index<'c>) -> Vec<I32<'c>> {
        let mut group = vec![k.i32(0); self.sums() / 2];
        for (unit, left) in left.iter().enumerate() {
            let right = k.add_constant(right, 2 * unit as u64);
            group = k.product_int8(&group, From::Registers(*left), right, unit == 0);
        }
        k.commit_products();
        group
    }
}

/// `sums + group · scale`, each of rows g and g + 8 having its scale.
fn add<'c>(
    k: &mut Builder<'c>,
    sums: &[F32<'c>],
    group: &[I32<'c>],
    scales: [F32<'c>; 2],
) -> Vec<F32<'c>> {
    let pairs = sums.iter().zip(group).enumerate();
    pairs
        .map(|(at, (sum, group))| {
            // 128 products of 15 · 127 at most are below 2^22.
            let group = k.f32_of_small(*group);
            k.fma(group, scales[at / 2 % 2], *sum)
        })
        .collect()
}
