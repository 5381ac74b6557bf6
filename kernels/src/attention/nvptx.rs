//! What stands between the q/k/v product and attention, for CUDA targets: a warp for each head of a
//! row. Keys and values stand in the pages as [`PlainPage`] says.

use sail_ir::plan::{Grid, PAGE_POSITIONS};

use super::page::TokenRow;
use super::rope::turned;
use super::{CacheWrite, PageLayout, QkNormRopeWrite, Rope};
use crate::emit::gpu::{Team, WARP};
use crate::emit::{Bf16, Builder, Index, Piece, Ptr};
use crate::gpu::OnGpu;
use crate::kernel::{EmitError, Kernel, Rows, ThreadBlock};
use crate::norm::nvptx::root_of_mean;
use crate::rows::{index_at, row_at};

/// Heads of one thread block.
const HEADS_PER_BLOCK: u32 = 4;

/// Where keys and values stand in the cache of a CUDA target: `[page][kv head]` blocks, in each the
/// keys, then the values, `[position][e']` with `e'` = `head_dim` rounded up to a multiple of 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlainPage {
    pub head_dim: u32,
}

impl PlainPage {
    /// Values from one position to the next: `e'`.
    #[must_use]
    pub fn pitch(self) -> u64 {
        u64::from(self.head_dim).next_multiple_of(16)
    }

    /// Bytes of the keys; the values follow them and are as large.
    #[must_use]
    pub fn keys_bytes(self) -> u64 {
        2 * u64::from(PAGE_POSITIONS) * self.pitch()
    }

    #[must_use]
    pub fn block_bytes(self) -> u64 {
        2 * self.keys_bytes()
    }

    /// Byte in the block of value `i` of the key at `position` of its page.
    #[must_use]
    pub fn key_offset(self, position: u64, i: u64) -> u64 {
        2 * (position * self.pitch() + i)
    }

    /// Byte in the block of value `i` of the value at `position` of its page.
    #[must_use]
    pub fn value_offset(self, position: u64, i: u64) -> u64 {
        self.keys_bytes() + self.key_offset(position, i)
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

    /// Where the key of kv head `head` of a row goes; its value goes `keys_bytes` further.
    fn place(&self, k: &mut Builder<'c>, row: TokenRow<'c>, head: Index<'c>) -> Ptr<'c> {
        let number = k.div_constant(row.position, PAGE_POSITIONS.into());
        let within = k.rem_constant(row.position, PAGE_POSITIONS.into());
        let block = self.block(k, row.slot, number, head);
        let start = k.mul_constant(within, 2 * self.page.pitch());
        k.at_bytes(block, start)
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

/// Values of a piece of half a head: as many as let most threads of the warp take part.
fn half_piece(half: u32) -> u32 {
    let most = (half / WARP).clamp(1, 8);
    let twos = 1 << half.trailing_zeros().min(3);
    twos.min(1 << most.ilog2())
}

/// The head numbered `head` of the heads of `head_dim` at `row`.
fn head_at<'c>(k: &mut Builder<'c>, row: Ptr<'c>, head: Index<'c>, head_dim: u32) -> Ptr<'c> {
    let first = k.mul_constant(head, head_dim.into());
    k.at::<Bf16>(row, first)
}

/// Copy the head at `from` to `to`, by the warp.
fn copy_head<'c>(k: &mut Builder<'c>, [from, to]: [Ptr<'c>; 2], head_dim: u32) {
    k.fold_pieces_of(Team::Warp, head_dim.into(), half_piece(head_dim / 2), (), |k, piece, ()| {
        let values = k.read::<Bf16>(from, piece);
        k.write(to, piece, values);
    });
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
        let CacheWrite { kv_heads, layout: PageLayout { head_dim, .. } } = *kernel.problem();
        even(kernel, head_dim)?;
        let [keys, values, rows, page_table, cache] = k.arguments::<5>();
        let page = PlainPage { head_dim };
        let pool = PlainPool { page, kv_heads, page_table, cache };
        for_warp_head(k, (kernel.grid(), kv_heads), rows, |k, row, head| {
            let key_to = pool.place(k, row, head);
            let value_to = k.at_bytes_constant(key_to, page.keys_bytes());
            for (matrix, to) in [(keys, key_to), (values, value_to)] {
                let from = row_at(k, matrix, row.at, kv_heads * head_dim);
                let from = head_at(k, from, head, head_dim);
                copy_head(k, [from, to], head_dim);
            }
        });
        Ok(())
    })
}

