//! Pairs sorted by expert, by the threads of one block of a GPU.

use super::GroupByExpert;
use crate::emit::gpu::WARP;
use crate::emit::{Builder, I32, Index, Ptr};
use crate::gpu::OnGpu;
use crate::kernel::{Kernel, Rows, ThreadBlock};
use crate::rows::index_at;

/// Warps of [`group_by_expert`].
const WARPS: u32 = 16;

/// [`GroupByExpert`] for a GPU: one block whatever the rows.
#[must_use]
pub fn group_by_expert(problem: &GroupByExpert) -> OnGpu<GroupByExpert> {
    let grid = Rows::TOKENS.grid(u32::MAX, 1);
    let shared = Sorting::shared_bytes(problem.experts, WARPS);
    let block = ThreadBlock::of(WARPS * WARP).with_shared(shared);
    OnGpu::new(problem, grid, block, |kernel, k| {
        let GroupByExpert { experts, top_k } = *kernel.problem();
        let [ids, order, place, starts] = k.arguments::<4>();
        let sorting = Sorting::carve(k, experts);
        k.for_this_block(&kernel.grid(), |k, block| {
            let pairs = k.mul_constant(block.rows, top_k.into());
            sorting.sort(k, (ids, pairs), Lists { order, place, starts });
        });
        Ok(())
    })
}

/// What sorting writes; see [`GroupByExpert`].
#[derive(Clone, Copy)]
pub(super) struct Lists<'c> {
    pub order: Ptr<'c>,
    pub place: Ptr<'c>,
    pub starts: Ptr<'c>,
}

/// A counting sort of any number of pairs. Every warp counts its run of them; sums over warps and experts
/// say where each warp's pairs of each expert go; every warp places its pairs in their order.
#[derive(Clone, Copy)]
pub(super) struct Sorting<'c> {
    experts: u32,
    warps: u32,
    /// `[warps][experts]`: pairs of an expert in the run of a warp, then the row of the next one.
    counts: Ptr<'c>,
    /// `[experts]`: pairs of an expert, then those of all before it.
    totals: Ptr<'c>,
}

impl<'c> Sorting<'c> {
    /// Shared memory of [`Sorting::carve`] in a block of `warps`.
    pub const fn shared_bytes(experts: u32, warps: u32) -> u32 {
        4 * experts * (warps + 1)
    }

    pub fn carve(k: &mut Builder<'c>, experts: u32) -> Self {
        let warps = k.threads() / WARP;
        let counts = k.shared(u64::from(4 * experts * warps), 4);
        Self { experts, warps, counts, totals: k.shared(u64::from(4 * experts), 4) }
    }

    /// Sort the first `pairs` of `ids`. All threads of the block come here.
    pub fn sort(&self, k: &mut Builder<'c>, (ids, pairs): (Ptr<'c>, Index<'c>), lists: Lists<'c>) {
        // Whole turns of a warp.
        let turn = u64::from(WARP * self.warps);
        let run = k.add_constant(pairs, turn - 1);
        let run = k.div_constant(run, turn);
        let run = k.mul_constant(run, WARP.into());
        let warp = k.warp();
        let first = k.mul(warp, run);
        let past = k.add(first, run);
        let past = k.min(past, pairs);

        k.note("sort 1: count the pairs of every expert, warp by warp");
        self.clear(k);
        k.barrier();
        let lane = k.lane_id();
        let mine = k.add(first, lane);
        k.for_each(mine, past, WARP.into(), |k, pair| {
            let expert = index_at(k, ids, pair);
            let count = self.count(k, warp, expert);
            let one = k.i32(1);
            k.add_atomically(count, one);
        });
        k.barrier();

        k.note("sort 2: sums of the counts");
        self.sum(k, lists.starts);

        k.note("sort 3: place every pair at the next row of its expert");
        k.for_each(first, past, WARP.into(), |k, turn| {
            let pair = k.add(turn, lane);
            self.place(k, (ids, lists), (warp, pair, past));
        });
    }

