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

mod copy;
mod finish;
mod fragments;
mod multiply;
#[cfg(test)]
mod tests;

use sail_ir::plan::{Grid, MapRows, TensorMap};
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::direct::Tile;
use super::ring::{Ring, Stages};
use super::weight::{bytes_of_x, has_groups};
use super::{Arguments, Sizes};
use crate::emit::Builder;
use crate::emit::gpu::{WARP, WARPGROUP};
use crate::kernel::ThreadBlock;
use crate::packing::rows::RUN;
pub(crate) use copy::Weight;
pub(crate) use finish::finish;
pub(crate) use multiply::Multiplying;

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

    /// Those for groups of rows of an expert: both warpgroups have all rows of x.
    #[must_use]
    pub(crate) fn of_experts(scheme: Scheme) -> Vec<Self> {
        let takes = |shape: &Self| shape.along_weight() == 2 && [64, 128].contains(&shape.rows);
        Self::all(scheme).into_iter().filter(takes).collect()
    }

    /// Of how many rows of x it has loops for all multiples, where a group may have fewer than the tile.
    /// The assembler keeps registers for the sums of each loop apart, and makes every product wait where
    /// there are not enough (C7512).
    pub(crate) fn rows_by(self) -> u32 {
        /// Registers for sums.
        const MOST: u32 = 192;
        let sums = |rows: u32| self.parts() * rows / 2;
        let all: u32 = (32..=self.rows).step_by(32).map(sums).sum();
        if all <= MOST { 32 } else { self.rows / 2 }
    }

    /// Bytes that a tile reads.
    pub(crate) fn block_bytes(self, sizes: &Sizes) -> u64 {
        Self::steps(sizes) * self.step_bytes()
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

    pub(crate) fn right_bytes(self) -> u64 {
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

    /// As many stages as fit with outputs on their way and `beside` other bytes of shared memory.
    pub(crate) fn stages(self, sizes: &Sizes, beside: u64) -> Stages {
        let stage = self.step_bytes().next_multiple_of(1024);
        Stages::of(stage, self.staged_bytes(sizes) + beside)
    }

    /// Outputs of a warp in shared memory on their way to y.
    fn staged_bytes_of_warp(self, sizes: &Sizes) -> u64 {
        let outputs = self.of_warp() / sizes.finish.sums();
        2 * u64::from(outputs) * u64::from(finish::TOGETHER)
    }

    /// Outputs of all warps there.
    pub(crate) fn staged_bytes(self, sizes: &Sizes) -> u64 {
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
        let maps = vec![x, self.weight_map(sizes, weight)];
        self.stages(sizes, 0).block(maps, self.staged_bytes(sizes), target)
    }

    /// The tensor map of all packed weights, which are argument `weight`.
    pub(crate) fn weight_map(self, sizes: &Sizes, weight: u32) -> TensorMap {
        TensorMap {
            argument: weight,
            element_bytes: 1,
            columns: sizes.pitch(),
            rows: MapRows::Fixed(sizes.packed_rows()),
            row_bytes: sizes.pitch(),
            block: [WEIGHT_STEP as u32, self.columns],
            swizzle: WEIGHT_STEP as u32,
        }
    }

    /// Steps along K.
    pub(crate) fn steps(sizes: &Sizes) -> u64 {
        sizes.row_bytes()[1].div_ceil(STEP)
    }
}

/// Multiply and finish the tiles of `grid` that are this block's.
pub(super) fn write<'c>(
    k: &mut Builder<'c>,
    (shape, sizes, grid): (Mixed, &Sizes, &Grid),
    arguments: &Arguments<'c>,
) {
    let stages = shape.stages(sizes, 0);
    let staged = k.shared(shape.staged_bytes(sizes), 1024);
    let ring = Ring::carve(k, stages, 1);
    k.barrier();
    let steps = Mixed::steps(sizes);
    Ring::by_role(
        k,
        |k| {
            let multiplying = Multiplying::new(k, shape, ring);
            k.for_items_of_block(grid, |k, turn, block| {
                let before = k.mul_constant(turn, steps);
                let sums = &multiplying.multiply(k, (before, steps))[..];
                let first = k.mul_constant(block.first_column, shape.columns.into());
                k.note("2 finish");
                let (rows, first_row) = (block.rows, block.first_row);
                let tile = Tile { sums, rows, first_row, first, first_packed: first, order: None };
                finish::finish(k, (shape, sizes), tile, arguments, staged);
            });
        },
        |k| {
            let maps = [k.tensor_map(0), k.tensor_map(1)];
            maps.iter().for_each(|map| k.prefetch_map(*map));
            let weight = Weight::new(k, (shape, sizes), 1, arguments.weight);
            k.for_items_of_block(grid, |k, turn, block| {
                let before = k.mul_constant(turn, steps);
                let first = k.mul_constant(block.first_column, shape.columns.into());
                copy::tile(k, ring, (before, steps), (block.first_row, &weight, first));
            });
        },
    );
}
