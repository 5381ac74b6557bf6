//! Attention of many query vectors on `sm_90`: two warpgroups of 64 vectors each multiply (`wgmma`), a
//! third one has the copying hardware bring keys and values to shared memory, in a ring of stages.
//!
//! # What it costs
//!
//! Counted, not measured, for heads of 128 on a processor that does 4096 operations a cycle in its
//! matrix units and 16 exponentials beside:
//!
//! | a step of 128 positions, both warpgroups | |
//! | --- | ---: |
//! | products: 2 · (8 + 8) of 64 × 128 × 16, 64 cycles each | 2048 cycles |
//! | exponentials: 2 · 64 · 128 / 16 | 1024 cycles |
//! | other instructions of a warp, four schedulers: 2 · 400 | 800 cycles |
//! | shared memory at 128 bytes a cycle: operands 160 KB, boxes 64 KB | 1792 cycles |
//! | second cache: 64 KB | 32 bytes a cycle |
//!
//! The products are the limit as long as all else runs beside them, which is what the turns are for: the
//! weights of one warpgroup (512 cycles of exponentials, some 700 with the rest) are made while the
//! other's 1024 cycles of products run. A block is 32 KB of vectors and two stages of 64 KB, 160 KB of the
//! 227; 232 registers a thread, of which sums take 64, scores 64, weights 32.
//!
//! - An image tile of 1024 patches, 12 heads: 96 blocks of 8 steps, 16,400 cycles of products and some
//!   4,500 for what nothing runs beside (first keys, first weights, last values, results). At 1.75 GHz
//!   12 µs; 13 to 16 with a launch and products that run at 85 % of their rate: 400 to 490 TFLOP/s. 36
//!   of 132 processors have no block: with two tiles there are 1.45 rounds.
//! - A prompt of 2048 tokens, 16 heads on 8: 256 blocks of 1 to 16 steps, longest first, 2176 steps in
//!   all, 33,800 cycles a processor. 19 µs, 28 to 33 with two blocks' 4,500 and products at 80 %: 520
//!   to 610 TFLOP/s of the 17.2 G operations that a mask leaves.
//! - 100 tokens after 2000: 16 blocks of 17 steps, 20 µs and more. Where the class of a call has so few
//!   blocks ([`Shape::parts`]) a cluster of up to 8 shares the steps: 3 steps and 2 µs for joining.

mod attend;
mod finish;
mod join;
mod ring;
mod runs;
#[cfg(test)]
mod tests;

use sail_ir::plan::{Count, Grid, MapRows, TensorMap};
use sail_ir::scheme::CacheScheme;
use sail_ir::target::Target;

use super::flash::PAGE;
use super::{Attention, TileAttention};
use crate::emit::gpu::WARPGROUP;
use crate::emit::{Bf16, Block, Builder, Index};
use crate::gpu::OnGpu;
use crate::gpu_model::SharedSteps;
use crate::gpu_model::attention::Sizes;
use crate::kernel::{Kernel, Rows, ThreadBlock};
use crate::rows::index_at;
use attend::Attending;
use ring::{Ring, RowsOf};
use runs::Runs;

/// Positions of a step: two pages, so that a product has 128 columns.
const STEP: u64 = 2 * PAGE;

/// Query vectors of a block, half of them for each warpgroup.
const VECTORS: u32 = 128;

/// Values of a row that one copy brings: what the widest swizzle covers.
const PIECE: u64 = 64;

/// Threads that multiply.
const ATTENDING: u32 = 2 * WARPGROUP;

/// Registers of a thread that multiplies, and of one that does not: what the block has at its start is
/// given by the one to the other.
const REGISTERS: [u32; 2] = [232, 40];

/// Sizes of what stands in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    head_dim: u32,
    /// Blocks of a cluster that share the steps of the same vectors: block `i` of `n` takes steps `i`,
    /// `i + n` and so on.
    parts: u32,
}

