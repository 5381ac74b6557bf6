//! `norm_linear_route_group` for CUDA targets: all of a router, from the rows before the norm to the pairs
//! sorted by expert, in one kernel.
//!
//! Single kernels would be four, each of a microsecond's work and four of beginning and end. Here the blocks
//! of some rows each norm these, multiply them by their share of the router's weight and write logits; the
//! last of them to come chooses the rows' experts, a warp a row, and the last to do that sorts all pairs.
//! Few rows have one such last block, which has their pairs in shared memory.
//!
//! One token of a model with 128 experts of 2048: eight blocks of 8 warps have 64 KiB of weights each on
//! their way before the rows are there; then come, one after the other, a row read (0.7 µs), its sum, the
//! product (0.5), logits written and counted (1), read (0.7), eight choices (0.3), eight pairs ranked (0.2).

use sail_ir::plan::{Cost, Grid};
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::sorting::{Lists, Ranking, Sorting};
use super::{Route, choice};
use crate::emit::gpu::{Cache, WARP};
use crate::emit::{Bf16, Block, Builder, F32, I32, Index, Ptr};
use crate::gpu_model::router::router;
use crate::kernel::{EmitError, Kernel, Rows, Scratch, ThreadBlock};
use crate::linear::nvptx::few::{Few, ROWS, Rows as BlockRows};
use crate::linear::nvptx::finish::{Finish, Pointers};
use crate::linear::nvptx::input::Share;
use crate::linear::nvptx::turn::{self, Work};
use crate::linear::nvptx::{Arguments, Sizes};
use crate::linear::{Epilogue, Prologue};
use crate::packing::rows::RUN;

/// Experts whose logits a thread reads at once.
const AT_ONCE: u32 = 4;

/// `normed = rms_norm(x, norm)`, [`Route`] of the logits `normed · weightᵀ`, and
/// [`super::GroupByExpert`] of the ids: `x` and `normed` `[t, width]`, `weight [experts, width]` in bf16
/// rows. Logits are rounded as those of `linear`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterProblem {
    pub route: Route,
    pub width: u32,
    pub eps: f64,
}

/// [`RouterProblem`] with its shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Router {
    problem: RouterProblem,
    shape: Few,
}

impl Router {
    /// For calls of at most `most_rows` rows; `None` on x86-64, where [`super::LinearRoute`] is the router.
    #[must_use]
    pub fn new(problem: RouterProblem, target: &Target, most_rows: u32) -> Option<Self> {
        let beside = |rows| beside(&problem.route, rows);
        let shape = router(&sizes(&problem), most_rows, beside, target)?;
        Some(Self { problem, shape })
    }

    /// Are all rows of a call one block's?
    fn is_for_few(&self) -> bool {
        self.shape.rows() == ROWS
    }
}

/// Of its product: logits of the padding are computed, too, so that rows of logits begin at whole words.
fn sizes(problem: &RouterProblem) -> Sizes {
    let RouterProblem { width, eps, ref route } = *problem;
    Sizes {
        rows: Rows::TOKENS,
        n: route.experts.next_multiple_of(RUN),
        k: width,
        scheme: Scheme::Bf16,
        prologue: Prologue::RmsNorm { eps },
        finish: Finish::Each(Epilogue::NONE),
        weights: 1,
    }
}

/// Shared memory besides the product's, of blocks with so many rows and warps: what sorting needs, and a
/// flag.
fn beside(route: &Route, rows: u32) -> u32 {
    const FLAG: u32 = 16;
    let sorting = if rows == ROWS {
        Ranking::shared_bytes(rows * route.top_k)
    } else {
        Sorting::shared_bytes(route.experts, rows)
    };
    FLAG + sorting
}

