//! Grouped products of many rows on `sm_90`: warpgroups multiply (`wgmma`) a group of rows of one
//! expert by some rows of its weight, as [`crate::linear::nvptx::warpgroup`] does it.
//!
//! The weights of all experts are one matrix of a tensor map. Rows of x are not neighbours, so that no
//! map can bring them: the threads of the third warpgroup copy them unit by unit (`cp.async`), in the
//! order in which a map would swizzle them. These copies run some steps ahead of when their stage is
//! given to those who multiply.
//!
//! Of a group with at most half the rows of a tile, which is what an expert has of a prompt of some
//! hundred tokens, the other half is neither copied nor multiplied.

use sail_ir::scheme::Scheme;

use super::groups::{Cut, Group, Groups};
use super::{Given, GroupedProduct, of_x};
use crate::emit::gpu::{WARP, WARPGROUP};
use crate::emit::{Bool, Builder, F32, I32, Index, Ptr};
use crate::gpu::OnGpu;
use crate::kernel::Kernel;
use crate::linear::nvptx::direct::{self, Tile};
use crate::linear::nvptx::multiply::Steps;
use crate::linear::nvptx::ring::{MULTIPLYING, Ring};
use crate::linear::nvptx::sum::Sum;
use crate::linear::nvptx::warpgroup::{ROWS, STEP, Warpgroups};
use crate::linear::nvptx::{Sizes, prepared};
use sail_ir::target::Target;

/// Registers of a thread that multiplies, and of one that copies.
const REGISTERS: [u32; 2] = [224, 56];

/// Bytes of one copy.
const UNIT: u64 = 16;

/// Units of a row in one step.
const UNITS: u64 = STEP / UNIT;

/// Rows that the copying threads have one unit each of.
const ROWS_AT_ONCE: u64 = WARPGROUP as u64 / UNITS;

/// Rows of a tile that a warpgroup multiplies.
const HALF: u64 = ROWS as u64 / 2;

pub(super) fn kernel(
    problem: &GroupedProduct,
    sizes: Sizes,
    (shape, cut): (Warpgroups, Cut),
    target: &Target,
) -> Box<dyn Kernel> {
    let weight = problem.arguments().iter().position(|name| *name == "weight");
    let weight = weight.expect("every grouped product has this argument") as u32;
    let map = shape.weight_map(&sizes, weight);
    let block = shape.stages().block(vec![map], cut.shared_bytes(), target);
    let tiles = sizes.weight_rows().div_ceil(shape.columns);
    let grid = sizes.rows.grid(u32::MAX, cut.experts * tiles);
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        let given = Given::of(k, kernel.problem());
        k.for_this_block(&kernel.grid(), |k, _| {
            let ring = Ring::carve(k, shape.stages(), 1 + WARPGROUP / WARP);
            let all = Steps { shape, scheme: sizes.scheme, ring };
            let groups = Groups::find(k, cut, given.starts, given.stored);
            let work = Work { sizes, given: &given, all, groups, tiles: tiles.into() };
            match sizes.scheme {
                Scheme::Int8 => work.write::<I32<'_>>(k),
                _ => work.write::<F32<'_>>(k),
            }
        });
        Ok(())
    });
    let sizes = of_x(&problem.problem, sizes);
    prepared(kernel.named(format!("wgmma{ROWS}x{}", shape.columns)), sizes)
}

#[derive(Clone, Copy)]
struct Work<'c, 'g> {
    sizes: Sizes,
    given: &'g Given<'c>,
    all: Steps<'c>,
    groups: Groups<'c>,
    /// Tiles of the rows of one weight.
    tiles: u64,
}

/// An item: a group of rows and a tile of its expert's weight.
struct Item<'c> {
    group: Group<'c>,
    /// First weight row, among those of the expert and among all.
    first: Index<'c>,
    first_packed: Index<'c>,
}

