//! The choice of experts by given logits, and the weighted sum, for CUDA targets.

use sail_ir::plan::Grid;

use super::choice::{check, choose};
use super::{Combine, Route};
use crate::emit::gpu::{Deal, Team, WARP};
use crate::emit::{Bf16, Builder, F32, I32, Ptr};
use crate::gpu::OnGpu;
use crate::kernel::{EmitError, Kernel, Rows, ThreadBlock};
use crate::rows::{index_at, row_at};

/// Rows of one block of [`route`], a warp each.
const ROWS_PER_BLOCK: u32 = 4;

/// [`Route`] for a GPU: a warp a row, its logits in registers.
#[must_use]
pub fn route(problem: &Route) -> OnGpu<Route> {
    let block = ThreadBlock::of(ROWS_PER_BLOCK * WARP);
    OnGpu::new(problem, Rows::TOKENS.grid(ROWS_PER_BLOCK, 1), block, |kernel, k| {
        let problem = kernel.problem();
        check(problem, kernel)?;
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
                    let logit = k.choose(
                        inside,
                        |k| {
                            let place = k.at::<Bf16>(from, expert);
                            k.load_widened(place, 1)
                        },
                        |_| worst,
                    );
                    (logit, k.i32_of(expert))
                })
                .collect();
            let to = choose(k, problem, &logits);
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