impl Shape {
    /// For heads of `head_dim` values on `target`; `None` where rows are not whole pieces, or so long
    /// that their sums do not fit the registers.
    fn of(head_dim: u32, target: &Target) -> Option<Self> {
        let fits = target.has("sm_90a") && [64, 128].contains(&head_dim);
        fits.then_some(Self { head_dim, parts: 1 })
    }

    /// Of steps `0 .. steps` those of part `part`.
    fn own_steps<'c>(self, k: &mut Builder<'c>, steps: Index<'c>, part: Index<'c>) -> Index<'c> {
        let parts = u64::from(self.parts);
        let left = k.sub(steps, part);
        // At least 0: parts are numbered below `parts`.
        let left = k.add_constant(left, parts - 1);
        k.div_constant(left, parts)
    }

    /// Number of step `own` of part `part` among all.
    fn step_of<'c>(self, k: &mut Builder<'c>, own: Index<'c>, part: Index<'c>) -> Index<'c> {
        let before = k.mul_constant(own, self.parts.into());
        k.add(before, part)
    }

    /// Runs of [`PIECE`] values of a head.
    fn pieces(self) -> u64 {
        u64::from(self.head_dim) / PIECE
    }

    /// Bytes of a piece of all rows of a step, or of all vectors of the block: as many.
    const PIECE_BYTES: u64 = 2 * PIECE * STEP;

    /// Bytes of the keys of a step, of its values, or of the block's vectors.
    fn side_bytes(self) -> u64 {
        self.pieces() * Self::PIECE_BYTES
    }

    fn shared_bytes(self) -> u64 {
        self.side_bytes() + Ring::bytes(self)
    }

    /// The block, with the tensor map of keys and values.
    fn block(self, map: TensorMap, more: u64) -> ThreadBlock {
        ThreadBlock {
            tensor_maps: vec![map],
            // As many as all threads can have at the start.
            registers: 168,
            cluster: self.parts,
            waits_itself: true,
            ..ThreadBlock::of(ATTENDING + WARPGROUP)
                .with_shared((self.shared_bytes() + more) as u32)
        }
    }
}

/// A map of rows of bf16 in boxes of a page's rows.
fn map(argument: u32, columns: u64, rows: MapRows) -> TensorMap {
    TensorMap {
        argument,
        element_bytes: 2,
        columns,
        rows,
        row_bytes: 2 * columns,
        block: [PIECE as u32, PAGE as u32],
        swizzle: 2 * PIECE as u32,
    }
}

/// [`Attention`] of many rows; `None` where it is not for this target, cache or size of heads.
pub(super) fn attention(
    problem: &Attention,
    target: &Target,
    most_rows: u32,
) -> Option<Box<dyn Kernel>> {
    let Attention { heads, kv_heads, layout, .. } = *problem;
    let shape = Shape::of(layout.head_dim, target)?;
    let group = heads.checked_div(kv_heads)?;
    let fits = layout.scheme == CacheScheme::Bf16
        && heads.is_multiple_of(kv_heads)
        && group.is_power_of_two()
        && group <= VECTORS / 2;
    if !fits {
        return None;
    }
    let rows = VECTORS / group;
    let blocks_of_page = 2 * PAGE as u32 * kv_heads;
    let map = map(1, layout.head_dim.into(), MapRows::Pages { per: blocks_of_page });
    let sizes =
        Sizes { heads, kv_heads, head_dim: layout.head_dim, value_bytes: problem.value_bytes() };
    let way = SharedSteps::of((sizes, most_rows), (rows, STEP, VECTORS), target)?;
    let problem = problem.clone();
    Some(Box::new(OnGpu::by(way, move |_, config| {
        let shape = Shape { parts: config.get("parts"), ..shape };
        by_clusters(&problem, shape, (rows, map.clone()))
    })))
}

