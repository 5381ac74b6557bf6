//! Attention of few rows for CUDA targets (decode): the positions of a row and kv head are dealt to the
//! warps of several blocks, and the last block to end joins what all of them saw.
//!
//! A run is 16 positions. Run `n` of a row is that of warp `n % (blocks · warps)`, so that the first runs
//! go to the first block and a short row has few blocks with work; the others leave. Everything
//! about a row follows from its own position: what it gives is the same bytes whoever ends last.
//!
//! Counted for one row of SAIL-VL2-2B (8 kv heads of 128, two query heads each) at position 2047 on 132
//! processors: 16 blocks for each head, 128 in all, of 8 warps with a run each. 8.4 MB of keys and values
//! (4.3 MB of bytes), 64 KB on their way in each processor at once: 1.8 us at 4.8 TB/s. A block has 74 KB
//! of shared memory and 256 threads of at most 128 registers, so that two share a processor where there
//! are more rows or positions. A run is 32 matrix instructions; of bytes, a thread unpacks 128 values,
//! 2 instructions each. Parts are 17 KB for each head; its last block reads them from the second cache,
//! all at once.
//!
//! Expected there, as nobody has measured it yet: on `sm_90` the runs but a head's last are asked for
//! while the kernels ahead still run, and so are counts, position and pages, four loads one after the
//! other, 2 us; after them the queries, 0.8 us, the arithmetic of a run and the join of the warps, 0.7 us,
//! parts written and counted, 1.2 us, read and joined, 1 us. That is 4 us behind the kernel ahead where
//! the bytes have come by then, below 6 us where they begin to come only then.

use super::Attention;
use super::flash::{Flash, PAGE, State, VECTORS};
use super::flash_join::{Parts, Published};
use super::flash_run::{Place, Runs, Seen};
use super::nvptx::{PlainPage, PlainPool};
use super::page::{PageLayout, TokenRow};
use crate::config::Config;
use crate::emit::gpu::{Cache, WARP};
use crate::emit::{Bf16, Builder, Index, Ptr};
use crate::gpu::OnGpu;
use crate::gpu_model::Alone;
use crate::gpu_model::attention::Sizes;
use crate::kernel::{Kernel, Scratch, ThreadBlock};
use sail_ir::plan::{Count, Grid};
use sail_ir::scheme::CacheScheme;
use sail_ir::target::Target;

/// Positions of a run.
const RUN: u64 = 16;

/// Shared memory that a block may have on both targets, but for some bytes.
const MOST_SHARED: u64 = 160 << 10;

/// How the positions of a row and kv head are shared out: [`Alone`] chooses.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// Blocks of a row and kv head.
    pub blocks: u32,
    /// Warps of a block.
    pub warps: u32,
}

impl Shares {
    fn of(config: &Config) -> Self {
        Self { blocks: config.get("blocks"), warps: config.get("warps") }
    }

    /// Warps whose runs fit the shared memory of a block.
    fn most_warps(runs: Runs) -> u32 {
        let left = MOST_SHARED.saturating_sub(queries_bytes(runs.flash));
        u32::try_from(left / runs.bytes()).unwrap_or(8)
    }

    /// Warps of a row and kv head.
    fn step(self) -> u64 {
        u64::from(self.blocks * self.warps)
    }
}

/// Rows by themselves, a run of blocks for each row and kv head; for calls of at most `most_rows`.
pub fn alone(problem: &Attention, target: &Target, most_rows: u32) -> Option<OnGpu<Attention>> {
    let Attention { heads, kv_heads, layout, .. } = *problem;
    let PageLayout { head_dim, .. } = layout;
    let flash = Flash { head_dim, positions: RUN };
    let runs = Runs { flash, page: PlainPage::of(layout) };
    let sizes = Sizes { heads, kv_heads, head_dim, value_bytes: problem.value_bytes() };
    let way = Alone::of((sizes, most_rows), (RUN, VECTORS, Shares::most_warps(runs)), target)?;
    let problem = problem.clone();
    Some(OnGpu::by(way, move |_, config| shared_out(&problem, runs, Shares::of(config))))
}

fn shared_out(problem: &Attention, runs: Runs, shares: Shares) -> OnGpu<Attention> {
    let Attention { heads, kv_heads, .. } = *problem;
    let flash = runs.flash;
    let parts = Parts { warps: shares.warps, vectors: heads / kv_heads, flash };
    let shared = queries_bytes(flash) + places_bytes(runs, parts) + Published::SHARED_BYTES;
    let columns = kv_heads * shares.blocks;
    let grid = crate::kernel::Rows::TOKENS.grid(1, columns);
    let block = ThreadBlock {
        waits_itself: true,
        blocks_per_processor: if flash.padded() <= 128 { 2 } else { 1 },
        ..ThreadBlock::of(shares.warps * WARP).with_shared(shared as u32)
    };
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        k.let_successor_start();
        write(k, (kernel.problem(), &kernel.grid()), runs, (shares, parts));
        // Blocks without work, too: who comes after this kernel trusts that all before it has ended.
        k.wait_for_predecessor();
        Ok(())
    });
    let Shares { blocks, warps } = shares;
    let scratch =
        Scratch { row_bytes: u64::from(columns) * parts.published_bytes(), row_counters: kv_heads };
    let arguments = &["q", "cache", "rows", "page_table", "y", "parts", "counters"];
    let kernel = kernel.named(format!("alone{blocks}x{warps}"));
    kernel.working_in(scratch, arguments, &[4, 5, 6])
}

