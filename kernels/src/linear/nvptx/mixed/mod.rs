//! The product of many rows on `sm_90` whose weight has fewer bits than what it meets.
//!
//! `wgmma` takes its left side from registers, so the product is turned around: the left side are rows
//! of the weight, unpacked just before they are multiplied, the right side are rows of x in shared
//! memory. A thread's sums are then neighbours along x, not along the weight, which [`finish`] sees to.
//!
//! A step is 128 bytes of each row of x and the 64 bytes of each weight row that meet them, as they are
//! packed for few rows. One `ldmatrix` gives a thread the words of 16 weight rows for two instructions:
//! a word has both operands of a row, as [`crate::packing::rows`] lays it out.
//!
//! What a step costs each of the four schedulers of a multiprocessor, which has two warps that multiply
//! (256 weight rows by 128 of `int8-weight`, 128 by 128 of `int4`):
//!
//! | | `int8-weight` | `int4` |
//! | --- | ---: | ---: |
//! | values along K | 64 | 128 |
//! | cycles of the matrix unit | 1,024 | 512 |
//! | instructions that unpack: of integers, of floats | 192 + 64 | 112 |
//! | instructions that scale and add the sums of groups | | 128 + 256 |
//! | cycles of the unit of integers, two an instruction | 384 | 480 |
//! | cycles of the second cache: 32, 24.5 KiB by 32 bytes a cycle | 1,024 | 784 |
//! | cycles of shared memory: rows of x, weight, what comes in | 512 + 128 + 256 | 256 + 64 + 196 |
//!
//! So `int8-weight` should come nearer to the matrix units than bf16 does, whose tile of 128 by 256
//! takes 48 KiB from the second cache in the same 1,024 cycles, and `int4` should be bound by that cache
//! at two thirds of what the matrix units do with integers, as `int8` is. None of it is measured yet.

mod finish;
mod fragments;
mod multiply;
#[cfg(test)]
mod tests;

use sail_ir::plan::{Grid, MapRows, TensorMap};
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::ring::{Ring, Stages};
use super::weight::{bytes_of_x, has_groups};
use super::{Arguments, Sizes, behind};
use crate::emit::gpu::{WARP, WARPGROUP};
use crate::emit::{Builder, Index, Ptr};
use crate::kernel::ThreadBlock;
use crate::packing::rows::RUN;
use multiply::Multiplying;

/// Bytes of a row of x in one step: what the widest swizzle covers.
const STEP: u64 = 128;

/// Bytes of a weight row in one step.
const WEIGHT_STEP: u64 = STEP / 2;

/// Bytes of the words of a group of a run of weight rows.
const WORDS: u64 = 4 * RUN as u64;

/// Warps of a warpgroup.
const WARPS: u32 = WARPGROUP / WARP;

/// The shape of a block's tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixed {
    pub scheme: Scheme,
    /// Weight rows: 128 or 256, half of them by each warpgroup, or 64, all of them by both.
    pub columns: u32,
    /// Rows of x, a multiple of 32, or of 64 where each warpgroup has half of them.
    pub rows: u32,
}

impl Mixed {
    /// Has `target` such instructions, do a row of x and one of y begin where copies of 16 bytes can, and
    /// is the weight unpacked?
    #[must_use]
    pub(crate) fn takes(sizes: &Sizes, target: &Target) -> bool {
        let [row_bytes, _] = sizes.row_bytes();
        let aligned = row_bytes.is_multiple_of(16) && sizes.n.is_multiple_of(8);
        target.has("sm_90a") && aligned && bytes_of_x(sizes.scheme) != 1
    }

