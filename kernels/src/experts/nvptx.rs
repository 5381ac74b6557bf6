//! The router's choice, the sorting by expert and the weighted sum for CUDA targets.

use sail_ir::plan::Grid;

use super::{Combine, GroupByExpert, Route};
use crate::emit::gpu::{Deal, Team, WARP};
use crate::emit::{Bf16, Builder, F32, I32, Index, Ptr};
use crate::gpu::OnGpu;
use crate::kernel::{EmitError, Kernel, Rows, ThreadBlock};
use crate::rows::{index_at, row_at};

/// Rows of one block of [`route`], a warp each.
const ROWS_PER_BLOCK: u32 = 4;

/// Warps that sort pairs by expert; each has a run of the pairs and a list of counts.
const SORTING_WARPS: u32 = 16;

/// [`Route`] for a GPU: a warp a row, its logits in registers.
#[must_use]
pub fn route(problem: &Route) -> OnGpu<Route> {
    let block = ThreadBlock::of(ROWS_PER_BLOCK * WARP);
    OnGpu::new(problem, Rows::TOKENS.grid(ROWS_PER_BLOCK, 1), block, |kernel, k| {
        let problem = kernel.problem();
        problem.check(kernel)?;
        if problem.top_k > WARP {
            return Err(EmitError::no_fit(
                kernel,
                "a token chooses more experts than a warp has threads",
            ));
        }
        let [logits, ids, weights] = k.arguments::<3>();
        let deal = Deal { team: Team::Warp, threads: ROWS_PER_BLOCK * WARP, rows: ROWS_PER_BLOCK };
        k.for_team_row(&kernel.grid(), deal, |k, row| {
            let from = row_at(k, logits, row, problem.experts);
            let lane = k.lane_id();
            let worst = k.f32(f32::NEG_INFINITY);
            let logits: Vec<_> = (0..problem.experts.div_ceil(WARP))
                .map(|turn| {
                    let expert = k.add_constant(lane, u64::from(turn * WARP));
                    let end = k.index(problem.experts.into());
                    let inside = k.less(expert, end);
                    k.choose(
                        inside,
                        |k| {
                            let place = k.at::<Bf16>(from, expert);
                            k.load_widened(place, 1)
                        },
                        |_| worst,
                    )
                })
                .collect();
            let to = choose(k, problem, logits);
            let end = k.index(problem.top_k.into());
            let inside = k.less(lane, end);
            k.when(inside, |k| {
                let first = k.mul_constant(row, problem.top_k.into());
                let at = k.add(first, lane);
                let (id, weight) = (k.at::<I32>(ids, at), k.at::<Bf16>(weights, at));
                k.store(id, to.0);
                k.store_rounded(weight, to.1);
            });
        });
        Ok(())
    })
}

/// Expert and weight of choice `lane`, where there is one; `logits[i]` of thread `t` is that of
/// expert `32·i + t`, minus infinity beyond the last.
fn choose<'c>(
    k: &mut Builder<'c>,
    problem: &Route,
    mut logits: Vec<F32<'c>>,
) -> (I32<'c>, F32<'c>) {
    let lane = k.lane_id();
    let lane = k.i32_of(lane);
    let best = greatest(k, &logits);
    let of_all = (!problem.renormalize).then(|| {
        let none = k.f32(0.0);
        let mine = logits.clone().into_iter().fold(none, |sum, logit| {
            let share = raised(k, logit, best);
            k.add(sum, share)
        });
        k.sum_of_warp(mine)
    });

    let mut chosen = (k.i32(0), k.f32(f32::NEG_INFINITY));
    for choice in 0..problem.top_k {
        let value = greatest(k, &logits);
        let last = k.i32(problem.experts as i32 - 1);
        let mut expert = last;
        for (turn, logit) in logits.iter().enumerate().rev() {
            let first = k.i32((turn as u32 * WARP) as i32);
            let here = k.add(lane, first);
            let lower = k.min(here, expert);
            let equal = k.equal(*logit, value);
            expert = k.select(equal, lower, expert);
        }
        let expert = k.join_warp(expert, Builder::min);
        for (turn, logit) in logits.iter_mut().enumerate() {
            let first = k.i32((turn as u32 * WARP) as i32);
            let here = k.add(lane, first);
            let taken = k.equal(here, expert);
            let worst = k.f32(f32::NEG_INFINITY);
            *logit = k.select(taken, worst, *logit);
        }
        let choice = k.i32(choice as i32);
        let mine = k.equal(lane, choice);
        chosen = (k.select(mine, expert, chosen.0), k.select(mine, value, chosen.1));
    }

    let share = raised(k, chosen.1, best);
    let divisor = match of_all {
        Some(all) => all,
        None => k.sum_of_warp(share),
    };
    (chosen.0, k.div(share, divisor))
}