fn queries_bytes(flash: Flash) -> u64 {
    (u64::from(VECTORS) * flash.row_bytes()).next_multiple_of(128)
}

/// Shared memory of the runs of all warps, and then of what they saw.
fn places_bytes(runs: Runs, parts: Parts) -> u64 {
    (u64::from(parts.warps) * runs.bytes()).max(parts.bytes()).next_multiple_of(128)
}

/// A block of a row and kv head.
fn write<'c>(
    k: &mut Builder<'c>,
    (problem, grid): (&Attention, &Grid),
    runs: Runs,
    (shares, parts): (Shares, Parts),
) {
    let [q, cache, row_list, page_table, y, published, counters] = k.arguments::<7>();
    let Attention { heads, kv_heads, layout, .. } = *problem;
    let Runs { flash, page } = runs;
    let pool = PlainPool { page, kv_heads, page_table, cache };
    let group = heads / kv_heads;
    let queries = k.shared(queries_bytes(flash), 128);
    let places = k.shared(places_bytes(runs, parts), 128);
    let flag = k.shared(Published::SHARED_BYTES, 128);
    k.for_this_block(grid, |k, block| {
        k.note("1 what this warp sees of its row: nothing of that is written by a kernel");
        let share = k.div_constant(block.first_column, kv_heads.into());
        let head = k.rem_constant(block.first_column, kv_heads.into());
        let row = TokenRow::load(k, row_list, block.first_row);
        let last = k.div_constant(row.position, RUN);
        let used = k.div_constant(last, shares.warps.into());
        let has = k.less_equal(share, used);
        let used = k.add_constant(used, 1);
        let all = k.index(shares.blocks.into());
        let used = k.min(used, all);
        k.when(has, |k| {
            let warp = k.warp();
            let first = k.mul_constant(share, shares.warps.into());
            let first = k.add(first, warp);
            let start = k.mul_constant(warp, runs.bytes());
            let place = Place { runs, start: k.at_bytes(places, start) };
            let walk = Walk { pool, row, head, last, place, step: shares.step() };

            k.note("2 the first run, if no row of this call is in it: earlier calls have ended");
            let page = walk.page(k, first);
            let end = k.mul_constant(first, RUN);
            let end = k.add_constant(end, RUN);
            let least = least_position(k, row_list, row);
            let is_old = k.less_equal(end, least);
            k.when(is_old, |k| walk.ask_both(k, first, page));
            k.wait_for_predecessor();
            let is_new = k.not(is_old);
            k.when(is_new, |k| walk.ask_both(k, first, page));

            k.note("3 queries");
            let vector = |k: &mut Builder<'c>, base, member| {
                let at = k.mul_constant(row.at, heads.into());
                let of_head = k.mul_constant(head, group.into());
                let at = k.add(at, of_head);
                let at = k.add(at, member);
                let at = k.mul_constant(at, layout.head_dim.into());
                k.at::<Bf16>(base, at)
            };
            bring_queries(k, flash, queries, |k, number| {
                let most = k.index(u64::from(group) - 1);
                let member = k.min(number, most);
                vector(k, q, member)
            });
            k.barrier();

            k.note("4 this warp's runs");
            let state = walk.fold(k, queries, first);

            k.note("5 join what the warps saw, in their order");
            k.barrier();
            parts.put(k, (places, warp), &state);
            k.barrier();
            let to = |k: &mut Builder<'c>, member| vector(k, y, member);
            let of_head = k.mul_constant(row.at, kv_heads.into());
            let of_head = k.add(of_head, head);
            let published =
                Published { parts, blocks: shares.blocks, base: published, counters, flag };
            published.join(k, places, (of_head, share, used), to);
        });
    });
}

/// The smallest position of `row`'s slot in this call.
fn least_position<'c>(k: &mut Builder<'c>, row_list: Ptr<'c>, row: TokenRow<'c>) -> Index<'c> {
    let (lane, count) = (k.lane_id(), k.count(Count::Tokens));
    let own = k.i32_of(row.position);
    let least = k.fold(lane, count, WARP.into(), own, |k, at, least| {
        let other = TokenRow::load(k, row_list, at);
        let position = k.i32_of(other.position);
        let lesser = k.min(position, least);
        let same = k.equal(other.slot, row.slot);
        k.select(same, lesser, least)
    });
    let least = k.join_warp(least, Builder::min);
    k.index_of(least)
}

