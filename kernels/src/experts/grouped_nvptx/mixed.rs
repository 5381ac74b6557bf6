//! Grouped products of many rows on `sm_90` whose weights have fewer bits than what they meet, as
//! [`crate::linear::nvptx::mixed`] does it: rows of the weight are the left side, unpacked in registers, and
//! rows of x the right one. Both warpgroups have all rows of x of a group, each by its own weight rows.
//!
//! Rows of x are the columns of the instructions, of which there are some for any number of them: a group
//! takes those for as many as it has, in steps of 32 or 64 ([`Mixed::rows_by`]), each a loop of its own.

use sail_ir::target::Target;

use super::groups::{Cut, Groups};
use super::items::{FILLING, Item, Items};
use super::{Given, GroupedProduct, of_x};
use crate::emit::{Builder, Index, Ptr};
use crate::gpu::OnGpu;
use crate::kernel::Kernel;
use crate::linear::nvptx::direct::Tile;
use crate::linear::nvptx::mixed::{self, Mixed, Multiplying, Weight};
use crate::linear::nvptx::ring::Ring;
use crate::linear::nvptx::{Sizes, after_its_rows, weight_of};

/// Registers of a thread that multiplies, and of one that copies: of these one also asks for the words of
/// many runs of weight rows.
const REGISTERS: [u32; 2] = [208, 88];

pub(super) fn kernel(
    problem: &GroupedProduct,
    sizes: Sizes,
    (shape, cut): (Mixed, Cut),
    target: &Target,
) -> OnGpu<GroupedProduct> {
    let map = shape.weight_map(&sizes, weight_of(problem));
    let stages = shape.stages(&sizes, cut.shared_bytes());
    let staged_bytes = shape.staged_bytes(&sizes);
    let block = stages.block(vec![map], staged_bytes + cut.shared_bytes(), target);
    let tiles = sizes.weight_rows().div_ceil(shape.columns);
    let grid = sizes.rows.grid(u32::MAX, cut.experts * tiles);
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        let given = Given::of(k, kernel.problem());
        k.for_this_block(&kernel.grid(), |k, _| {
            let staged = k.shared(staged_bytes, 1024);
            let ring = Ring::carve(k, stages, FILLING);
            let groups = Groups::find(k, cut, given.starts, given.stored);
            let (columns, registers) = (shape.columns, REGISTERS);
            let items = Items { sizes, given: &given, ring, groups, columns, registers };
            let weight = Weight::new(k, (shape, &sizes), 0, given.arguments.weight);
            items.share_out(
                k,
                |k, count| multiply(k, items, (shape, staged), count),
                |k, step, first, stage| {
                    k.arrive_expecting(stage.full, weight.step_bytes() as u32);
                    let part = weight.part(k, step, first);
                    weight.ask(k, part, stage);
                },
            );
        });
        Ok(())
    });
    let kernel = kernel.named(format!("mixed{}x{}", shape.rows, shape.columns));
    after_its_rows(kernel, of_x(&problem.problem, sizes))
}

/// The part of a warpgroup that multiplies `count` items; `staged` is room for the outputs of all warps.
fn multiply<'c>(
    k: &mut Builder<'c>,
    items: Items<'c, '_>,
    (shape, staged): (Mixed, Ptr<'c>),
    count: Index<'c>,
) {
    let steps = items.steps();
    let multiplying = Multiplying::new(k, shape, items.ring);
    let by = shape.rows_by();
    let all: Vec<u32> = (by..=shape.rows).step_by(by as usize).collect();
    k.for_turns_of_block(count, |k, turn, item| {
        let Item { group, first, first_packed } = items.item(k, item);
        let before = k.mul_constant(turn, steps);
        for_rows(k, group.rows, &all, &|k, multiplied| {
            let sums = &multiplying.of_first(multiplied).multiply(k, (before, steps))[..];
            k.note("2 finish");
            let (rows, first_row, order) = (group.rows, group.first, items.given.order);
            let tile = Tile { sums, rows, first_row, first, first_packed, order };
            mixed::finish(k, (shape, &items.sizes), tile, &items.given.arguments, staged);
        });
    });
}

/// Run `body` for the least of `all`, which ascend, that is no less than `rows`, or for the last one.
fn for_rows<'c>(
    k: &mut Builder<'c>,
    rows: Index<'c>,
    all: &[u32],
    body: &dyn Fn(&mut Builder<'c>, u32),
) {
    if let [one] = all {
        return body(k, *one);
    }
    let (less, more) = all.split_at(all.len() / 2);
    let enough = k.index(less[less.len() - 1].into());
    let fits = k.less_equal(rows, enough);
    k.choose(fits, |k| for_rows(k, rows, less, body), |k| for_rows(k, rows, more, body));
}
