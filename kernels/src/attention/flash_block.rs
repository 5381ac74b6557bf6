//! Attention for CUDA targets: blocks of query vectors that walk the pages together (prefill, image
//! tiles; on `sm_90` where [`super::wgmma`] does not fit), and rows whose pages are shared out among warps
//! (decode).

use super::flash::{Flash, PAGE, Source, State, VECTORS};
use super::flash_alone::alone;
use super::flash_run::{Place, Runs, Seen};
use super::nvptx::{PlainPage, PlainPool};
use super::page::TokenRow;
use super::{Attention, TileAttention};
use crate::emit::gpu::WARP;
use crate::emit::{Bf16, Builder, Index, Ptr};
use crate::gpu::OnGpu;
use crate::gpu_model::attention::MOST_ALONE;
use crate::kernel::{Kernel, ThreadBlock};
use sail_ir::plan::{Count, Grid};
use sail_ir::scheme::CacheScheme;
use sail_ir::target::Target;

/// Warps of a block that walks pages together.
const WARPS: u32 = 4;

/// Query vectors of such a block.
const BLOCK: u32 = WARPS * VECTORS;

/// [`Attention`] for calls of at most `most_rows` rows; `None` where there is no code for the heads'
/// sizes.
#[must_use]
pub fn attention(problem: &Attention, target: &Target, most_rows: u32) -> Option<Box<dyn Kernel>> {
    let group = problem.heads.checked_div(problem.kv_heads).filter(|group| *group > 0)?;
    let fits = problem.heads.is_multiple_of(problem.kv_heads)
        && problem.layout.head_dim.is_multiple_of(2)
        && group <= BLOCK;
    if !fits {
        return None;
    }
    if most_rows <= MOST_ALONE && group <= VECTORS {
        return alone(problem, target, most_rows).map(|kernel| Box::new(kernel) as Box<dyn Kernel>);
    }
    if let Some(by_warpgroups) = super::wgmma::attention(problem, target, most_rows) {
        return Some(by_warpgroups);
    }
    let flash = Flash::of_pages(problem.layout.head_dim);
    let runs = Runs { flash, page: PlainPage::of(problem.layout) };
    let rows = BLOCK / group;
    let grid = crate::kernel::Rows::TOKENS.grid(rows, problem.kv_heads);
    let block = ThreadBlock::of(WARPS * WARP).with_shared(together_bytes(runs));
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        write_together(k, (kernel.problem(), &kernel.grid()), runs, group);
        Ok(())
    });
    Some(Box::new(kernel.named("together".to_owned())))
}

/// A block of rows with one kv head.
fn write_together<'c>(
    k: &mut Builder<'c>,
    (problem, grid): (&Attention, &Grid),
    runs: Runs,
    group: u32,
) {
    let [q, cache, row_list, page_table, y] = k.arguments::<5>();
    let Attention { heads, kv_heads, layout, .. } = *problem;
    let Runs { flash, page } = runs;
    let pool = PlainPool { page, kv_heads, page_table, cache };
    let places = Places::carve(k, runs);
    k.for_this_block(grid, |k, block| {
        let head = block.first_column;
        let vector = |k: &mut Builder<'c>, base, number| {
            let (row, member) =
                (k.div_constant(number, group.into()), k.rem_constant(number, group.into()));
            let last = k.sub_constant(block.rows, 1);
            let row = k.min(row, last);
            let row = k.add(row, block.first_row);
            let row = k.mul_constant(row, heads.into());
            let of_head = k.mul_constant(head, group.into());
            let at = k.add(row, of_head);
            let at = k.add(at, member);
            let at = k.mul_constant(at, layout.head_dim.into());
            k.at::<Bf16>(base, at)
        };
        k.note("1 queries");
        let team = (k.thread(), k.threads());
        let to = (places.queries, u64::from(BLOCK), flash.piece());
        flash.ask_rows(k, team, to, |k, number| (vector(k, q, number), None));
        k.commit_copies();

        k.note("2 runs of neighbouring positions of one slot, page by page");
        let mine = own_vectors(k, flash);
        let my_rows = mine.map(|number| {
            let row = k.div_constant(number, group.into());
            k.add(row, block.first_row)
        });
        let first = block.first_row;
        let past = k.add(first, block.rows);
        let last = k.sub_constant(past, 1);
        let opened = flash.open(k);
        let (_, state) = k.fold(first, past, 1, (first, opened), |k, at, (start, state)| {
            let row = TokenRow::load(k, row_list, at);
            // The last row is compared with itself, which does not follow it.
            let next = k.add_constant(at, 1);
            let after = k.min(next, last);
            let after = TokenRow::load(k, row_list, after);
            let goes_on = row.is_followed_by(k, after);
            let kept = state.clone();
            k.choose(
                goes_on,
                |_| (start, kept),
                |k| {
                    let limits = my_rows.map(|mine| limit(k, mine, [start, row.at], row.position));
                    let ask = |k: &mut Builder<'c>, number: Index<'c>, rows, values: bool| {
                        let block = pool.block(k, row.slot, number, head);
                        let seen = Seen { block, first: k.index(0), rows };
                        let team = (k.thread(), k.threads());
                        places.run.ask(k, team, seen, values);
                    };
                    let state = walk(k, places, row.position, limits, state, ask);
                    (next, state)
                },
            )
        });

        k.note("3 results");
        let vectors = k.mul_constant(block.rows, group.into());
        finish(k, flash, &state, mine, vectors, |k, number| vector(k, y, number));
    });
}