/// `e^(value - best)`.
fn raised<'c>(k: &mut Builder<'c>, value: F32<'c>, best: F32<'c>) -> F32<'c> {
    let below = k.sub(value, best);
    k.exp(below)
}

/// Greatest of all logits of the warp; what is no number is passed over.
fn greatest<'c>(k: &mut Builder<'c>, logits: &[F32<'c>]) -> F32<'c> {
    let worst = k.f32(f32::NEG_INFINITY);
    let mine = logits.iter().fold(worst, |best, logit| k.max(*logit, best));
    k.max_of_warp(mine)
}

/// [`GroupByExpert`] for a GPU: one block whatever the rows. Every warp counts its run of the pairs;
/// sums over warps and experts say where each warp's pairs of each expert go; every warp places its
/// pairs in their order.
#[must_use]
pub fn group_by_expert(problem: &GroupByExpert) -> OnGpu<GroupByExpert> {
    let grid = Rows::TOKENS.grid(u32::MAX, 1);
    let counts = 4 * problem.experts * SORTING_WARPS;
    let block = ThreadBlock::of(SORTING_WARPS * WARP).with_shared(counts + 4 * problem.experts);
    OnGpu::new(problem, grid, block, |kernel, k| {
        let GroupByExpert { experts, top_k } = *kernel.problem();
        let [ids, order, place, starts] = k.arguments::<4>();
        let sorting = Sorting {
            experts,
            counts: k.shared(u64::from(4 * experts * SORTING_WARPS), 4),
            totals: k.shared(u64::from(4 * experts), 4),
        };
        k.for_this_block(&kernel.grid(), |k, block| {
            let pairs = k.mul_constant(block.rows, top_k.into());
            // Whole turns of a warp.
            let turn = u64::from(WARP * SORTING_WARPS);
            let run = k.add_constant(pairs, turn - 1);
            let run = k.div_constant(run, turn);
            let run = k.mul_constant(run, WARP.into());
            let warp = k.warp();
            let first = k.mul(warp, run);
            let past = k.add(first, run);
            let past = k.min(past, pairs);

            k.note("1 count the pairs of every expert, warp by warp");
            sorting.clear(k);
            k.barrier();
            let lane = k.lane_id();
            let mine = k.add(first, lane);
            k.for_each(mine, past, WARP.into(), |k, pair| {
                let expert = index_at(k, ids, pair);
                let count = sorting.count(k, warp, expert);
                let one = k.i32(1);
                k.add_atomically(count, one);
            });
            k.barrier();

            k.note("2 sums of the counts");
            sorting.sum(k, starts);

            k.note("3 place every pair at the next row of its expert");
            k.for_each(first, past, WARP.into(), |k, turn| {
                let pair = k.add(turn, lane);
                sorting.place(k, [ids, order, place], (warp, pair, past));
            });
        });
        Ok(())
    })
}

/// Counts in shared memory.
#[derive(Clone, Copy)]
struct Sorting<'c> {
    experts: u32,
    /// `[warps][experts]`: pairs of an expert in the run of a warp, then the row of the next one.
    counts: Ptr<'c>,
    /// `[experts]`: pairs of an expert.
    totals: Ptr<'c>,
}

