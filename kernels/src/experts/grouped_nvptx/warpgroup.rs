//! Grouped products of many rows on `sm_90`: warpgroups multiply (`wgmma`) a group of rows of one
//! expert by some rows of its weight, as [`crate::linear::nvptx::warpgroup`] does it. Each has half of the
//! rows of x.

use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::groups::{Cut, Groups};
use super::items::{FILLING, Item, Items};
use super::{Given, GroupedProduct, of_x};
use crate::emit::gpu::{WARP, WARPGROUP};
use crate::emit::{Builder, F32, I32, Index};
use crate::gpu::OnGpu;
use crate::kernel::Kernel;
use crate::linear::nvptx::direct::{self, Tile};
use crate::linear::nvptx::multiply::Steps;
use crate::linear::nvptx::ring::Ring;
use crate::linear::nvptx::sum::Sum;
use crate::linear::nvptx::warpgroup::{ROWS, Warpgroups};
use crate::linear::nvptx::{Sizes, after_its_rows, weight_of};

/// Registers of a thread that multiplies, and of one that copies.
const REGISTERS: [u32; 2] = [224, 56];

pub(super) fn kernel(
    problem: &GroupedProduct,
    sizes: Sizes,
    (shape, cut): (Warpgroups, Cut),
    target: &Target,
) -> OnGpu<GroupedProduct> {
    let map = shape.weight_map(&sizes, weight_of(problem));
    let block = shape.stages().block(vec![map], cut.shared_bytes(), target);
    let tiles = sizes.weight_rows().div_ceil(shape.columns);
    let grid = sizes.rows.grid(u32::MAX, cut.experts * tiles);
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        let given = Given::of(k, kernel.problem());
        k.for_this_block(&kernel.grid(), |k, _| {
            let ring = Ring::carve(k, shape.stages(), FILLING);
            let all = Steps { shape, scheme: sizes.scheme, ring };
            let groups = Groups::find(k, cut, given.starts, given.stored);
            let (columns, registers) = (shape.columns, REGISTERS);
            let items = Items { sizes, given: &given, ring, groups, columns, registers };
            let work = Work { all, items };
            match sizes.scheme {
                Scheme::Int8 => work.write::<I32<'_>>(k),
                _ => work.write::<F32<'_>>(k),
            }
        });
        Ok(())
    });
    let kernel = kernel.named(format!("wgmma{ROWS}x{}", shape.columns));
    after_its_rows(kernel, of_x(&problem.problem, sizes))
}

#[derive(Clone, Copy)]
struct Work<'c, 'g> {
    all: Steps<'c>,
    items: Items<'c, 'g>,
}

impl<'c> Work<'c, '_> {
    fn write<T: Sum<'c>>(self, k: &mut Builder<'c>) {
        let shape = self.all.shape;
        let map = k.tensor_map(0);
        self.items.share_out(
            k,
            |k, items| self.multiply::<T>(k, items),
            |k, step, first, stage| {
                let columns = u64::from(k.shape().tensor_maps[0].block[0]);
                let [column, row] = [k.mul_constant(step, columns), first];
                let from = [column, row].map(|at| k.i32_of(at));
                let right = k.at_bytes_constant(stage.place, shape.left_bytes());
                k.arrive_expecting(stage.full, shape.right_bytes() as u32);
                k.copy_box_in(right, map, from, stage.full);
            },
        );
    }

    /// The part of a warpgroup that multiplies.
    fn multiply<T: Sum<'c>>(self, k: &mut Builder<'c>, items: Index<'c>) {
        let (sizes, given) = (self.items.sizes, self.items.given);
        let steps = self.items.steps();
        let warp = k.warp();
        let half = k.div_constant(warp, u64::from(WARPGROUP / WARP));
        let half = k.mul_constant(half, self.items.half());
        k.for_turns_of_block(items, |k, turn, item| {
            let Item { group, first, first_packed } = self.items.item(k, item);
            let before = k.mul_constant(turn, steps);
            let has = k.less(half, group.rows);
            k.choose(
                has,
                |k| {
                    let sums = self.all.multiply::<T>(k, (before, steps));
                    let (rows, first_row, order) = (group.rows, group.first, given.order);
                    let sums = &sums;
                    let tile = Tile { sums, rows, first_row, first, first_packed, order };
                    direct::finish(k, tile, &sizes, &given.arguments);
                },
                |k| {
                    let (zero, steps) = (k.index(0), k.index(steps));
                    k.for_each(zero, steps, 1, |k, step| {
                        let at = k.add(before, step);
                        self.all.ring.full(k, at);
                        self.all.ring.free(k, at);
                    });
                },
            );
        });
    }
}