    fn count(&self, k: &mut Builder<'c>, warp: Index<'c>, expert: Index<'c>) -> Ptr<'c> {
        let list = k.mul_constant(warp, self.experts.into());
        let at = k.add(list, expert);
        k.at::<I32>(self.counts, at)
    }

    fn clear(&self, k: &mut Builder<'c>) {
        let (thread, end) = (k.thread(), k.index(u64::from(self.experts * self.warps)));
        let step = u64::from(k.threads());
        k.for_each(thread, end, step, |k, at| {
            let place = k.at::<I32>(self.counts, at);
            let none = k.i32(0);
            k.store(place, none);
        });
    }

    /// From counts to first rows, and `starts`.
    fn sum(&self, k: &mut Builder<'c>, starts: Ptr<'c>) {
        let (thread, experts) = (k.thread(), k.index(self.experts.into()));
        let step = u64::from(k.threads());
        let of_warps = |k: &mut Builder<'c>, expert: Index<'c>| -> Vec<_> {
            let first = k.at::<I32>(self.counts, expert);
            let lists = (0..self.warps).map(|warp| {
                let list = k.at_bytes_constant(first, u64::from(4 * warp * self.experts));
                (list, k.load::<I32>(list, 1))
            });
            lists.collect()
        };
        k.for_each(thread, experts, step, |k, expert| {
            let none = k.i32(0);
            let counts = of_warps(k, expert);
            let all = counts.into_iter().fold(none, |sum, (_, count)| k.add(sum, count));
            let place = k.at::<I32>(self.totals, expert);
            k.store(place, all);
        });
        // What there is of a warp's threads alone needs no other warp.
        let several = self.experts > WARP;
        if several {
            k.barrier();
        }
        let (warp, zero) = (k.warp(), k.index(0));
        let first = k.equal(warp, zero);
        k.when(first, |k| self.sum_totals(k, starts));
        if several {
            k.barrier();
        }
        k.for_each(thread, experts, step, |k, expert| {
            let place = k.at::<I32>(self.totals, expert);
            let start = k.load::<I32>(place, 1);
            let to = k.at::<I32>(starts, expert);
            k.store(to, start);
            let counts = of_warps(k, expert);
            counts.into_iter().fold(start, |next, (place, count)| {
                k.store(place, next);
                k.add(next, count)
            });
        });
        k.barrier();
    }

    /// Each total becomes the sum of those before it; the sum of all is the last start. A warp comes here.
    fn sum_totals(&self, k: &mut Builder<'c>, starts: Ptr<'c>) {
        let (lane, zero) = (k.lane_id(), k.index(0));
        let (experts, none) = (k.index(self.experts.into()), k.i32(0));
        let all = k.fold(zero, experts, WARP.into(), none, |k, turn, before: I32<'c>| {
            let expert = k.add(turn, lane);
            let exists = k.less(expert, experts);
            let place = k.at::<I32>(self.totals, expert);
            let count = k.choose(exists, |k| k.load::<I32>(place, 1), |_| none);
            let upto = k.sum_upto(count);
            let own = k.sub(upto, count);
            let start = k.add(before, own);
            k.when(exists, |k| k.store(place, start));
            let turn = k.from_lane(upto, WARP - 1);
            k.add(before, turn)
        });
        let first = k.equal(lane, zero);
        k.when(first, |k| {
            let to = k.at::<I32>(starts, experts);
            k.store(to, all);
        });
    }

    /// Place the pairs of one turn of a warp; threads beyond the last pair only vote.
    fn place(
        &self,
        k: &mut Builder<'c>,
        (ids, lists): (Ptr<'c>, Lists<'c>),
        (warp, pair, past): (Index<'c>, Index<'c>, Index<'c>),
    ) {
        let inside = k.less(pair, past);
        let nobody = k.index(self.experts.into());
        let expert = k.choose(inside, |k| index_at(k, ids, pair), |_| nobody);
        let same = self.same_expert(k, expert);
        let before = k.lanes_before();
        let before = k.and(same, before);
        let rank = k.ones(before);
        let next = self.count(k, warp, expert);
        let start = k.choose(inside, |k| k.load::<I32>(next, 1), |k| k.i32(0));
        k.warp_barrier();
        let row = k.add(start, rank);
        let all = k.ones(same);
        k.when(inside, |k| {
            lists.put(k, pair, row);
            // The last thread of an expert moves the expert on.
            let one = k.i32(1);
            let reached = k.add(rank, one);
            let is_last = k.equal(reached, all);
            k.when(is_last, |k| {
                let after = k.add(start, all);
                k.store(next, after);
            });
        });
        k.warp_barrier();
    }

    /// The threads of the warp that have the expert of this one: those that agree in every bit.
    fn same_expert(&self, k: &mut Builder<'c>, expert: Index<'c>) -> I32<'c> {
        let expert = k.i32_of(expert);
        let bits = u32::BITS - self.experts.leading_zeros();
        let mut same = k.i32(-1);
        for bit in 0..bits {
            let mask = k.i32(1 << bit);
            let here = k.and(expert, mask);
            let set = k.equal(here, mask);
            let votes = k.ballot(set);
            let all = k.i32(-1);
            let others = k.xor(votes, all);
            let agree = k.select(set, votes, others);
            same = k.and(same, agree);
        }
        same
    }
}

