//! What stands between the q/k/v product and attention, for CUDA targets: a warp for each head of a
//! row. Keys and values stand in the pages as [`PlainPage`] says.

use sail_ir::plan::{Grid, PAGE_POSITIONS};
use sail_ir::scheme::CacheScheme;

use super::heads::{Entry, Halves, Pair, Share, half_piece};
use super::page::TokenRow;
use super::rope::turned;
use super::{CacheWrite, PageLayout, QkNormRopeWrite, Rope};
use crate::emit::gpu::{Team, WARP};
use crate::emit::{Bf16, Builder, Index, Ptr};
use crate::gpu::OnGpu;
use crate::kernel::{EmitError, Kernel, Rows, ThreadBlock};
use crate::norm::nvptx::root_of_mean;
use crate::rows::{index_at, row_at};

/// Heads of one thread block.
const HEADS_PER_BLOCK: u32 = 4;

/// Where keys and values stand in the cache of a CUDA target: `[page][kv head]` blocks, in each the
/// keys, then the values, `[position][e']` with `e'` = `head_dim` rounded up to a multiple of 16; of
/// bytes then the scales, `[key, value][position]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlainPage {
    pub head_dim: u32,
    pub scheme: CacheScheme,
}

impl PlainPage {
    #[must_use]
    pub fn of(PageLayout { head_dim, scheme }: PageLayout) -> Self {
        Self { head_dim, scheme }
    }

    /// Bytes from one position to the next: `e'` values.
    #[must_use]
    pub fn row_bytes(self) -> u64 {
        u64::from(self.head_dim).next_multiple_of(16) * self.scheme.value_bytes()
    }

    /// Bytes of the keys; the values follow them and are as large.
    #[must_use]
    pub fn keys_bytes(self) -> u64 {
        u64::from(PAGE_POSITIONS) * self.row_bytes()
    }

    #[must_use]
    pub fn block_bytes(self) -> u64 {
        self.scheme.block_bytes(self.head_dim).expect("a head of a checked model")
    }

    /// Byte in the block of value `i` of the key at `position` of its page.
    #[must_use]
    pub fn key_offset(self, position: u64, i: u64) -> u64 {
        position * self.row_bytes() + i * self.scheme.value_bytes()
    }

    /// Byte in the block of value `i` of the value at `position` of its page.
    #[must_use]
    pub fn value_offset(self, position: u64, i: u64) -> u64 {
        self.keys_bytes() + self.key_offset(position, i)
    }

    /// Bytes in the block of the scales of the key and of the value at `position` of its page.
    ///
    /// # Panics
    ///
    /// When the scheme has none.
    #[must_use]
    pub fn scale_offsets(self, position: u64) -> [u64; 2] {
        PageLayout { head_dim: self.head_dim, scheme: self.scheme }.scale_offsets(position)
    }
}

/// The cache of one layer, as kernels of a CUDA target get it.
#[derive(Clone, Copy)]
pub struct PlainPool<'c> {
    pub page: PlainPage,
    pub kv_heads: u32,
    pub page_table: Ptr<'c>,
    pub cache: Ptr<'c>,
}

impl<'c> PlainPool<'c> {
    /// The block of kv head `head` of page number `number` of `slot`.
    pub fn block(
        &self,
        k: &mut Builder<'c>,
        slot: Index<'c>,
        number: Index<'c>,
        head: Index<'c>,
    ) -> Ptr<'c> {
        let stride = k.pages_per_slot();
        let list = k.mul(slot, stride);
        let at = k.add(list, number);
        let page = index_at(k, self.page_table, at);
        let page = k.mul_constant(page, self.kv_heads.into());
        let block = k.add(page, head);
        let start = k.mul_constant(block, self.page.block_bytes());
        k.at_bytes(self.cache, start)
    }

    /// Where the key and the value of kv head `head` of a row go.
    fn entry(&self, k: &mut Builder<'c>, row: TokenRow<'c>, head: Index<'c>) -> Entry<'c> {
        let number = k.div_constant(row.position, PAGE_POSITIONS.into());
        let within = k.rem_constant(row.position, PAGE_POSITIONS.into());
        let block = self.block(k, row.slot, number, head);
        Entry { page: self.page, block, within }
    }
}

