//! Grouped products where an expert has few rows: its weight is read once for each group of them, at
//! the pace of memory, as [`crate::linear::nvptx::few`] does it.
//!
//! The weights of all experts stand one after the other, so that a turn of a group is a turn of one
//! long weight. The turns of all groups are dealt to as many blocks as are at work at once, each a run
//! of neighbouring ones, whatever the tokens: a block has rows of one expert, or of a few of them one
//! after the other, and the first weights of the next ones are on their way before the last sums are
//! joined.
//!
//! One token of a model with 8 of 128 experts of 768 by 2048 in bf16, on 132 multiprocessors: gate and
//! up are 50 MB in 768 turns of 64 KiB, 2.9 for each of 264 blocks of 8 warps; down is 25 MB in 1024
//! turns of 24 KiB, 1.9 for each of 528 blocks of 4 warps. Both have 64 KiB on their way on each
//! multiprocessor, more than twice what memory of 4.2 TB/s with a latency of 0.8 µs needs.

use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::groups::{Cut, Groups};
use super::{Given, GroupedProduct};
use crate::emit::{Builder, F32, I32, Index};
use crate::gpu::OnGpu;
use crate::kernel::{Kernel, ThreadBlock};
use crate::linear::nvptx::Sizes;
use crate::linear::nvptx::few::{Few, Rows};
use crate::linear::nvptx::sum::Sum;
use crate::linear::nvptx::turn::{Turn, Work};

/// Shared memory that a block takes beside its own, and that a multiprocessor has besides what one block
/// may have.
const RESERVED: u32 = 1 << 10;

pub(super) fn kernel(
    problem: &GroupedProduct,
    sizes: Sizes,
    few: Few,
    target: &Target,
) -> OnGpu<GroupedProduct> {
    let cut = Cut { experts: sizes.weights, rows: few.rows() };
    let shared_bytes = few.shared_bytes(&sizes) + cut.shared_bytes() as u32;
    // The table of groups may leave room for fewer blocks than are reckoned with.
    let room = target.gpu().map_or(0, |limits| limits.shared_bytes + RESERVED);
    let fit = (room / (shared_bytes + RESERVED)).max(1);
    let block = ThreadBlock {
        shared_bytes,
        blocks_per_processor: few.blocks_per_processor.min(fit),
        ..ThreadBlock::of(few.threads())
    };
    let grid = sizes.rows.grid(u32::MAX, few.blocks);
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        let given = Given::of(k, kernel.problem());
        k.for_this_block(&kernel.grid(), |k, block| {
            let block = block.first_column;
            match sizes.scheme {
                Scheme::Int8 => write::<I32<'_>>(k, (few, cut), sizes, &given, block),
                _ => write::<F32<'_>>(k, (few, cut), sizes, &given, block),
            }
        });
        Ok(())
    });
    kernel.named(format!("rows{}x{}", few.rows(), few.columns()))
}

/// The turns of block number `block`.
fn write<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    (few, cut): (Few, Cut),
    sizes: Sizes,
    given: &Given<'c>,
    block: Index<'c>,
) {
    let work = Work::new(k, few, sizes, given.arguments.weight);
    k.note("1 the groups of rows, and which of their turns are this block's");
    let groups = Groups::find(k, cut, given.starts, given.stored);
    // Of a group.
    let turns = work.walk.turns();
    let all = k.mul_constant(groups.count, turns);
    let next = k.add_constant(block, 1);
    let [begin, end] = [block, next].map(|block| {
        let before = k.mul(all, block);
        k.div_constant(before, few.blocks.into())
    });
    let some = k.less(begin, end);
    k.when(some, |k| {
        let first_group = k.div_constant(begin, turns);
        let past = k.add_constant(end, turns - 1);
        let past = k.div_constant(past, turns);
        let place = groups.place(k, first_group);
        let packed = k.mul_constant(place, turns);
        let of_row = k.rem_constant(begin, turns);
        let number = k.add(packed, of_row);
        let first = work.walk.first_lines(k, number);
        k.fold(first_group, past, 1, first, |k, number, lines| {
            k.note("2 the rows of a group, when nobody is still at those of the one before");
            let group = groups.at(k, number);
            if work.finishes_late() {
                k.barrier();
            }
            let (x, order) = (given.arguments.x, given.order);
            let rows = Rows { x, first: group.first, count: group.rows, order };
            let columns = work.columns(k, rows, None);

            let before = k.mul_constant(number, turns);
            let past = k.add_constant(before, turns);
            let [from, to] = [k.max(begin, before), k.min(end, past)];
            let packed = k.mul_constant(group.place, turns);
            // From the turns of groups to those of all weights.
            let moved = k.sub(packed, before);
            k.fold(from, to, 1, lines, |k, at, lines| {
                let of_row = k.sub(at, before);
                let turn = Turn { number: k.add(moved, at), of_row, count: (at, 1) };
                let next = |k: &mut Builder<'c>| {
                    let next = k.add_constant(at, 1);
                    let more = k.less(next, end);
                    let (next, turns) = (k.add_constant(of_row, 1), k.index(turns));
                    let same = k.less(next, turns);
                    let next = k.choose(
                        same,
                        |k| k.add_constant(turn.number, 1),
                        |k| {
                            let group = k.add_constant(number, 1);
                            let place = groups.place(k, group);
                            k.mul_constant(place, work.walk.turns())
                        },
                    );
                    (more, next)
                };
                work.turn::<T>(k, turn, (rows, &columns), (lines, next), &given.arguments)
            })
        });
    });
}