impl<'c> Lists<'c> {
    /// Pair number `pair` is sorted row `row`.
    fn put(self, k: &mut Builder<'c>, pair: Index<'c>, row: I32<'c>) {
        let to = k.at::<I32>(self.place, pair);
        k.store(to, row);
        let row = k.index_of(row);
        let to = k.at::<I32>(self.order, row);
        let pair = k.i32_of(pair);
        k.store(to, pair);
    }
}

/// Few pairs as words in shared memory, expert above number: a pair's row is how many words are less.
#[derive(Clone, Copy)]
pub(super) struct Ranking<'c> {
    experts: u32,
    /// Most pairs, whole fours.
    most: u32,
    words: Ptr<'c>,
}

impl<'c> Ranking<'c> {
    const FOUR: u32 = 4;

    /// Shared memory of [`Ranking::carve`].
    pub const fn shared_bytes(most: u32) -> u32 {
        4 * most.next_multiple_of(Self::FOUR)
    }

    pub fn carve(k: &mut Builder<'c>, experts: u32, most: u32) -> Self {
        let most = most.next_multiple_of(Self::FOUR);
        Self { experts, most, words: k.shared(u64::from(4 * most), 16) }
    }

    /// Every word greater than any pair's. A barrier must follow.
    pub fn clear(&self, k: &mut Builder<'c>) {
        let (thread, end) = (k.thread(), k.index(self.most.into()));
        let step = u64::from(k.threads());
        k.for_each(thread, end, step, |k, at| {
            let place = k.at::<I32>(self.words, at);
            let beyond = k.i32(i32::MAX);
            k.store(place, beyond);
        });
    }

    /// Pair number `pair` goes to `expert`. A barrier must follow.
    pub fn put(&self, k: &mut Builder<'c>, pair: Index<'c>, expert: I32<'c>) {
        let place = k.at::<I32>(self.words, pair);
        let (number, expert) = (k.i32_of(pair), k.shift_left(expert, 16));
        let word = k.or(expert, number);
        k.store(place, word);
    }

    /// Sort `pairs` pairs. All threads of the block come here.
    pub fn sort(&self, k: &mut Builder<'c>, pairs: Index<'c>, lists: Lists<'c>) {
        let (thread, threads) = (k.thread(), u64::from(k.threads()));
        let end = k.add_constant(pairs, u64::from(self.experts) + 1);
        k.for_each(thread, end, threads, |k, at| {
            let is_pair = k.less(at, pairs);
            let expert = k.sub(at, pairs);
            let word = k.choose(
                is_pair,
                |k| {
                    let place = k.at::<I32>(self.words, at);
                    k.load::<I32>(place, 1)
                },
                |k| {
                    let expert = k.i32_of(expert);
                    k.shift_left(expert, 16)
                },
            );
            let (zero, none) = (k.index(0), k.i32(0));
            let before = k.fold(zero, pairs, Self::FOUR.into(), none, |k, at, before: I32<'c>| {
                let place = k.at::<I32>(self.words, at);
                let words = k.load_whole::<I32>(place, Self::FOUR);
                let words = k.lanes_of(words);
                words.into_iter().fold(before, |before, other| {
                    let one = k.i32(1);
                    let next = k.add(before, one);
                    let less = k.less(other, word);
                    k.select(less, next, before)
                })
            });
            k.choose(
                is_pair,
                |k| lists.put(k, at, before),
                |k| {
                    let to = k.at::<I32>(lists.starts, expert);
                    k.store(to, before);
                },
            );
        });
    }
}