/// [`QkNormRopeWrite`] for a GPU.
#[must_use]
pub fn qk_norm_rope_write(problem: &QkNormRopeWrite) -> OnGpu<QkNormRopeWrite> {
    let grid = grid_of(problem.heads + 2 * problem.kv_heads);
    OnGpu::new(problem, grid, block(), |kernel, k| {
        let QkNormRopeWrite { heads, kv_heads, layout: PageLayout { head_dim, .. }, .. } =
            *kernel.problem();
        even(kernel, head_dim)?;
        let [qkv, q_norm, k_norm, table, rows, page_table, q_out, cache] = k.arguments::<8>();
        let page = PlainPage { head_dim };
        let pool = PlainPool { page, kv_heads, page_table, cache };
        let all = heads + 2 * kv_heads;
        for_warp_head(k, (kernel.grid(), all), rows, |k, row, head| {
            let from = row_at(k, qkv, row.at, all * head_dim);
            let from = head_at(k, from, head, head_dim);
            let angles = row_at(k, table, row.position, head_dim);
            let queries = k.index(heads.into());
            let is_query = k.less(head, queries);
            k.choose(
                is_query,
                |k| {
                    let to = row_at(k, q_out, row.at, heads * head_dim);
                    let to = head_at(k, to, head, head_dim);
                    norm_and_turn(k, kernel.problem(), [from, q_norm, angles, to]);
                },
                |k| {
                    let head = k.sub(head, queries);
                    let keys = k.index(kv_heads.into());
                    let is_key = k.less(head, keys);
                    k.choose(
                        is_key,
                        |k| {
                            let to = pool.place(k, row, head);
                            norm_and_turn(k, kernel.problem(), [from, k_norm, angles, to]);
                        },
                        |k| {
                            let head = k.sub(head, keys);
                            let to = pool.place(k, row, head);
                            let to = k.at_bytes_constant(to, page.keys_bytes());
                            copy_head(k, [from, to], head_dim);
                        },
                    );
                },
            );
        });
        Ok(())
    })
}

/// One head from `x` to `y`, by the warp.
fn norm_and_turn<'c>(
    k: &mut Builder<'c>,
    problem: &QkNormRopeWrite,
    [x, weight, cosines, y]: [Ptr<'c>; 4],
) {
    let QkNormRopeWrite { layout: PageLayout { head_dim, .. }, eps, .. } = *problem;
    let half = head_dim / 2;
    let width = half_piece(half);
    let sines = k.at_bytes_constant(cosines, head_dim.into());
    let across = [x, weight, y].map(|low| k.at_bytes_constant(low, head_dim.into()));

    let none = k.f32(0.0);
    let squares = k.fold_pieces_of(Team::Warp, half.into(), width, none, |k, piece, sum| {
        let both = [x, across[0]].map(|half| k.read_widened(half, piece));
        let values: Vec<_> = both.into_iter().flat_map(|half| k.lanes_of(half)).collect();
        values.into_iter().fold(sum, |sum, value| k.fma(value, value, sum))
    });
    let squares = k.sum_of_warp(squares);
    let scale = root_of_mean(k, squares, head_dim, eps);

    k.fold_pieces_of(Team::Warp, half.into(), width, (), |k, piece: Piece<'c>, ()| {
        let [a, b] = [[x, weight], [across[0], across[1]]].map(|[x, weight]| {
            let (x, weight) = (k.read_widened(x, piece), k.read_widened(weight, piece));
            let normal = k.mul(x, scale);
            k.mul(normal, weight)
        });
        let [cos, sin] = [cosines, sines].map(|row| k.read_widened(row, piece));
        let (bs, as_) = (k.mul(b, sin), k.mul(a, sin));
        let (ac, bc) = (k.mul(a, cos), k.mul(b, cos));
        let (low, high) = (k.sub(ac, bs), k.add(bc, as_));
        k.write_rounded(y, piece, low);
        k.write_rounded(across[2], piece, high);
    });
}

fn even(kernel: &dyn Kernel, head_dim: u32) -> Result<(), EmitError> {
    match head_dim.is_multiple_of(2) {
        true => Ok(()),
        false => Err(EmitError::no_fit(kernel, "a head has an odd number of values")),
    }
}