/// Items of a row for each run of heads.
fn grid_of(heads: u32) -> Grid {
    Rows::TOKENS.grid(1, heads.div_ceil(HEADS_PER_BLOCK))
}

fn block() -> ThreadBlock {
    ThreadBlock::of(HEADS_PER_BLOCK * WARP)
}

/// Run `body` for the row and the head of this warp, if it has one.
fn for_warp_head<'c>(
    k: &mut Builder<'c>,
    (grid, heads): (Grid, u32),
    rows: Ptr<'c>,
    body: impl FnOnce(&mut Builder<'c>, TokenRow<'c>, Index<'c>),
) {
    k.for_this_block(&grid, |k, block| {
        let row = TokenRow::load(k, rows, block.first_row);
        let first = k.mul_constant(block.first_column, HEADS_PER_BLOCK.into());
        let warp = k.warp();
        let head = k.add(first, warp);
        let all = k.index(heads.into());
        let has = k.less(head, all);
        k.when(has, |k| body(k, row, head));
    });
}

/// The head numbered `head` of the heads of `head_dim` at `row`.
fn head_at<'c>(k: &mut Builder<'c>, row: Ptr<'c>, head: Index<'c>, head_dim: u32) -> Ptr<'c> {
    let first = k.mul_constant(head, head_dim.into());
    k.at::<Bf16>(row, first)
}

/// [`Rope`] for a GPU.
#[must_use]
pub fn rope(problem: &Rope) -> OnGpu<Rope> {
    OnGpu::new(problem, grid_of(problem.heads), block(), |kernel, k| {
        let Rope { heads, head_dim } = *kernel.problem();
        even(kernel, head_dim)?;
        let [x, table, rows, y] = k.arguments::<4>();
        let half = head_dim / 2;
        for_warp_head(k, (kernel.grid(), heads), rows, |k, row, head| {
            let cosines = row_at(k, table, row.position, head_dim);
            let sines = k.at_bytes_constant(cosines, head_dim.into());
            let [x, y] = [x, y].map(|matrix| {
                let row = row_at(k, matrix, row.at, heads * head_dim);
                head_at(k, row, head, head_dim)
            });
            let [across_x, across_y] = [x, y].map(|low| k.at_bytes_constant(low, head_dim.into()));
            k.fold_pieces_of(Team::Warp, half.into(), half_piece(half), (), |k, piece, ()| {
                let [a, b, cos, sin] =
                    [x, across_x, cosines, sines].map(|row| k.read_widened(row, piece));
                let [low, high] = turned(k, [a, b], [cos, sin]);
                k.write_rounded(y, piece, low);
                k.write_rounded(across_y, piece, high);
            });
        });
        Ok(())
    })
}

/// [`CacheWrite`] for a GPU.
#[must_use]
pub fn cache_write(problem: &CacheWrite) -> OnGpu<CacheWrite> {
    OnGpu::new(problem, grid_of(problem.kv_heads), block(), |kernel, k| {
        let CacheWrite { kv_heads, layout } = *kernel.problem();
        even(kernel, layout.head_dim)?;
        let [keys, values, rows, page_table, cache] = k.arguments::<5>();
        let page = PlainPage::of(layout);
        let pool = PlainPool { page, kv_heads, page_table, cache };
        let halves = Halves::of(layout.head_dim);
        for_warp_head(k, (kernel.grid(), kv_heads), rows, |k, row, head| {
            let entry = pool.entry(k, row, head);
            let shares = halves.shares(k);
            for (part, matrix) in [keys, values].into_iter().enumerate() {
                let from = row_at(k, matrix, row.at, kv_heads * layout.head_dim);
                let from = head_at(k, from, head, layout.head_dim);
                let head = halves.load(k, &shares, from);
                entry.put(k, part, halves, (&shares, &head));
            }
        });
        Ok(())
    })
}