/// Blocks of `rows` rows with one kv head, whose steps are shared as `shape` says.
fn by_clusters(
    problem: &Attention,
    shape: Shape,
    (rows, map): (u32, TensorMap),
) -> OnGpu<Attention> {
    let grid = Rows::TOKENS.grid(rows, problem.kv_heads * shape.parts);
    let block = shape.block(map, Runs::bytes(rows));
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        let grid = kernel.grid();
        k.let_successor_start();
        k.for_this_block(&grid, |k, block| {
            let block = longest_first(k, &grid, block);
            write_paged(k, shape, kernel.problem(), block);
        });
        Ok(())
    });
    let name = if shape.parts > 1 { format!("wgmma.s{}", shape.parts) } else { "wgmma".to_owned() };
    kernel.named(name)
}

/// The block of rows counted from the end: later rows see more positions, and what takes longest should
/// start first.
fn longest_first<'c>(k: &mut Builder<'c>, grid: &Grid, block: Block<'c>) -> Block<'c> {
    let rows = k.rows(grid);
    let per_block = u64::from(grid.rows_per_block);
    let blocks = k.add_constant(rows, per_block - 1);
    let blocks = k.div_constant(blocks, per_block);
    let last = k.sub_constant(blocks, 1);
    let index = k.sub(last, block.index);
    let first_row = k.mul_constant(index, per_block);
    let left = k.sub(rows, first_row);
    let most = k.index(per_block);
    Block { index, first_row, rows: k.min(left, most), ..block }
}

/// A block of rows with one kv head: vectors are the rows' heads of its group, row after row.
fn write_paged<'c>(k: &mut Builder<'c>, shape: Shape, problem: &Attention, block: Block<'c>) {
    let [q, _, row_list, page_table, y] = k.arguments::<5>();
    let Attention { heads, kv_heads, layout, .. } = *problem;
    let group = u64::from(heads / kv_heads);
    let parts = u64::from(shape.parts);
    let head = k.div_constant(block.first_column, parts);
    let part = k.rem_constant(block.first_column, parts);
    let ring = Ring::carve(k, shape);
    let runs = Runs::carve(k, VECTORS / group as u32);
    ring.init(k);
    k.wait_for_predecessor();
    runs.find(k, row_list, block);
    let last_row = k.sub_constant(block.rows, 1);
    let vector = move |k: &mut Builder<'c>, base, number| {
        let (row, member) = (k.div_constant(number, group), k.rem_constant(number, group));
        let row = k.min(row, last_row);
        let row = k.add(row, block.first_row);
        let row = k.mul_constant(row, heads.into());
        let of_head = k.mul_constant(head, group);
        let at = k.add(row, of_head);
        let at = k.add(at, member);
        let at = k.mul_constant(at, layout.head_dim.into());
        k.at::<Bf16>(base, at)
    };
    Ring::by_role(
        k,
        |k| {
            let none = k.index(0);
            runs.fold(k, none, |k, run, before| {
                let pages = k.pages_per_slot();
                let list = k.mul(run.slot, pages);
                let last = k.div_constant(run.position, PAGE);
                let rows_of = |k: &mut Builder<'c>, step: Index<'c>| -> RowsOf<'c> {
                    let keys = [0, 1].map(|half| {
                        // Where the slot has no second page, the first one stands for it.
                        let step = shape.step_of(k, step, part);
                        let number = k.mul_constant(step, 2);
                        let number = k.add_constant(number, half);
                        let number = k.min(number, last);
                        let at = k.add(list, number);
                        let page = index_at(k, page_table, at);
                        let block = k.mul_constant(page, kv_heads.into());
                        let block = k.add(block, head);
                        let row = k.mul_constant(block, 2 * PAGE);
                        k.i32_of(row)
                    });
                    let page = k.i32(PAGE as i32);
                    let values = keys.map(|row| k.add(row, page));
                    [keys[0], keys[1], values[0], values[1]]
                };
                let zero = k.i32(0);
                let steps = run.steps(k);
                let steps = shape.own_steps(k, steps, part);
                ring.bring(k, (before, steps), [zero; 2], rows_of)
            });
        },
        |k| {
            let attending = Attending::new(k, ring, part);
            let vectors = k.mul_constant(block.rows, group);
            attending.bring_queries(k, |k, number| vector(k, q, number));
            let opened = attending.open(k);
            let state = runs.fold(k, opened, |k, run, state| {
                let seen = attending.seen(k, |k, number| {
                    let row = k.div_constant(number, group);
                    let row = k.min(row, last_row);
                    run.limit(k, row)
                });
                let first = attending.first_vector(k);
                let row = k.div_constant(first, group);
                let row = k.min(row, last_row);
                let whole = run.whole_steps(k, row, block.rows);
                attending.see(k, run.position, Some((seen, whole)), state)
            });
            attending
                .finish(k, &state, |k, number| (vector(k, y, number), k.less(number, vectors)));
        },
    );
}