/// [`TileAttention`].
#[must_use]
pub fn tile_attention(problem: &TileAttention) -> Option<Box<dyn Kernel>> {
    if !problem.head_dim.is_multiple_of(2) {
        return None;
    }
    let flash = Flash::of_pages(problem.head_dim);
    let page = PlainPage { head_dim: problem.head_dim, scheme: CacheScheme::Bf16 };
    let runs = Runs { flash, page };
    let blocks = problem.patches.div_ceil(BLOCK);
    let images = crate::kernel::Rows { count: Count::Images, per: 1 };
    let grid = images.grid(1, problem.heads * blocks);
    let block = ThreadBlock::of(WARPS * WARP).with_shared(together_bytes(runs));
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        write_tile(k, (kernel.problem(), &kernel.grid()), runs);
        Ok(())
    });
    Some(Box::new(kernel))
}

/// A block of patches with one head of one image tile.
fn write_tile<'c>(k: &mut Builder<'c>, (problem, grid): (&TileAttention, &Grid), runs: Runs) {
    let [qkv, y] = k.arguments::<2>();
    let TileAttention { patches, heads, head_dim, .. } = *problem;
    let blocks = u64::from(patches.div_ceil(BLOCK));
    let width = u64::from(heads) * u64::from(head_dim);
    let flash = runs.flash;
    let places = Places::carve(k, runs);
    k.for_this_block(grid, |k, block| {
        // Blocks of a head follow each other: they share its keys and values.
        let head = k.div_constant(block.first_column, blocks);
        let first = k.rem_constant(block.first_column, blocks);
        let first = k.mul_constant(first, BLOCK.into());
        let all = k.index(patches.into());
        let left = k.sub(all, first);
        let tile = k.mul_constant(block.first_row, patches.into());
        let of_head = k.mul_constant(head, 2 * u64::from(head_dim));
        let row_at = |k: &mut Builder<'c>, base, row, row_bytes| {
            let row = k.add(row, tile);
            let start = k.mul_constant(row, row_bytes);
            let row = k.at_bytes(base, start);
            k.at_bytes(row, of_head)
        };
        k.note("1 queries");
        let team = (k.thread(), k.threads());
        let to = (places.queries, u64::from(BLOCK), flash.piece());
        flash.ask_rows(k, team, to, |k, number| {
            let last = k.sub_constant(left, 1);
            let number = k.min(number, last);
            let row = k.add(number, first);
            (row_at(k, qkv, row, 6 * width), None)
        });
        k.commit_copies();

        k.note("2 page by page");
        let mine = own_vectors(k, flash);
        let last = k.index(u64::from(patches) - 1);
        let limits = [last; 2];
        let opened = flash.open(k);
        let state = walk(k, places, last, limits, opened, |k, number, rows, values| {
            let row = k.mul_constant(number, PAGE);
            let row = row_at(k, qkv, row, 6 * width);
            let part = if values { 4 * width } else { 2 * width };
            let first = k.at_bytes_constant(row, part);
            let skipped = if values { flash.run_bytes() } else { 0 };
            let to = k.at_bytes_constant(places.run.start, skipped);
            let team = (k.thread(), k.threads());
            let source = Source { first, stride: 6 * width, piece: flash.piece(), rows };
            flash.ask_run(k, team, to, source);
        });

        k.note("3 results");
        finish(k, flash, &state, mine, left, |k, number| {
            let row = k.add(number, first);
            row_at(k, y, row, 2 * width)
        });
    });
}

/// Shared memory of a block whose warps walk pages together.
#[derive(Clone, Copy)]
struct Places<'c> {
    queries: Ptr<'c>,
    /// A page.
    run: Place<'c>,
}

