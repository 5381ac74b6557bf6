//! The product of many rows on `sm_90`: two warpgroups multiply (`wgmma`), a third one has the copying
//! hardware bring the steps along K to shared memory, in a ring of stages.
//!
//! A step is 128 bytes of each row, swizzled as tensor maps do it. A stage has two barriers: `full`
//! completes with its bytes, `empty` with an arrival of each multiplying warp. The copying warp runs
//! ahead by as many steps as there are stages.

use sail_ir::plan::{Grid, MapRows, TensorMap};
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::Sizes;
use super::direct::Tile;
use super::multiply::Steps;
use super::ring::{Ring, Stages};
use super::sum::Sum;
use super::weight::bytes_of_x;
use crate::emit::{Builder, Index};
use crate::kernel::ThreadBlock;

/// Bytes of a row in one step: what the widest swizzle covers.
pub(crate) const STEP: u64 = 128;

/// Rows of x that a block multiplies, half of them by each warpgroup.
pub const ROWS: u32 = 128;

/// The shape of a block's tile: [`crate::gpu_model::ByWarpgroups`] chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warpgroups {
    /// Weight rows, at most 256.
    pub columns: u32,
    pub stages: u64,
}

impl Warpgroups {
    /// Has `target` such instructions, do rows begin where its copies can, and are the bytes of the weight
    /// multiplied as they are?
    #[must_use]
    pub(crate) fn takes(sizes: &Sizes, target: &Target) -> bool {
        let [row_bytes, _] = sizes.row_bytes();
        let as_they_are = bytes_of_x(sizes.scheme) == 1;
        target.has("sm_90a") && row_bytes.is_multiple_of(16) && as_they_are
    }

    /// As many stages as fit with `beside` other bytes of shared memory.
    pub(crate) fn with(columns: u32, beside: u64) -> Self {
        let one = Self { columns, stages: 1 };
        Self { stages: Stages::of(one.stage_bytes(), beside).count, ..one }
    }

    pub(crate) fn stages(self) -> Stages {
        Stages { count: self.stages, bytes: self.stage_bytes() }
    }

    /// Bytes that a tile reads.
    pub(crate) fn block_bytes(self, sizes: &Sizes) -> u64 {
        self.steps(sizes) * self.stage_bytes()
    }

    pub(crate) fn left_bytes(self) -> u64 {
        STEP * u64::from(ROWS)
    }

    pub(crate) fn right_bytes(self) -> u64 {
        STEP * u64::from(self.columns)
    }

    pub(crate) fn stage_bytes(self) -> u64 {
        self.left_bytes() + self.right_bytes()
    }

    /// The block, with the tensor maps of x and of the weight, which is argument `weight`.
    #[must_use]
    pub(crate) fn block(self, sizes: &Sizes, weight: u32, target: &Target) -> ThreadBlock {
        let [row_bytes, multiplied] = sizes.row_bytes();
        let counted = MapRows::Counted { count: sizes.rows.count, per: sizes.rows.per };
        let x = map(sizes, 0, (multiplied, row_bytes), (counted, ROWS));
        self.stages().block(vec![x, self.weight_map(sizes, weight)], 0, target)
    }

    /// The tensor map of all packed weights, which are argument `weight`.
    pub(crate) fn weight_map(self, sizes: &Sizes, weight: u32) -> TensorMap {
        let pitch = sizes.pitch();
        let rows = MapRows::Fixed(sizes.packed_rows());
        map(sizes, weight, (pitch, pitch), (rows, self.columns))
    }

    pub(crate) fn steps(self, sizes: &Sizes) -> u64 {
        sizes.row_bytes()[1].div_ceil(STEP)
    }
}

/// A map of a side: of rows the `bytes` that are multiplied, `row_bytes` apart, in boxes of a step.
fn map(
    sizes: &Sizes,
    argument: u32,
    (bytes, row_bytes): (u64, u64),
    (rows, box_rows): (MapRows, u32),
) -> TensorMap {
    let element_bytes = if sizes.scheme == Scheme::Bf16 { 2 } else { 1 };
    TensorMap {
        argument,
        element_bytes,
        columns: bytes / u64::from(element_bytes),
        rows,
        row_bytes,
        block: [STEP as u32 / element_bytes, box_rows],
        swizzle: STEP as u32,
    }
}

/// Multiply the tiles of `grid` that are this block's. `finish` is run by the threads that multiply, for
/// each with the sums of its tile; the first steps of the next tile are on their way meanwhile.
pub(crate) fn write<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    (shape, sizes, grid): (Warpgroups, &Sizes, &Grid),
    finish: impl FnOnce(&mut Builder<'c>, Tile<'c, '_, T>),
) {
    let all = Steps { shape, scheme: sizes.scheme, ring: Ring::carve(k, shape.stages(), 1) };
    k.barrier();
    let steps = shape.steps(sizes);
    Ring::by_role(
        k,
        |k| {
            k.for_items_of_block(grid, |k, turn, block| {
                let before = k.mul_constant(turn, steps);
                let sums = all.multiply::<T>(k, (before, steps));
                let first = k.mul_constant(block.first_column, shape.columns.into());
                let (rows, first_row) = (block.rows, block.first_row);
                let sums = &sums;
                finish(k, Tile { sums, rows, first_row, first, first_packed: first, order: None });
            });
        },
        |k| {
            let maps = [k.tensor_map(0), k.tensor_map(1)];
            maps.iter().for_each(|map| k.prefetch_map(*map));
            k.for_items_of_block(grid, |k, turn, block| {
                let before = k.mul_constant(turn, steps);
                let first = k.mul_constant(block.first_column, shape.columns.into());
                copy(k, all, (before, steps), [block.first_row, first]);
            });
        },
    );
}

/// Have every step brought in as soon as its stage is empty.
fn copy<'c>(
    k: &mut Builder<'c>,
    all: Steps<'c>,
    (before, steps): (Index<'c>, u64),
    first: [Index<'c>; 2],
) {
    let maps = [k.tensor_map(0), k.tensor_map(1)];
    let rows = first.map(|first| k.i32_of(first));
    // Columns of a map that a step has.
    let columns = u64::from(k.shape().tensor_maps[0].block[0]);
    let (zero, steps) = (k.index(0), k.index(steps));
    k.for_each(zero, steps, 1, |k, step| {
        let at = k.add(before, step);
        let stage = all.ring.empty(k, at);
        k.arrive_expecting(stage.full, all.shape.stage_bytes() as u32);
        let column = k.mul_constant(step, columns);
        let column = k.i32_of(column);
        let right = k.at_bytes_constant(stage.place, all.shape.left_bytes());
        k.copy_box_in(stage.place, maps[0], [column, rows[0]], stage.full);
        k.copy_box_in(right, maps[1], [column, rows[1]], stage.full);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_fit() {
        for runs in 2..=8 {
            let shape = Warpgroups::with(32 * runs, 0);
            assert!((4..=6).contains(&shape.stages), "{shape:?}");
            assert!(shape.stages * (shape.stage_bytes() + 16) <= 227 << 10);
        }
    }
}