    /// Shapes whose sums leave room in the registers; of two that cost the same, first the one that
    /// unpacks a word for more rows. Groups have sums besides those of all.
    #[must_use]
    pub(crate) fn all(scheme: Scheme) -> Vec<Self> {
        let rows = |columns| match (columns, has_groups(scheme)) {
            (64, _) => vec![128, 64],
            (128, false) => vec![256, 224, 192, 160, 128, 96, 64],
            (256, true) => Vec::new(),
            _ => vec![128, 96, 64],
        };
        let of =
            |columns| rows(columns).into_iter().map(move |rows| Self { scheme, columns, rows });
        [128, 256, 64].into_iter().flat_map(of).collect()
    }

    /// Bytes that a tile reads.
    pub(crate) fn block_bytes(self, sizes: &Sizes) -> u64 {
        sizes.row_bytes()[1].div_ceil(STEP) * self.step_bytes()
    }

    /// Runs of 64 weight rows of a warpgroup.
    fn parts(self) -> u32 {
        (self.columns / 128).max(1)
    }

    /// Warpgroups that share the weight rows; the others share the rows of x.
    fn along_weight(self) -> u32 {
        (self.columns / 64).min(2)
    }

    /// Rows of x that a warpgroup multiplies.
    fn own_rows(self) -> u32 {
        self.rows / (2 / self.along_weight())
    }

    /// Weight rows of a warp, neighbours in the tile.
    fn of_warp(self) -> u32 {
        16 * self.parts()
    }

    fn right_bytes(self) -> u64 {
        STEP * u64::from(self.rows)
    }

    /// Where the words of a step's groups begin in a stage.
    fn words(self) -> u64 {
        self.right_bytes() + WEIGHT_STEP * u64::from(self.columns)
    }

    /// Runs of weight rows that have words.
    fn runs(self) -> u32 {
        if has_groups(self.scheme) { self.columns / RUN } else { 0 }
    }

    /// Bytes that come for a step.
    fn step_bytes(self) -> u64 {
        self.words() + WORDS * u64::from(self.runs())
    }

    fn stages(self, sizes: &Sizes) -> Stages {
        Stages::of(self.step_bytes().next_multiple_of(1024), self.staged_bytes(sizes))
    }

    /// Outputs of a warp in shared memory on their way to y.
    fn staged_bytes_of_warp(self, sizes: &Sizes) -> u64 {
        let outputs = self.of_warp() / sizes.finish.sums();
        2 * u64::from(outputs) * u64::from(finish::TOGETHER)
    }

    fn staged_bytes(self, sizes: &Sizes) -> u64 {
        2 * u64::from(WARPS) * self.staged_bytes_of_warp(sizes)
    }

    /// The block, with the tensor maps of x and of the weight, which is argument `weight`.
    #[must_use]
    pub(crate) fn block(self, sizes: &Sizes, weight: u32, target: &Target) -> ThreadBlock {
        let [row_bytes, multiplied] = sizes.row_bytes();
        let element_bytes = if sizes.scheme.quantizes_activations() { 1 } else { 2 };
        let x = TensorMap {
            argument: 0,
            element_bytes,
            columns: multiplied / u64::from(element_bytes),
            rows: MapRows::Counted { count: sizes.rows.count, per: sizes.rows.per },
            row_bytes,
            block: [STEP as u32 / element_bytes, self.rows],
            swizzle: STEP as u32,
        };
        let weight = TensorMap {
            argument: weight,
            element_bytes: 1,
            columns: sizes.pitch(),
            rows: MapRows::Fixed(sizes.weight_rows().into()),
            row_bytes: sizes.pitch(),
            block: [WEIGHT_STEP as u32, self.columns],
            swizzle: WEIGHT_STEP as u32,
        };
        self.stages(sizes).block(vec![x, weight], self.staged_bytes(sizes), target)
    }
}

