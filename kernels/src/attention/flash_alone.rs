//! Attention of few rows for CUDA targets (decode): a block for each row and kv head, whose warps share
//! out the pages.

use super::Attention;
use super::flash::{Flash, PAGE, Source, State, VECTORS};
use super::nvptx::{PlainPage, PlainPool};
use super::page::TokenRow;
use crate::emit::gpu::WARP;
use crate::emit::{Bf16, Builder, F32, Index, Ptr};
use crate::gpu::OnGpu;
use crate::kernel::{Kernel, ThreadBlock};
use sail_ir::plan::Grid;

/// Rows by themselves: a block for each row and kv head, its pages dealt to the warps in turn. What a
/// row gives depends on its own positions alone.
pub fn alone(problem: &Attention, flash: Flash) -> OnGpu<Attention> {
    let of_warp = 2 * flash.page_bytes();
    // As many warps as have pages in the shared memory of both targets.
    let most = (150 << 10) / of_warp;
    let warps = [8, 4, 2].into_iter().find(|warps| *warps <= most).unwrap_or(1) as u32;
    let queries = u64::from(VECTORS) * flash.row_bytes();
    let parts = Parts { warps, row: flash.padded() + 4 };
    let shared = queries.next_multiple_of(128) + alone_bytes(flash, parts);
    let grid = crate::kernel::Rows::TOKENS.grid(1, problem.kv_heads);
    let block = ThreadBlock::of(warps * WARP).with_shared(shared as u32);
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        write_alone(k, (kernel.problem(), &kernel.grid()), flash, parts);
        Ok(())
    });
    kernel.named("alone".to_owned())
}

/// Shared memory of the pages of all warps, and then of what they saw.
fn alone_bytes(flash: Flash, parts: Parts) -> u64 {
    (2 * u64::from(parts.warps) * flash.page_bytes()).max(parts.bytes())
}

/// A row with one kv head.
fn write_alone<'c>(
    k: &mut Builder<'c>,
    (problem, grid): (&Attention, &Grid),
    flash: Flash,
    parts: Parts,
) {
    let [q, cache, row_list, page_table, y] = k.arguments::<5>();
    let Attention { heads, kv_heads, layout, .. } = *problem;
    let page = PlainPage { head_dim: layout.head_dim };
    let pool = PlainPool { page, kv_heads, page_table, cache };
    let of_warp = 2 * flash.page_bytes();
    let group = heads / kv_heads;
    let warps = parts.warps;
    let queries = k.shared(u64::from(VECTORS) * flash.row_bytes(), 128);
    let pages = k.shared(alone_bytes(flash, parts), 128);
    k.for_this_block(grid, |k, block| {
        let head = block.first_column;
        let row = TokenRow::load(k, row_list, block.first_row);
        let vector = |k: &mut Builder<'c>, base, member| {
            let at = k.mul_constant(row.at, heads.into());
            let of_head = k.mul_constant(head, group.into());
            let at = k.add(at, of_head);
            let at = k.add(at, member);
            let at = k.mul_constant(at, layout.head_dim.into());
            k.at::<Bf16>(base, at)
        };
        k.note("1 queries");
        let team = (k.thread(), k.threads());
        let to = (queries, u64::from(VECTORS), flash.piece());
        flash.ask_rows(k, team, to, |k, number| {
            let last = k.index(u64::from(group) - 1);
            let member = k.min(number, last);
            (vector(k, q, member), None)
        });
        k.commit_copies();
        k.wait_for_copies(0);
        k.barrier();

        k.note("2 this warp's pages");
        let (warp, lane) = (k.warp(), k.lane_id());
        let start = k.mul_constant(warp, of_warp);
        let keys = k.at_bytes(pages, start);
        let values = k.at_bytes_constant(keys, flash.page_bytes());
        let ask = |k: &mut Builder<'c>, number: Index<'c>, part: usize| {
            let has = k.div_constant(row.position, PAGE);
            let has = k.less_equal(number, has);
            k.when(has, |k| {
                let block = pool.block(k, row.slot, number, head);
                let first = k.at_bytes_constant(block, part as u64 * page.keys_bytes());
                let base = k.mul_constant(number, PAGE);
                let rows = k.sub(row.position, base);
                let rows = k.add_constant(rows, 1);
                let source = Source { first, stride: 2 * page.pitch(), piece: 16, rows };
                flash.ask_page(k, (lane, WARP), [keys, values][part], source);
            });
            k.commit_copies();
        };
        ask(k, warp, 0);
        ask(k, warp, 1);
        let past = k.div_constant(row.position, PAGE);
        let past = k.add_constant(past, 1);
        let opened = flash.open(k);
        let state = k.fold(warp, past, warps.into(), opened, |k, number, state| {
            k.wait_for_copies(1);
            k.warp_barrier();
            let base = k.mul_constant(number, PAGE);
            let seen = k.sub(row.position, base);
            let seen = k.i32_of(seen);
            let (weights, state) = flash.weigh(k, [queries, keys], [seen; 2], state);
            k.warp_barrier();
            let next = k.add_constant(number, warps.into());
            ask(k, next, 0);
            k.wait_for_copies(1);
            k.warp_barrier();
            let state = flash.add_values(k, values, &weights, state);
            k.warp_barrier();
            ask(k, next, 1);
            state
        });
        k.wait_for_copies(0);

        k.note("3 join what the warps saw, in their order");
        k.barrier();
        parts.put(k, flash, (pages, warp), &state);
        k.barrier();
        let (thread, threads) = (k.thread(), k.threads());
        let pairs = u64::from(layout.head_dim) / 2;
        let end = k.index(u64::from(group) * pairs);
        k.for_each(thread, end, threads.into(), |k, at| {
            let (member, pair) = (k.div_constant(at, pairs), k.rem_constant(at, pairs));
            let column = k.mul_constant(pair, 2);
            let pair = parts.joined(k, flash, pages, [member, column]);
            let place = vector(k, y, member);
            let place = k.at::<Bf16>(place, column);
            let lanes = k.lanes_of(pair);
            let pair = k.round_pair(lanes[0], lanes[1]);
            k.store_whole(place, pair);
        });
    });
}

