//! Grouped products by warpgroups on `sm_90`: blocks take groups of rows by tiles of their expert's weight
//! in turns. Two warpgroups multiply what the third one brings to a ring of stages.
//!
//! The weights of all experts are one matrix of a tensor map. Rows of x are not neighbours, so that no
//! map can bring them: the threads of the third warpgroup copy them unit by unit (`cp.async`), in the
//! order in which a map would swizzle them. These copies run some steps ahead of when their stage is
//! given to those who multiply.
//!
//! Of a group with at most half the rows of a tile, which is what an expert has of a prompt of some
//! hundred tokens, the other half is neither copied nor multiplied.

use super::Given;
use super::groups::{Group, Groups};
use crate::emit::gpu::{WARP, WARPGROUP};
use crate::emit::{Bool, Builder, Index, Ptr};
use crate::linear::nvptx::Sizes;
use crate::linear::nvptx::ring::{MULTIPLYING, Ring, Stage};
use crate::linear::nvptx::warpgroup::STEP;

/// Who arrives at a stage that is filled: who asks for the weight, and the warps that copy rows.
pub(super) const FILLING: u32 = 1 + WARPGROUP / WARP;

/// Bytes of one copy.
const UNIT: u64 = 16;

/// Units of a row in one step.
const UNITS: u64 = STEP / UNIT;

/// Rows that the copying threads have one unit each of.
const ROWS_AT_ONCE: u64 = WARPGROUP as u64 / UNITS;

#[derive(Clone, Copy)]
pub(super) struct Items<'c, 'g> {
    pub sizes: Sizes,
    pub given: &'g Given<'c>,
    /// A stage begins with [`STEP`] bytes of each row of x of a group.
    pub ring: Ring<'c>,
    pub groups: Groups<'c>,
    /// Weight rows of a tile.
    pub columns: u32,
    /// Registers of a thread that multiplies, and of one that copies.
    pub registers: [u32; 2],
}

/// An item: a group of rows and a tile of its expert's weight.
pub(super) struct Item<'c> {
    pub group: Group<'c>,
    /// First weight row, among those of the expert and among all.
    pub first: Index<'c>,
    pub first_packed: Index<'c>,
}

impl<'c> Items<'c, '_> {
    /// Have two warpgroups `multiply` so many items, and the third one bring in what they need; `ask` is
    /// run by one of its threads for each step, to have that of the weight rows from one on among all
    /// brought to a stage and to arrive there.
    pub fn share_out(
        self,
        k: &mut Builder<'c>,
        multiply: impl FnOnce(&mut Builder<'c>, Index<'c>),
        ask: impl FnOnce(&mut Builder<'c>, Index<'c>, Index<'c>, Stage<'c>),
    ) {
        // Tiles of one group are neighbours, so that its rows are read by blocks at the same time, and
        // so are groups of one expert, which read the same weights.
        let items = k.mul_constant(self.groups.count, self.tiles());
        k.by_role(
            MULTIPLYING,
            |k| {
                k.note("1 multiply");
                k.take_registers(self.registers[0]);
                multiply(k, items);
            },
            |k, [warp, first]| {
                k.note("copy");
                k.give_registers(self.registers[1]);
                let asks = k.equal(warp, first);
                self.copy(k, items, (asks, ask));
            },
        );
    }

    /// Steps along K.
    pub fn steps(&self) -> u64 {
        self.sizes.row_bytes()[1].div_ceil(STEP)
    }

    /// Rows that are half of a tile's.
    pub fn half(&self) -> u64 {
        u64::from(self.groups.cut.rows) / 2
    }

    /// Tiles of the rows of one weight.
    fn tiles(&self) -> u64 {
        self.sizes.weight_rows().div_ceil(self.columns).into()
    }

    pub fn item(&self, k: &mut Builder<'c>, item: Index<'c>) -> Item<'c> {
        let tiles = self.tiles();
        let [number, tile] = [k.div_constant(item, tiles), k.rem_constant(item, tiles)];
        let group = self.groups.at(k, number);
        let first = k.mul_constant(tile, self.columns.into());
        let before = k.mul_constant(group.place, self.sizes.weight_rows().into());
        Item { group, first, first_packed: k.add(before, first) }
    }

    /// The part of the warpgroup that copies; its first warp `asks` for the weight.
    fn copy(
        self,
        k: &mut Builder<'c>,
        items: Index<'c>,
        (asks, ask): (Bool<'c>, impl FnOnce(&mut Builder<'c>, Index<'c>, Index<'c>, Stage<'c>)),
    ) {
        let (steps, behind) = (self.steps(), self.behind());
        let thread = k.thread();
        let thread = k.sub_constant(thread, MULTIPLYING.into());
        let [row, unit] = [k.div_constant(thread, UNITS), k.rem_constant(thread, UNITS)];
        let unit = k.mul_constant(unit, UNIT);
        let place = k.mul_constant(row, STEP);
        let place = k.add(place, unit);
        let place = k.at_swizzled(self.ring.place, place);
        let turns = k.for_turns_of_block(items, |k, turn, item| {
            let item = self.item(k, item);
            let rows = self.rows(k, &item.group, [row, unit]);
            let before = k.mul_constant(turn, steps);
            let (zero, end) = (k.index(0), k.index(steps));
            k.for_each(zero, end, 1, |k, step| {
                let at = k.add(before, step);
                let stage = self.ring.empty(k, at);
                k.in_one_when(asks, |k| ask(k, step, item.first_packed, stage));
                let skipped = k.mul_constant(step, STEP);
                let slot = k.rem_constant(at, self.ring.stages.count);
                let slot = k.mul_constant(slot, self.ring.stages.bytes);
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
        self.ring.stages.count / 2
    }

    /// Give the stage of a step to those who multiply, when all but `pending` later steps' copies of this
    /// warp have come.
    fn give(&self, k: &mut Builder<'c>, step: Index<'c>, pending: u64) {
        k.wait_for_copies(pending as u32);
        k.fence_async();
        k.warp_barrier();
        let stage = self.ring.stage(k, step);
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
        let sources = (0..2 * self.half() / ROWS_AT_ONCE).map(|pass| {
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
        let passes = self.half() / ROWS_AT_ONCE;
        (0..passes).for_each(|pass| copy(k, pass));
        let half = k.index(self.half());
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