/// [`QkNormRopeWrite`] for a GPU.
///
/// What no kernel writes (the row's position and place, the norm's weights, the angles) is asked for
/// before the product ahead of this has ended; after it a head is read once.
#[must_use]
pub fn qk_norm_rope_write(problem: &QkNormRopeWrite) -> OnGpu<QkNormRopeWrite> {
    let grid = grid_of(problem.heads + 2 * problem.kv_heads);
    let block = ThreadBlock { waits_itself: true, ..block() };
    OnGpu::new(problem, grid, block, |kernel, k| {
        let QkNormRopeWrite { heads, kv_heads, layout, eps } = *kernel.problem();
        let head_dim = layout.head_dim;
        even(kernel, head_dim)?;
        let [qkv, q_norm, k_norm, table, rows, page_table, q_out, cache] = k.arguments::<8>();
        let page = PlainPage::of(layout);
        let pool = PlainPool { page, kv_heads, page_table, cache };
        let all = heads + 2 * kv_heads;
        let halves = Halves::of(head_dim);
        k.let_successor_start();
        for_warp_head(k, (kernel.grid(), all), rows, |k, row, head| {
            k.note("1 what no kernel writes");
            let shares = halves.shares(k);
            let queries = k.index(heads.into());
            let is_query = k.less(head, queries);
            let norm = k.choose(is_query, |_| q_norm, |_| k_norm);
            let weights = halves.load(k, &shares, norm);
            let cosines = row_at(k, table, row.position, head_dim);
            let angles = halves.load(k, &shares, cosines);
            let (kv, zero) = (k.sub(head, queries), k.index(0));
            let kv = k.max(kv, zero);
            let keys = k.index(kv_heads.into());
            let kv_head = k.rem_constant(kv, kv_heads.into());
            let is_key = k.less(kv, keys);
            let entry = pool.entry(k, row, kv_head);
            let from = row_at(k, qkv, row.at, all * head_dim);
            let from = head_at(k, from, head, head_dim);
            k.wait_for_predecessor();

            k.note("2 norm, turn, write");
            let x = halves.load(k, &shares, from);
            let no_value = k.or(is_query, is_key);
            k.choose(
                no_value,
                |k| {
                    let turned = norm_and_turn(k, (halves, eps), &shares, [&x, &weights, &angles]);
                    k.choose(
                        is_query,
                        |k| {
                            let to = row_at(k, q_out, row.at, heads * head_dim);
                            let to = head_at(k, to, head, head_dim);
                            halves.store(k, (&shares, &turned), to);
                        },
                        |k| entry.put(k, 0, halves, (&shares, &turned)),
                    );
                },
                |k| entry.put(k, 1, halves, (&shares, &x)),
            );
        });
        // Warps without a head, too: who comes after this kernel trusts that all before it has ended.
        k.wait_for_predecessor();
        Ok(())
    })
}

/// A head, normalised and turned, rounded once; by the warp.
fn norm_and_turn<'c>(
    k: &mut Builder<'c>,
    (halves, eps): (Halves, f64),
    shares: &[Share<'c>],
    [x, weights, angles]: [&Vec<Pair<'c>>; 3],
) -> Vec<Pair<'c>> {
    let mut squares = k.f32(0.0);
    for (share, pair) in shares.iter().zip(x) {
        for half in pair {
            let half = k.widen(*half);
            let half = share.or_zeros(k, half);
            let lanes = k.lanes_of(half);
            squares = lanes.into_iter().fold(squares, |sum, value| k.fma(value, value, sum));
        }
    }
    let squares = k.sum_of_warp(squares);
    let scale = root_of_mean(k, squares, halves.head_dim, eps);
    x.iter()
        .zip(weights)
        .zip(angles)
        .map(|((x, weights), angles)| {
            let [a, b] = [0, 1].map(|half| {
                let (x, weight) = (k.widen(x[half]), k.widen(weights[half]));
                let normal = k.mul(x, scale);
                k.mul(normal, weight)
            });
            let [cos, sin] = angles.map(|angle| k.widen(angle));
            let (bs, as_) = (k.mul(b, sin), k.mul(a, sin));
            let (ac, bc) = (k.mul(a, cos), k.mul(b, cos));
            let (low, high) = (k.sub(ac, bs), k.add(bc, as_));
            [k.round(low), k.round(high)]
        })
        .collect()
}

fn even(kernel: &dyn Kernel, head_dim: u32) -> Result<(), EmitError> {
    match head_dim.is_multiple_of(2) {
        true => Ok(()),
        false => Err(EmitError::no_fit(kernel, "a head has an odd number of values")),
    }
}