impl Kernel for Router {
    fn family(&self) -> &'static str {
        "norm_linear_route_group"
    }

    fn symbol(&self) -> String {
        let RouterProblem { width, eps, ref route } = self.problem;
        let (blocks, route) = (self.shape.blocks, route.symbol());
        let rows = if self.is_for_few() { "few" } else { "many" };
        format!("norm_linear_{route}.w{width}.eps{eps:e}.group.b{blocks}.{rows}")
    }

    fn arguments(&self) -> &'static [&'static str] {
        &[
            "x", "norm", "weight", "ids", "weights", "order", "place", "starts", "normed",
            "logits", "counters",
        ]
    }

    fn writes(&self) -> &'static [u32] {
        &[3, 4, 5, 6, 7, 8, 9, 10]
    }

    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(self.shape.rows(), self.shape.blocks)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn scratch(&self) -> Option<Scratch> {
        // One for the blocks of some rows, and one for those that chose.
        let row_counters = if self.is_for_few() { 1 } else { 2 };
        Some(Scratch { row_bytes: 2 * u64::from(sizes(&self.problem).n), row_counters })
    }

    fn cost(&self) -> Cost {
        let RouterProblem { width, ref route, .. } = self.problem;
        let (width, experts) = (u64::from(width), u64::from(route.experts));
        let sizes = sizes(&self.problem);
        let weight = u64::from(sizes.weight_rows()) * sizes.pitch();
        Cost {
            weight_bytes: weight + 2 * width + 4 * experts,
            row_bytes: 4 * width + 14 * u64::from(route.top_k),
            row_operations: route.cost().row_operations + 2 * experts * width,
            ..Cost::default()
        }
    }

    fn thread_block(&self) -> Option<ThreadBlock> {
        let own = beside(&self.problem.route, self.shape.rows());
        let shared_bytes = self.shape.shared_bytes(&sizes(&self.problem)) + own;
        let block = ThreadBlock::of(self.shape.threads()).with_shared(shared_bytes);
        Some(ThreadBlock { waits_itself: true, ..block })
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        choice::check(&self.problem.route, self)?;
        self.write(k);
        Ok(())
    }
}

/// What chooses and sorts in the last blocks.
struct Last<'c, 'r> {
    router: &'r Router,
    logits: Ptr<'c>,
    chosen: [Ptr<'c>; 2],
    lists: Lists<'c>,
}

impl Router {
    fn write<'c>(&self, k: &mut Builder<'c>) {
        let [x, norm, weight, ids, weights, order, place, starts, normed, logits, counters] =
            k.arguments::<11>();
        let (few, sizes, route) = (self.shape, sizes(&self.problem), &self.problem.route);
        let finish = Pointers { bias: None, residual: None, y: logits };
        let arguments = Arguments { x, norm: Some(norm), weight, finish };
        let lists = Lists { order, place, starts };
        let last = Last { router: self, logits, chosen: [ids, weights], lists };
        let grid = self.grid();
        k.let_successor_start();
        k.for_this_block(&grid, |k, block| {
            let work = turn::write::<F32<'_>>(k, few, sizes, &arguments, block);
            let flag = k.shared(16, 16);
            let rows = BlockRows { x, first: block.first_row, count: block.rows, order: None };
            let share = Share { share: block.first_column, of: few.blocks };
            let meeting = Meeting { blocks: few.blocks, counters, flag };
            let norms = |k: &mut Builder<'c>| {
                k.note("6 norm: a share of what the experts read, while the blocks are counted");
                work.store_normed(k, (rows, normed), norm, share);
            };
            if self.is_for_few() {
                let ranking = Ranking::carve(k, route.experts, ROWS * route.top_k);
                let meanwhile = |k: &mut Builder<'c>| {
                    ranking.clear(k);
                    norms(k);
                };
                let first = k.index(0);
                meeting.then(k, &work, first, meanwhile, |k| last.of_few(k, ranking, block));
                return;
            }
            let sorting = Sorting::carve(k, route.experts);
            let counter = k.mul_constant(block.first_row, 2);
            meeting.then(k, &work, counter, norms, |k| {
                last.choose(k, block, |_, _, _| ());
                k.barrier();
                let all = k.rows(&grid);
                let before = k.sub_constant(all, 1);
                let others = k.div_constant(before, few.rows().into());
                let counter = k.at_bytes_constant(counters, 4);
                let sorts = k.comes_last(counter, others, flag, |_| ());
                let pairs = k.mul_constant(all, route.top_k.into());
                k.when(sorts, |k| sorting.sort(k, (ids, pairs), lists));
            });
        });
        // Blocks past the counts, too: who comes after this kernel trusts that all before it has ended.
        k.wait_for_predecessor();
    }
}

