//! Sorted rows in groups: rows of one expert, at most so many, that are multiplied together.
//!
//! How many groups there are is known when the kernel runs. Each block finds out by itself: a table in
//! shared memory holds the first group of every expert, in the order in which their weights stand, and
//! the expert of a group is searched there.

use crate::emit::gpu::WARP;
use crate::emit::{Builder, I32, Index, Ptr};
use crate::rows::index_at;

/// Bytes of an expert in the table: its first group, its first row, the row after its last one.
const ENTRY: u64 = 16;

/// How rows are cut into groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub experts: u32,
    /// Most rows of a group, a power of two.
    pub rows: u32,
}

/// Entries of the table: those beyond the experts have groups after all that there are.
const fn entries(experts: u32) -> u64 {
    experts.next_power_of_two() as u64
}

/// Shared memory of [`Groups::find`].
pub(super) const fn table_bytes(experts: u32) -> u64 {
    ENTRY * entries(experts) + 16
}

impl Cut {
    const fn entries(self) -> u64 {
        entries(self.experts)
    }

    /// Shared memory of [`Groups::find`].
    pub const fn shared_bytes(self) -> u64 {
        table_bytes(self.experts)
    }
}

/// The groups of a call.
#[derive(Clone, Copy)]
pub(super) struct Groups<'c> {
    pub cut: Cut,
    table: Ptr<'c>,
    pub count: Index<'c>,
}

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct Group<'c> {
    /// Where the weight of its expert stands among all.
    pub place: Index<'c>,
    /// Its first sorted row.
    pub first: Index<'c>,
    pub rows: Index<'c>,
}

impl<'c> Groups<'c> {
    /// Cut the rows that [`super::super::GroupByExpert`] sorted; `stored` as in
    /// [`super::super::GroupedProblem::placed`]. All threads of the block come here; a barrier ends it.
    pub fn find(k: &mut Builder<'c>, cut: Cut, starts: Ptr<'c>, stored: Option<Ptr<'c>>) -> Self {
        let table = k.shared(cut.shared_bytes(), 16);
        let count = k.at_bytes_constant(table, ENTRY * cut.entries());
        let (warp, zero) = (k.warp(), k.index(0));
        let first = k.equal(warp, zero);
        k.when(first, |k| fill(k, cut, (starts, stored), (table, count)));
        k.barrier();
        let count = k.load::<I32>(count, 1);
        Self { cut, table, count: k.index_of(count) }
    }

    fn entry(&self, k: &mut Builder<'c>, place: Index<'c>) -> Ptr<'c> {
        let start = k.mul_constant(place, ENTRY);
        k.at_bytes(self.table, start)
    }

    /// Where the weight of a group's expert stands: the last place whose first group is not beyond it.
    pub fn place(&self, k: &mut Builder<'c>, group: Index<'c>) -> Index<'c> {
        let group = k.i32_of(group);
        let mut place = k.index(0);
        let mut half = self.cut.entries() / 2;
        while half > 0 {
            let farther = k.add_constant(place, half);
            let entry = self.entry(k, farther);
            let first = k.load::<I32>(entry, 1);
            let reached = k.less_equal(first, group);
            place = k.select(reached, farther, place);
            half /= 2;
        }
        place
    }

    pub fn at(&self, k: &mut Builder<'c>, group: Index<'c>) -> Group<'c> {
        let place = self.place(k, group);
        let entry = self.entry(k, place);
        let entry = k.load_whole::<I32>(entry, 4);
        let [first_group, begin, end] = [0, 1, 2].map(|at| {
            let value = k.lane(entry, at);
            k.index_of(value)
        });
        let before = k.sub(group, first_group);
        let before = k.mul_constant(before, self.cut.rows.into());
        let first = k.add(begin, before);
        let left = k.sub(end, first);
        let most = k.index(self.cut.rows.into());
        Group { place, first, rows: k.min(left, most) }
    }
}

/// Fill the table, and say how many groups there are: the threads of a warp, some places each.
fn fill<'c>(
    k: &mut Builder<'c>,
    cut: Cut,
    (starts, stored): (Ptr<'c>, Option<Ptr<'c>>),
    (table, count): (Ptr<'c>, Ptr<'c>),
) {
    let warp = u64::from(WARP);
    let each = cut.entries().div_ceil(warp);
    let lane = k.lane_id();
    let mine = k.mul_constant(lane, each);
    let experts = k.index(cut.experts.into());
    let places: Vec<_> = (0..each)
        .map(|at| {
            // Without a branch, so that all that is read is asked for at once.
            let place = k.add_constant(mine, at);
            let last = k.sub_constant(experts, 1);
            let read = k.min(place, last);
            let expert = stored.map_or(read, |stored| index_at(k, stored, read));
            let next = k.add_constant(expert, 1);
            (place, [expert, next].map(|expert| index_at(k, starts, expert)))
        })
        .collect();
    let none = k.i32(0);
    let groups: Vec<I32<'c>> = places
        .iter()
        .map(|(place, [begin, end])| {
            let rows = k.sub(*end, *begin);
            let rows = k.add_constant(rows, u64::from(cut.rows) - 1);
            let groups = k.div_constant(rows, cut.rows.into());
            let groups = k.i32_of(groups);
            let has = k.less(*place, experts);
            k.select(has, groups, none)
        })
        .collect();
    let own = groups.iter().fold(none, |sum, groups| k.add(sum, *groups));
    let upto = k.sum_upto(own);
    let all = k.from_lane(upto, WARP - 1);
    let mut before = k.sub(upto, own);
    for ((place, ends), groups) in places.into_iter().zip(groups) {
        let beyond = k.i32(i32::MAX);
        let has = k.less(place, experts);
        let first = k.select(has, before, beyond);
        let [begin, end] = ends.map(|row| k.i32_of(row));
        let entry = k.vector_of(&[first, begin, end, none]);
        let start = k.mul_constant(place, ENTRY);
        let to = k.at_bytes(table, start);
        if each * warp == cut.entries() {
            k.store_whole(to, entry);
        } else {
            let entries = k.index(cut.entries());
            let has = k.less(place, entries);
            k.when(has, |k| k.store_whole(to, entry));
        }
        before = k.add(before, groups);
    }
    let zero = k.index(0);
    let first = k.equal(lane, zero);
    k.when(first, |k| k.store(count, all));
}