/// Bring the query vectors to shared memory; seen by the block after a barrier.
fn bring_queries<'c>(
    k: &mut Builder<'c>,
    flash: Flash,
    to: Ptr<'c>,
    vector: impl Fn(&mut Builder<'c>, Index<'c>) -> Ptr<'c>,
) {
    let team = (k.thread(), k.threads());
    let units = 2 * flash.padded() / 16;
    if u64::from(flash.head_dim) != flash.padded() {
        flash.ask_rows(k, team, (to, VECTORS.into(), flash.piece()), |k, number| {
            (vector(k, number), None)
        });
        k.commit_copies();
        k.wait_for_copies(0);
        return;
    }
    // Not as copies: the runs that are on their way are not waited for.
    let end = k.index(u64::from(VECTORS) * units);
    k.for_each(team.0, end, team.1.into(), |k, at| {
        let (number, unit) = (k.div_constant(at, units), k.rem_constant(at, units));
        let from = vector(k, number);
        let unit = k.mul_constant(unit, 16);
        let from = k.at_bytes(from, unit);
        let words = k.load_words(from, 4, Cache::Usual);
        let row = k.mul_constant(number, flash.row_bytes());
        let to = k.at_bytes(to, row);
        let to = k.at_bytes(to, unit);
        k.store_whole(to, words);
    });
}

/// The runs of a warp.
#[derive(Clone, Copy)]
struct Walk<'c> {
    pool: PlainPool<'c>,
    row: TokenRow<'c>,
    head: Index<'c>,
    /// Number of the row's last run.
    last: Index<'c>,
    place: Place<'c>,
    /// From one run to the next.
    step: u64,
}

impl<'c> Walk<'c> {
    /// The block in the cache that has run `number`; of one that the row lacks, the last one's.
    fn page(&self, k: &mut Builder<'c>, number: Index<'c>) -> Ptr<'c> {
        let number = k.min(number, self.last);
        let number = k.div_constant(number, PAGE / RUN);
        self.pool.block(k, self.row.slot, number, self.head)
    }

    /// Ask for the keys or the values of run `number`, if the row has it.
    fn ask(&self, k: &mut Builder<'c>, number: Index<'c>, block: Ptr<'c>, values: bool) {
        let has = k.less_equal(number, self.last);
        k.when(has, |k| {
            let base = k.mul_constant(number, RUN);
            let rows = k.sub(self.row.position, base);
            let rows = k.add_constant(rows, 1);
            let first = k.rem_constant(base, PAGE);
            let team = (k.lane_id(), WARP);
            self.place.ask(k, team, Seen { block, first, rows }, values);
        });
        k.commit_copies();
    }

    fn ask_both(&self, k: &mut Builder<'c>, number: Index<'c>, block: Ptr<'c>) {
        self.ask(k, number, block, false);
        self.ask(k, number, block, true);
    }

    /// Wait for the keys or the values that were asked for before those that were asked for last. Bytes are
    /// spread out by the lane that asked for them, and the lanes meet after that.
    fn wait(&self, k: &mut Builder<'c>) {
        k.wait_for_copies(1);
        if self.place.runs.page.scheme == CacheScheme::Bf16 {
            k.warp_barrier();
        }
    }

    /// What the vectors at `queries` see of this warp's runs, of which the `first` is on its way.
    ///
    /// While a run's scores are computed its values are on their way, while its values are added the
    /// keys of the next, and where the page after that stands.
    fn fold(&self, k: &mut Builder<'c>, queries: Ptr<'c>, first: Index<'c>) -> State<'c> {
        let flash = self.place.runs.flash;
        let team = (k.lane_id(), WARP);
        let second = k.add_constant(first, self.step);
        let page = self.page(k, second);
        let past = k.add_constant(self.last, 1);
        let opened = (page, flash.open(k));
        let (_, state) = k.fold(first, past, self.step, opened, |k, number, (page, state)| {
            self.wait(k);
            let keys = self.place.bf16(k, team, false, Builder::warp_barrier);
            let base = k.mul_constant(number, RUN);
            let seen = k.sub(self.row.position, base);
            let seen = k.i32_of(seen);
            let scales = self.place.scales(k);
            let (weights, state) = flash.weigh(k, ([queries, keys], scales), [seen; 2], state);
            k.warp_barrier();
            let next = k.add_constant(number, self.step);
            self.ask(k, next, page, false);
            self.wait(k);
            let values = self.place.bf16(k, team, true, Builder::warp_barrier);
            let state = flash.add_values(k, values, &weights, state);
            k.warp_barrier();
            self.ask(k, next, page, true);
            let after = k.add_constant(next, self.step);
            let page = self.page(k, after);
            (page, state)
        });
        state
    }
}