impl<'c> Sorting<'c> {
    fn count(&self, k: &mut Builder<'c>, warp: Index<'c>, expert: Index<'c>) -> Ptr<'c> {
        let list = k.mul_constant(warp, self.experts.into());
        let at = k.add(list, expert);
        k.at::<I32>(self.counts, at)
    }

    fn clear(&self, k: &mut Builder<'c>) {
        let (thread, end) = (k.thread(), k.index(u64::from(self.experts * SORTING_WARPS)));
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
        let (zero, warps) = (k.index(0), k.index(SORTING_WARPS.into()));
        let step = u64::from(k.threads());
        let none = k.i32(0);
        k.for_each(thread, experts, step, |k, expert| {
            let all = k.fold(zero, warps, 1, none, |k, warp, sum: I32<'c>| {
                let place = self.count(k, warp, expert);
                let count = k.load::<I32>(place, 1);
                k.add(sum, count)
            });
            let place = k.at::<I32>(self.totals, expert);
            k.store(place, all);
        });
        k.barrier();
        let past = k.add_constant(experts, 1);
        k.for_each(thread, past, step, |k, expert| {
            let start = k.fold(zero, expert, 1, none, |k, before, sum: I32<'c>| {
                let place = k.at::<I32>(self.totals, before);
                let count = k.load::<I32>(place, 1);
                k.add(sum, count)
            });
            let to = k.at::<I32>(starts, expert);
            k.store(to, start);
            let has = k.less(expert, experts);
            k.when(has, |k| {
                k.fold(zero, warps, 1, start, |k, warp, next: I32<'c>| {
                    let place = self.count(k, warp, expert);
                    let count = k.load::<I32>(place, 1);
                    k.store(place, next);
                    k.add(next, count)
                });
            });
        });
        k.barrier();
    }

    /// Place the pairs of one turn of a warp; threads beyond the last pair only vote.
    fn place(
        &self,
        k: &mut Builder<'c>,
        [ids, order, place]: [Ptr<'c>; 3],
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
            let to = k.at::<I32>(place, pair);
            k.store(to, row);
            let wide = k.index_of(row);
            let to = k.at::<I32>(order, wide);
            let pair = k.i32_of(pair);
            k.store(to, pair);
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

/// [`Combine`] for a GPU: a block a token, its pairs sorted by their place in shared memory.
#[must_use]
pub fn combine(problem: &Combine) -> OnGpu<Combine> {
    let threads = Deal { team: Team::Block, ..Deal::of(u64::from(problem.width).max(513)) }.threads;
    let block = ThreadBlock::of(threads).with_shared(8 * problem.top_k);
    let grid: Grid = Rows::TOKENS.grid(1, 1);
    OnGpu::new(problem, grid, block, |kernel, k| {
        let Combine { width, top_k, residual } = *kernel.problem();
        if top_k > k.threads() {
            return Err(EmitError::no_fit(
                kernel,
                "a token chooses more experts than a block has threads",
            ));
        }
        let [out, place, weights] = [0, 1, 2].map(|at| k.argument(at));
        let residual = residual.then(|| k.argument(3));
        let y = k.argument(kernel.arguments().len() - 1);
        let [places, scales] = [0, 1].map(|_| k.shared(u64::from(4 * top_k), 4));
        k.for_this_block(&kernel.grid(), |k, block| {
            let row = block.first_row;
            k.note("1 sort: a pair goes to the index that counts the smaller places");
            let first = k.mul_constant(row, top_k.into());
            let (place, weights) = (k.at::<I32>(place, first), k.at::<Bf16>(weights, first));
            sort(k, top_k, [place, weights], [places, scales]);
            k.barrier();

            k.note("2 sum");
            let to = row_at(k, y, row, width);
            let residual = residual.map(|residual| row_at(k, residual, row, width));
            k.share_pieces(Team::Block, width.into(), |k, piece| {
                let mut sum = k.f32s(0.0, piece.width);
                for j in 0..top_k {
                    let j = k.index(j.into());
                    let from = index_at(k, places, j);
                    let from = row_at(k, out, from, width);
                    let scale = k.at::<F32>(scales, j);
                    let scale = k.load::<F32>(scale, 1);
                    let value = k.read_widened(from, piece);
                    sum = k.fma(value, scale, sum);
                }
                if let Some(residual) = residual {
                    let residual = k.read_widened(residual, piece);
                    sum = k.add(sum, residual);
                }
                k.write_rounded(to, piece, sum);
            });
        });
        Ok(())
    })
}

/// Write the places of one token in ascending order, and their weights as f32 beside them; thread
/// `j` brings pair `j` to its index.
fn sort<'c>(k: &mut Builder<'c>, top_k: u32, pairs: [Ptr<'c>; 2], sorted: [Ptr<'c>; 2]) {
    let [place, weights] = pairs;
    let [places, scales] = sorted;
    let (thread, end) = (k.thread(), k.index(top_k.into()));
    let has = k.less(thread, end);
    k.when(has, |k| {
        let mine = index_at(k, place, thread);
        let mut rank = k.index(0);
        for other in 0..top_k {
            let other = k.index(other.into());
            let other = index_at(k, place, other);
            let smaller = k.less(other, mine);
            let next = k.add_constant(rank, 1);
            rank = k.select(smaller, next, rank);
        }
        let to = k.at::<I32>(places, rank);
        let mine = k.i32_of(mine);
        k.store(to, mine);
        let weight = k.at::<Bf16>(weights, thread);
        let weight = k.load_widened(weight, 1);
        let to = k.at::<F32>(scales, rank);
        k.store(to, weight);
    });
}