/// [`TileAttention`]; `None` where it is not for this target or size of heads.
pub(super) fn tile_attention(problem: &TileAttention, target: &Target) -> Option<Box<dyn Kernel>> {
    let TileAttention { patches, heads, head_dim, .. } = *problem;
    let shape = Shape::of(head_dim, target)?;
    let rows = MapRows::Counted { count: Count::Images, per: patches };
    let map = map(0, 3 * u64::from(heads * head_dim), rows);
    let images = Rows { count: Count::Images, per: 1 };
    let grid = images.grid(1, heads * patches.div_ceil(VECTORS));
    let kernel = OnGpu::new(problem, grid, shape.block(map, 0), move |kernel, k| {
        let grid = kernel.grid();
        k.let_successor_start();
        k.for_this_block(&grid, |k, block| write_tile(k, shape, kernel.problem(), block));
        Ok(())
    });
    Some(Box::new(kernel.named("wgmma".to_owned())))
}

/// A block of patches with one head of one image tile.
fn write_tile<'c>(k: &mut Builder<'c>, shape: Shape, problem: &TileAttention, block: Block<'c>) {
    let [qkv, y] = k.arguments::<2>();
    let TileAttention { patches, heads, head_dim, .. } = *problem;
    let blocks = u64::from(patches.div_ceil(VECTORS));
    let width = u64::from(heads) * u64::from(head_dim);
    let ring = Ring::carve(k, shape);
    ring.init(k);
    k.wait_for_predecessor();
    k.barrier();
    // Blocks of a head follow each other: they share its keys and values.
    let head = k.div_constant(block.first_column, blocks);
    let first = k.rem_constant(block.first_column, blocks);
    let first = k.mul_constant(first, VECTORS.into());
    let tile = k.mul_constant(block.first_row, patches.into());
    let column = k.mul_constant(head, head_dim.into());
    let last = k.index(u64::from(patches) - 1);
    let vector = move |k: &mut Builder<'c>, base, (number, row_values): (Index<'c>, u64)| {
        let patch = k.add(number, first);
        let row = k.min(patch, last);
        let row = k.add(row, tile);
        let start = k.mul_constant(row, row_values);
        let at = k.add(start, column);
        (k.at::<Bf16>(base, at), k.less_equal(patch, last))
    };
    Ring::by_role(
        k,
        |k| {
            let columns = [1, 2].map(|part| {
                let column = k.add_constant(column, part * width);
                k.i32_of(column)
            });
            let (zero, steps) = (k.index(0), k.index(u64::from(patches).div_ceil(STEP)));
            ring.bring(k, (zero, steps), columns, |k, step| {
                let row = k.mul_constant(step, STEP);
                let row = k.add(row, tile);
                let row = k.i32_of(row);
                let page = k.i32(PAGE as i32);
                let next = k.add(row, page);
                [row, next, row, next]
            });
        },
        |k| {
            let part = k.index(0);
            let attending = Attending::new(k, ring, part);
            attending.bring_queries(k, |k, number| vector(k, qkv, (number, 3 * width)).0);
            let masks = (!u64::from(patches).is_multiple_of(STEP)).then(|| {
                let seen = k.i32_of(last);
                ([seen; 2], k.index(u64::from(patches) / STEP))
            });
            let opened = attending.open(k);
            let state = attending.see(k, last, masks, opened);
            attending.finish(k, &state, |k, number| vector(k, y, (number, width)));
        },
    );
}