impl<'c> Places<'c> {
    fn carve(k: &mut Builder<'c>, runs: Runs) -> Self {
        let queries = k.shared(u64::from(BLOCK) * runs.flash.row_bytes(), 128);
        Self { queries, run: Place { runs, start: k.shared(runs.bytes(), 128) } }
    }
}

fn together_bytes(runs: Runs) -> u32 {
    let parts = [u64::from(BLOCK) * runs.flash.row_bytes(), runs.bytes()];
    parts.map(|bytes| bytes.next_multiple_of(128)).iter().sum::<u64>() as u32
}

/// Numbers in the block of this thread's vectors g and g + 8.
fn own_vectors<'c>(k: &mut Builder<'c>, flash: Flash) -> [Index<'c>; 2] {
    let warp = k.warp();
    let first = k.mul_constant(warp, VECTORS.into());
    flash.rows(k).map(|row| k.add(first, row))
}

/// The last position that row `mine` sees of the run of rows `start ..= last`, of which the last one is
/// at `position`; -1 of a row that is not of the run.
fn limit<'c>(
    k: &mut Builder<'c>,
    mine: Index<'c>,
    [start, last]: [Index<'c>; 2],
    position: Index<'c>,
) -> Index<'c> {
    let before = k.sub(last, mine);
    let own = k.sub(position, before);
    let (from, to) = (k.less_equal(start, mine), k.less_equal(mine, last));
    let inside = k.and(from, to);
    let none = k.index(u64::MAX);
    k.select(inside, own, none)
}

/// Let the block's vectors see positions up to `last`, each up to its limit; `ask` asks for the keys or
/// the values of a page, of which there are so many rows.
///
/// While a page's scores are computed its values are on their way, while its values are added the keys
/// of the next.
fn walk<'c>(
    k: &mut Builder<'c>,
    places: Places<'c>,
    last: Index<'c>,
    limits: [Index<'c>; 2],
    state: State<'c>,
    ask: impl Fn(&mut Builder<'c>, Index<'c>, Index<'c>, bool),
) -> State<'c> {
    let flash = places.run.runs.flash;
    let ask = |k: &mut Builder<'c>, number: Index<'c>, values: bool| {
        let base = k.mul_constant(number, PAGE);
        let rows = k.sub(last, base);
        let rows = k.add_constant(rows, 1);
        ask(k, number, rows, values);
        k.commit_copies();
    };
    let team = (k.thread(), k.threads());
    let warp = k.warp();
    let start = k.mul_constant(warp, u64::from(VECTORS) * flash.row_bytes());
    let queries = k.at_bytes(places.queries, start);
    let (zero, pages) = (k.index(0), k.div_constant(last, PAGE));
    let pages = k.add_constant(pages, 1);
    ask(k, zero, false);
    k.fold(zero, pages, 1, state, |k, number, state| {
        k.wait_for_copies(0);
        k.barrier();
        let keys = places.run.bf16(k, team, false, Builder::barrier);
        ask(k, number, true);
        let base = k.mul_constant(number, PAGE);
        let seen = limits.map(|limit| {
            let seen = k.sub(limit, base);
            k.i32_of(seen)
        });
        let scales = places.run.scales(k);
        let (weights, state) = flash.weigh(k, ([queries, keys], scales), seen, state);
        k.wait_for_copies(0);
        k.barrier();
        let values = places.run.bf16(k, team, true, Builder::barrier);
        let next = k.add_constant(number, 1);
        let more = k.less(next, pages);
        k.when(more, |k| ask(k, next, false));
        flash.add_values(k, values, &weights, state)
    })
}

/// Divide by the sums of weights and store the vectors below `count`; `place` gives a vector's.
fn finish<'c>(
    k: &mut Builder<'c>,
    flash: Flash,
    state: &State<'c>,
    mine: [Index<'c>; 2],
    count: Index<'c>,
    place: impl Fn(&mut Builder<'c>, Index<'c>) -> Ptr<'c>,
) {
    let totals = flash.totals(k, state);
    let one = k.f32(1.0);
    let shares = totals.map(|total| k.div(one, total));
    let places = mine.map(|number| place(k, number));
    let has = mine.map(|number| k.less(number, count));
    flash.each_pair(k, state, |k, row, column, pair| {
        k.when(has[row], |k| {
            let [first, second] = pair.map(|sum| k.mul(sum, shares[row]));
            let place = k.at::<Bf16>(places[row], column);
            let pair = k.round_pair(first, second);
            k.store_whole(place, pair);
        });
    });
}