/// What warps saw, in shared memory: for each warp and vector the sums, the largest score and the sum of
/// weights.
#[derive(Clone, Copy)]
struct Parts {
    warps: u32,
    /// f32 of one vector: its sums and four more.
    row: u64,
}

impl Parts {
    fn bytes(self) -> u64 {
        4 * u64::from(self.warps * VECTORS) * self.row
    }

    fn place<'c>(
        self,
        k: &mut Builder<'c>,
        base: Ptr<'c>,
        [warp, vector]: [Index<'c>; 2],
    ) -> Ptr<'c> {
        let first = k.mul_constant(warp, VECTORS.into());
        let at = k.add(first, vector);
        let at = k.mul_constant(at, self.row);
        k.at::<F32>(base, at)
    }

    fn put<'c>(
        self,
        k: &mut Builder<'c>,
        flash: Flash,
        (base, warp): (Ptr<'c>, Index<'c>),
        state: &State<'c>,
    ) {
        let totals = flash.totals(k, state);
        let places = flash.rows(k).map(|row| self.place(k, base, [warp, row]));
        flash.each_pair(k, state, |k, row, column, pair| {
            let place = k.at::<F32>(places[row], column);
            let pair = k.vector_of(&pair);
            k.store_whole(place, pair);
        });
        let (lane, zero) = (k.lane_id(), k.index(0));
        let q = k.rem_constant(lane, 4);
        let first = k.equal(q, zero);
        k.when(first, |k| {
            for row in 0..2 {
                let place = k.at_bytes_constant(places[row], 4 * flash.padded());
                let both = k.vector_of(&[state.1[row], totals[row]]);
                k.store_whole(place, both);
            }
        });
    }

    /// Two neighbouring values of a vector's result.
    fn joined<'c>(
        self,
        k: &mut Builder<'c>,
        flash: Flash,
        base: Ptr<'c>,
        [vector, column]: [Index<'c>; 2],
    ) -> F32<'c> {
        let places: Vec<_> = (0..self.warps)
            .map(|warp| {
                let warp = k.index(warp.into());
                self.place(k, base, [warp, vector])
            })
            .collect();
        let both: Vec<_> = places
            .iter()
            .map(|place| {
                let place = k.at_bytes_constant(*place, 4 * flash.padded());
                let both = k.load_whole::<F32>(place, 2);
                k.lanes_of(both)
            })
            .collect();
        // The first warp has the first page, of which every row sees something.
        let most = both[1..].iter().fold(both[0][0], |most, both| k.max(both[0], most));
        let scale = k.f32(flash.scale());
        let (mut sum, mut total) = (k.f32s(0.0, 2), k.f32(0.0));
        for (place, both) in places.iter().zip(&both) {
            let below = k.sub(both[0], most);
            let below = k.mul(below, scale);
            let share = k.exp2_approx(below);
            total = k.fma(both[1], share, total);
            let place = k.at::<F32>(*place, column);
            let pair = k.load_whole::<F32>(place, 2);
            sum = k.fma(pair, share, sum);
        }
        k.div(sum, total)
    }
}
