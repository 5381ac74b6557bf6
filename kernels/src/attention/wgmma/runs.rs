//! The runs of a block's rows: neighbouring positions of one slot, which see the same pages.

use super::STEP;
use crate::attention::page::TokenRow;
use crate::emit::gpu::WARP;
use crate::emit::{Block, Builder, Carried, I32, Index, Ptr};

/// Bytes of a run's entry: last row, slot, position of the last row, which fills it up to whole 16.
const ENTRY: u64 = 16;

/// The list of runs in shared memory.
#[derive(Clone, Copy)]
pub(super) struct Runs<'c> {
    /// Most rows of a block.
    rows: u32,
    list: Ptr<'c>,
    /// A bit for each row: does a run end there?
    ends: Ptr<'c>,
}

/// One run, numbers of rows counted in the block.
#[derive(Clone, Copy)]
pub(super) struct Run<'c> {
    pub first: Index<'c>,
    pub last: Index<'c>,
    pub slot: Index<'c>,
    /// Position of the last row.
    pub position: Index<'c>,
}

impl<'c> Runs<'c> {
    pub fn bytes(rows: u32) -> u64 {
        ENTRY * u64::from(rows) + 16
    }

    /// For blocks of at most `rows` rows, at most 128.
    pub fn carve(k: &mut Builder<'c>, rows: u32) -> Self {
        assert!(rows <= 4 * WARP, "a word of bits for each of at most four warps");
        let list = k.shared(ENTRY * u64::from(rows), 16);
        let ends = k.shared(16, 16);
        Self { rows, list, ends }
    }

    fn words(self) -> u32 {
        self.rows.div_ceil(WARP)
    }

    /// Make the list: a thread for each row. All threads of the block come here, and meet.
    pub fn find(self, k: &mut Builder<'c>, row_list: Ptr<'c>, block: Block<'c>) {
        let (warp, lane, thread) = (k.warp(), k.lane_id(), k.thread());
        let words = k.index(self.words().into());
        let looks = k.less(warp, words);
        let last = k.sub_constant(block.rows, 1);
        let number = k.min(thread, last);
        let load = |k: &mut Builder<'c>, number| {
            let at = k.add(number, block.first_row);
            TokenRow::load(k, row_list, at)
        };
        let word = k.at::<I32>(self.ends, warp);
        let zero = k.index(0);
        let (row, (bits, ends)) = k.choose(
            looks,
            |k| {
                let row = load(k, number);
                let next = k.add_constant(number, 1);
                let next = k.min(next, last);
                let next = load(k, next);
                // The last row is compared with itself, which does not follow it.
                let goes_on = row.is_followed_by(k, next);
                let has = k.less(thread, block.rows);
                let ends = k.not(goes_on);
                let ends = k.and(ends, has);
                let bits = k.ballot(ends);
                let first = k.equal(lane, zero);
                k.when(first, |k| k.store(word, bits));
                ([row.slot, row.position], (bits, ends))
            },
            |k| ([zero; 2], (k.i32(0), k.less(zero, zero))),
        );
        k.barrier();
        k.when(looks, |k| {
            let mut before = k.i32(0);
            for other in 0..self.words() {
                let place = k.at_bytes_constant(self.ends, 4 * u64::from(other));
                let bits = k.load::<I32>(place, 1);
                let ones = k.ones(bits);
                let other = k.index(other.into());
                let earlier = k.less(other, warp);
                let none = k.i32(0);
                let ones = k.select(earlier, ones, none);
                before = k.add(before, ones);
            }
            let mask = k.lanes_before();
            let earlier = k.and(bits, mask);
            let earlier = k.ones(earlier);
            let before = k.add(before, earlier);
            k.when(ends, |k| {
                let before = k.index_of(before);
                let start = k.mul_constant(before, ENTRY);
                let entry = k.at_bytes(self.list, start);
                for (at, value) in [number, row[0], row[1], row[1]].into_iter().enumerate() {
                    let place = k.at_bytes_constant(entry, 4 * at as u64);
                    let value = k.i32_of(value);
                    k.store(place, value);
                }
            });
        });
        k.barrier();
    }

    /// `body` for each run, with values handed from one to the next.
    pub fn fold<T: Carried<'c>>(
        self,
        k: &mut Builder<'c>,
        first: T,
        body: impl FnOnce(&mut Builder<'c>, Run<'c>, T) -> T,
    ) -> T {
        let mut count = k.i32(0);
        for word in 0..self.words() {
            let place = k.at_bytes_constant(self.ends, 4 * u64::from(word));
            let bits = k.load::<I32>(place, 1);
            let ones = k.ones(bits);
            count = k.add(count, ones);
        }
        let (zero, count) = (k.index(0), k.index_of(count));
        let (_, last) = k.fold(zero, count, 1, (zero, first), |k, number, (first, carried)| {
            let start = k.mul_constant(number, ENTRY);
            let entry = k.at_bytes(self.list, start);
            let [last, slot, position] = [0, 4, 8].map(|at| {
                let place = k.at_bytes_constant(entry, at);
                let value = k.load::<I32>(place, 1);
                k.index_of(value)
            });
            let carried = body(k, Run { first, last, slot, position }, carried);
            (k.add_constant(last, 1), carried)
        });
        last
    }
}

impl<'c> Run<'c> {
    /// Steps of the pages that it sees.
    pub fn steps(self, k: &mut Builder<'c>) -> Index<'c> {
        let before = k.div_constant(self.position, STEP);
        k.add_constant(before, 1)
    }

    /// The last position that row `row` of the block sees of the run; -1 of one that is not of it.
    pub fn limit(self, k: &mut Builder<'c>, row: Index<'c>) -> Index<'c> {
        let own = self.position_of(k, row);
        let (from, to) = (k.less_equal(self.first, row), k.less_equal(row, self.last));
        let inside = k.and(from, to);
        let none = k.index(u64::MAX);
        k.select(inside, own, none)
    }

    fn position_of(self, k: &mut Builder<'c>, row: Index<'c>) -> Index<'c> {
        let before = k.sub(self.last, row);
        k.sub(self.position, before)
    }

    /// Steps that rows from `row` on see the whole of: none where a row of the block's `rows` is not
    /// of the run.
    pub fn whole_steps(self, k: &mut Builder<'c>, row: Index<'c>, rows: Index<'c>) -> Index<'c> {
        let (zero, last) = (k.index(0), k.sub_constant(rows, 1));
        let (from, to) = (k.equal(self.first, zero), k.equal(self.last, last));
        let all = k.and(from, to);
        let position = self.position_of(k, row);
        let sees = k.add_constant(position, 1);
        let whole = k.div_constant(sees, STEP);
        k.select(all, whole, zero)
    }
}