impl<'c> Work<'c, '_> {
    fn write<T: Sum<'c>>(self, k: &mut Builder<'c>) {
        // Tiles of one group are neighbours, so that its rows are read by blocks at the same time, and
        // so are groups of one expert, which read the same weights.
        let items = k.mul_constant(self.groups.count, self.tiles);
        k.by_role(
            MULTIPLYING,
            |k| {
                k.note("1 multiply");
                k.take_registers(REGISTERS[0]);
                self.multiply::<T>(k, items);
            },
            |k, [warp, first]| {
                k.note("copy");
                k.give_registers(REGISTERS[1]);
                let asks = k.equal(warp, first);
                self.copy(k, items, asks);
            },
        );
    }

    fn steps(&self) -> u64 {
        self.all.shape.steps(&self.sizes)
    }

    fn item(&self, k: &mut Builder<'c>, item: Index<'c>) -> Item<'c> {
        let [number, tile] = [k.div_constant(item, self.tiles), k.rem_constant(item, self.tiles)];
        let group = self.groups.at(k, number);
        let first = k.mul_constant(tile, self.all.shape.columns.into());
        let before = k.mul_constant(group.place, self.sizes.weight_rows().into());
        Item { group, first, first_packed: k.add(before, first) }
    }

    /// The part of a warpgroup that multiplies.
    fn multiply<T: Sum<'c>>(self, k: &mut Builder<'c>, items: Index<'c>) {
        let steps = self.steps();
        let warp = k.warp();
        let half = k.div_constant(warp, u64::from(WARPGROUP / WARP));
        let half = k.mul_constant(half, HALF);
        k.for_turns_of_block(items, |k, turn, item| {
            let Item { group, first, first_packed } = self.item(k, item);
            let before = k.mul_constant(turn, steps);
            let has = k.less(half, group.rows);
            k.choose(
                has,
                |k| {
                    let sums = self.all.multiply::<T>(k, (before, steps));
                    let (rows, first_row) = (group.rows, group.first);
                    let order = self.given.order;
                    let sums = &sums;
                    let tile = Tile { sums, rows, first_row, first, first_packed, order };
                    direct::finish(k, tile, &self.sizes, &self.given.arguments);
                },
                |k| {
                    let (zero, steps) = (k.index(0), k.index(steps));
                    k.for_each(zero, steps, 1, |k, step| {
                        let at = k.add(before, step);
                        self.all.ring.full(k, at);
                        self.all.ring.free(k, at);
                    });
                },
            );
        });
    }

    /// The part of the warpgroup that copies; its first warp `asks` for the weight.
    fn copy(self, k: &mut Builder<'c>, items: Index<'c>, asks: Bool<'c>) {
        let (steps, behind) = (self.steps(), self.behind());
        let map = k.tensor_map(0);
        let thread = k.thread();
        let thread = k.sub_constant(thread, MULTIPLYING.into());
        let [row, unit] = [k.div_constant(thread, UNITS), k.rem_constant(thread, UNITS)];
        let unit = k.mul_constant(unit, UNIT);
        let place = k.mul_constant(row, STEP);
        let place = k.add(place, unit);
        let place = k.at_swizzled(self.all.ring.place, place);
        let turns = k.for_turns_of_block(items, |k, turn, item| {
            let item = self.item(k, item);
            let rows = self.rows(k, &item.group, [row, unit]);
            let before = k.mul_constant(turn, steps);
            let (zero, end) = (k.index(0), k.index(steps));
            k.for_each(zero, end, 1, |k, step| {
                let at = k.add(before, step);
                let stage = self.all.ring.empty(k, at);
                k.in_one_when(asks, |k| {
                    let columns = u64::from(k.shape().tensor_maps[0].block[0]);
                    let [column, row] = [k.mul_constant(step, columns), item.first_packed];
                    let from = [column, row].map(|at| k.i32_of(at));
                    let right = k.at_bytes_constant(stage.place, self.all.shape.left_bytes());
                    k.arrive_expecting(stage.full, self.all.shape.right_bytes() as u32);
                    k.copy_box_in(right, map, from, stage.full);
                });
                let skipped = k.mul_constant(step, STEP);
                let slot = k.rem_constant(at, self.all.shape.stages);
                let slot = k.mul_constant(slot, self.all.shape.stage_bytes());
                let to = k.at_bytes(place, slot);
                self.copy_rows(k, &rows, (skipped, unit), to);
                k.commit_copies();
                let reached = k.index(behind);
                let has = k.less_equal(reached, at);
                k.when(has, |k| {
                    let at = k.sub_constant(at, behind);
                    self.give(k, at, behind);
                });
            });
        });
        let all = k.mul_constant(turns, steps);
        for left in (0..behind).rev() {
            let had = k.index(left + 1);
            let has = k.less_equal(had, all);
            k.when(has, |k| {
                let at = k.sub_constant(all, left + 1);
                self.give(k, at, left);
            });
        }
    }

    /// Steps whose copies of rows are on their way when the next one's are asked for.
    fn behind(&self) -> u64 {
        self.all.shape.stages / 2
    }

    /// Give the stage of a step to those who multiply, when all but `pending` later steps' copies of this
    /// warp have come.
    fn give(&self, k: &mut Builder<'c>, step: Index<'c>, pending: u64) {
        k.wait_for_copies(pending as u32);
        k.fence_async();
        k.warp_barrier();
        let stage = self.all.ring.stage(k, step);
        let one = k.elected();
        k.when(one, |k| k.arrive(stage.full));
    }

    /// The rows of a group of which this thread copies a unit.
    fn rows(
        &self,
        k: &mut Builder<'c>,
        group: &Group<'c>,
        [row, unit]: [Index<'c>; 2],
    ) -> Rows<'c> {
        let [row_bytes, _] = self.sizes.row_bytes();
        let last = k.sub_constant(group.rows, 1);
        let sources = (0..u64::from(ROWS) / ROWS_AT_ONCE).map(|pass| {
            let row = k.add_constant(row, pass * ROWS_AT_ONCE);
            let row = k.min(row, last);
            let row = k.add(row, group.first);
            let row = self.given.order.map_or(row, |order| order.of(k, row));
            let start = k.mul_constant(row, row_bytes);
            let start = k.add(start, unit);
            k.at_bytes(self.given.arguments.x, start)
        });
        let sources = sources.collect();
        Rows { sources, left: k.sub(group.rows, row), count: group.rows }
    }

    /// Ask for this thread's units of a step that begins `skipped` bytes into the rows, zeros for those
    /// that rows or the group lack.
    fn copy_rows(
        &self,
        k: &mut Builder<'c>,
        rows: &Rows<'c>,
        (skipped, unit): (Index<'c>, Index<'c>),
        to: Ptr<'c>,
    ) {
        let [_, multiplied] = self.sizes.row_bytes();
        let inside = (!multiplied.is_multiple_of(STEP)).then(|| {
            let first = k.add(skipped, unit);
            let end = k.index(multiplied);
            k.less(first, end)
        });
        let copy = |k: &mut Builder<'c>, pass: u64| {
            let before = k.index(pass * ROWS_AT_ONCE);
            let has = k.less(before, rows.left);
            let has = inside.map_or(has, |inside| k.and(has, inside));
            let [whole, none] = [UNIT as i32, 0].map(|bytes| k.i32(bytes));
            let bytes = k.select(has, whole, none);
            let from = k.at_bytes(rows.sources[pass as usize], skipped);
            let to = k.at_bytes_constant(to, pass * ROWS_AT_ONCE * STEP);
            k.copy_async_partial(to, from, bytes);
        };
        let passes = HALF / ROWS_AT_ONCE;
        (0..passes).for_each(|pass| copy(k, pass));
        let half = k.index(HALF);
        let more = k.less(half, rows.count);
        k.when(more, |k| (passes..2 * passes).for_each(|pass| copy(k, pass)));
    }
}

/// The rows of which a thread copies a unit.
struct Rows<'c> {
    /// The unit in the first step of each; that of the group's last row for those that it lacks.
    sources: Vec<Ptr<'c>>,
    /// Rows of the group from this thread's first one on.
    left: Index<'c>,
    count: Index<'c>,
}