/// Multiply and finish the tiles of `grid` that are this block's.
pub(super) fn write<'c>(
    k: &mut Builder<'c>,
    (shape, sizes, grid): (Mixed, &Sizes, &Grid),
    arguments: &Arguments<'c>,
) {
    let stages = shape.stages(sizes);
    let staged = k.shared(shape.staged_bytes(sizes), 1024);
    let ring = Ring::carve(k, stages, 1);
    k.barrier();
    let steps = sizes.row_bytes()[1].div_ceil(STEP);
    Ring::by_role(
        k,
        |k| {
            let multiplying = Multiplying::new(k, shape, ring);
            k.for_items_of_block(grid, |k, turn, block| {
                let before = k.mul_constant(turn, steps);
                let sums = multiplying.multiply(k, (before, steps));
                let first = k.mul_constant(block.first_column, shape.columns.into());
                k.note("2 finish");
                let tile = finish::Tile { sums: &sums, block, first };
                finish::finish(k, (shape, sizes), tile, arguments, staged);
            });
        },
        |k| {
            let maps = [k.tensor_map(0), k.tensor_map(1)];
            maps.iter().for_each(|map| k.prefetch_map(*map));
            let words = behind(k, sizes, arguments.weight);
            k.for_items_of_block(grid, |k, turn, block| {
                let before = k.mul_constant(turn, steps);
                let first = k.mul_constant(block.first_column, shape.columns.into());
                let of = Copied { shape, sizes, words, first: [block.first_row, first] };
                of.copy(k, ring, (before, steps));
            });
        },
    );
}

/// What is copied for a tile.
struct Copied<'c, 'a> {
    shape: Mixed,
    sizes: &'a Sizes,
    /// The words of the weight's groups, where it has some.
    words: Ptr<'c>,
    /// First row of x and first weight row.
    first: [Index<'c>; 2],
}

impl<'c> Copied<'c, '_> {
    /// Have every step brought in as soon as its stage is empty.
    fn copy(&self, k: &mut Builder<'c>, ring: Ring<'c>, (before, steps): (Index<'c>, u64)) {
        let shape = self.shape;
        let maps = [k.tensor_map(0), k.tensor_map(1)];
        let rows = self.first.map(|first| k.i32_of(first));
        let widths = [0, 1].map(|map| u64::from(k.shape().tensor_maps[map].block[0]));
        let (zero, end) = (k.index(0), k.index(steps));
        k.for_each(zero, end, 1, |k, step| {
            let at = k.add(before, step);
            let stage = ring.empty(k, at);
            k.arrive_expecting(stage.full, shape.step_bytes() as u32);
            let weight = k.at_bytes_constant(stage.place, shape.right_bytes());
            let columns = widths.map(|width| {
                let column = k.mul_constant(step, width);
                k.i32_of(column)
            });
            k.copy_box_in(stage.place, maps[0], [columns[0], rows[0]], stage.full);
            k.copy_box_in(weight, maps[1], [columns[1], rows[1]], stage.full);
            if shape.runs() > 0 {
                let to = k.at_bytes_constant(stage.place, shape.words());
                self.copy_words(k, step, (to, stage.full));
            }
        });
    }

    /// The words of group `step` of each run; of runs that the weight lacks, those of its last one.
    fn copy_words(&self, k: &mut Builder<'c>, step: Index<'c>, (to, full): (Ptr<'c>, Ptr<'c>)) {
        let pitch = u64::from(RUN) * self.sizes.scheme.bytes_behind(self.sizes.k.into());
        let first = k.div_constant(self.first[1], RUN.into());
        let last = k.index(u64::from(self.sizes.weight_rows() / RUN) - 1);
        let skipped = k.mul_constant(step, WORDS);
        let group = k.at_bytes(self.words, skipped);
        for run in 0..u64::from(self.shape.runs()) {
            let at = k.add_constant(first, run);
            let at = k.min(at, last);
            let start = k.mul_constant(at, pitch);
            let from = k.at_bytes(group, start);
            let to = k.at_bytes_constant(to, WORDS * run);
            let bytes = k.i32(WORDS as i32);
            k.copy_run_in(to, from, bytes, full);
        }
    }
}