/// Where the blocks of some rows meet.
#[derive(Clone, Copy)]
struct Meeting<'c> {
    blocks: u32,
    counters: Ptr<'c>,
    flag: Ptr<'c>,
}

impl<'c> Meeting<'c> {
    /// After `meanwhile`, the last block does `last`. All threads of the block come here after `work`.
    fn then(
        self,
        k: &mut Builder<'c>,
        work: &Work<'c>,
        counter: Index<'c>,
        meanwhile: impl FnOnce(&mut Builder<'c>),
        last: impl FnOnce(&mut Builder<'c>),
    ) {
        let together = |k: &mut Builder<'c>| {
            if !work.ends_together() {
                k.barrier();
            }
        };
        if self.blocks == 1 {
            meanwhile(k);
            together(k);
            last(k);
            return;
        }
        together(k);
        let counter = k.at::<I32>(self.counters, counter);
        let others = k.index(u64::from(self.blocks) - 1);
        let is_last = k.comes_last(counter, others, self.flag, meanwhile);
        k.when(is_last, last);
    }
}

impl<'c> Last<'c, '_> {
    /// The experts of all rows of a call, and their pairs sorted.
    fn of_few(&self, k: &mut Builder<'c>, ranking: Ranking<'c>, block: Block<'c>) {
        self.choose(k, block, |k, pair, expert| ranking.put(k, pair, expert));
        k.barrier();
        k.note("8 sort");
        let pairs = k.mul_constant(block.rows, self.router.problem.route.top_k.into());
        ranking.sort(k, pairs, self.lists);
    }

    /// The experts of a block's rows, a warp each; `also` is told of every pair.
    fn choose(
        &self,
        k: &mut Builder<'c>,
        block: Block<'c>,
        also: impl FnOnce(&mut Builder<'c>, Index<'c>, I32<'c>),
    ) {
        k.note("7 choose");
        let route = &self.router.problem.route;
        let (warp, lane) = (k.warp(), k.lane_id());
        let has = k.less(warp, block.rows);
        k.when(has, |k| {
            let row = k.add(block.first_row, warp);
            let logits = self.logits(k, row);
            let (expert, weight) = choice::choose(k, route, &logits);
            let end = k.index(route.top_k.into());
            let chooses = k.less(lane, end);
            k.when(chooses, |k| {
                let first = k.mul_constant(row, route.top_k.into());
                let pair = k.add(first, lane);
                let [ids, weights] = self.chosen;
                let (id, share) = (k.at::<I32>(ids, pair), k.at::<Bf16>(weights, pair));
                k.store(id, expert);
                k.store_rounded(share, weight);
                also(k, pair, expert);
            });
        });
    }

    /// The logits of a row that are this thread's, and whose they are: beyond the last expert where there
    /// are none.
    fn logits(&self, k: &mut Builder<'c>, row: Index<'c>) -> Vec<(F32<'c>, I32<'c>)> {
        let padded = sizes(&self.router.problem).n;
        let start = k.mul_constant(row, padded.into());
        let from = k.at::<Bf16>(self.logits, start);
        let lane = k.lane_id();
        let (pieces, warp) = (padded / AT_ONCE, WARP);
        let mut logits = Vec::new();
        for turn in 0..pieces.div_ceil(warp) {
            let piece = k.add_constant(lane, u64::from(turn * warp));
            let first = k.mul_constant(piece, AT_ONCE.into());
            let place = k.at::<Bf16>(from, first);
            // Written by other blocks.
            let load = |k: &mut Builder<'c>| k.load_words(place, AT_ONCE / 2, Cache::Shared);
            let pairs = if (turn + 1) * warp <= pieces {
                load(k)
            } else {
                let end = k.index(pieces.into());
                let inside = k.less(piece, end);
                k.choose(inside, load, |k| k.i32s(0, AT_ONCE / 2))
            };
            for (at, pair) in (0..).zip(k.lanes_of(pairs)) {
                for (half, logit) in
                    [k.low_of_pairs(pair), k.high_of_pairs(pair)].into_iter().enumerate()
                {
                    let expert = k.add_constant(first, 2 * at + half as u64);
                    logits.push((logit, k.i32_of(expert)));
                }
            }
        }
        logits
    }
}
