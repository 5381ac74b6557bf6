//! Grouped products of many rows by warps: a block has one expert and a tile of its outputs, and takes
//! the expert's rows tile by tile. An expert without rows costs its blocks a look at two numbers.

use sail_ir::scheme::Scheme;

use super::{Given, GroupedProduct, of_x};
use crate::emit::{Builder, F32, I32, Index, Ptr};
use crate::gpu::OnGpu;
use crate::kernel::{Kernel, ThreadBlock};
use crate::linear::nvptx::finish::{Outputs, Staged};
use crate::linear::nvptx::quantize::QuantizedRows;
use crate::linear::nvptx::sum::Sum;
use crate::linear::nvptx::tile::{Side, Tile, multiply};
use crate::linear::nvptx::{Sizes, after_its_rows, behind};
use crate::rows::index_at;

/// What a block of a grouped product works with.
#[derive(Clone, Copy)]
struct Group<'c, 'g> {
    shape: Tile,
    sizes: Sizes,
    given: &'g Given<'c>,
    /// The weight of the expert.
    weight: Ptr<'c>,
    /// What stands behind its rows: their scales, or the words of their groups.
    scales: Ptr<'c>,
    /// First weight row of the tile.
    first: Index<'c>,
    shared: Ptr<'c>,
}

pub(super) fn kernel(problem: &GroupedProduct, sizes: Sizes, shape: Tile) -> OnGpu<GroupedProduct> {
    let Sizes { scheme, weights, .. } = sizes;
    let tiles = sizes.weight_rows().div_ceil(shape.columns);
    let block = ThreadBlock::of(shape.threads()).with_shared(shape.shared_bytes(scheme));
    let grid = sizes.rows.grid(u32::MAX, weights * tiles);
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        let shared = k.shared(shape.shared_bytes(scheme).into(), 128);
        let given = Given::of(k, kernel.problem());
        k.for_this_block(&kernel.grid(), |k, block| {
            let item = block.first_column;
            let [place, tile] =
                [k.div_constant(item, tiles.into()), k.rem_constant(item, tiles.into())];
            // Which expert's weights stand there.
            let expert = given.stored.map_or(place, |stored| index_at(k, stored, place));
            let next = k.add_constant(expert, 1);
            let [begin, end] = [expert, next].map(|expert| index_at(k, given.starts, expert));
            let weight = given.arguments.weight;
            let scales = behind(k, &sizes, weight);
            let behind_bytes = u64::from(sizes.weight_rows()) * scheme.bytes_behind(sizes.k.into());
            let of_expert = k.mul_constant(place, behind_bytes);
            let scales = k.at_bytes(scales, of_expert);
            let offset = k.mul_constant(place, u64::from(sizes.weight_rows()) * sizes.pitch());
            let weight = k.at_bytes(weight, offset);
            let first = k.mul_constant(tile, shape.columns.into());
            let group = Group { shape, sizes, given: &given, weight, scales, first, shared };
            k.for_each(begin, end, shape.rows.into(), |k, at| match scheme {
                Scheme::Int8 => group.tile::<I32<'_>>(k, at, end),
                _ => group.tile::<F32<'_>>(k, at, end),
            });
        });
        Ok(())
    });
    let kernel = kernel.named(format!("tile{}x{}", shape.rows, shape.columns));
    after_its_rows(kernel, of_x(&problem.problem, sizes))
}

impl<'c> Group<'c, '_> {
    /// Sorted rows from `at` on, at most a tile of them and none from `end` on.
    fn tile<T: Sum<'c>>(self, k: &mut Builder<'c>, at: Index<'c>, end: Index<'c>) {
        let Self { shape, sizes, given, .. } = self;
        let left = k.sub(end, at);
        let most = k.index(shape.rows.into());
        let rows = k.min(left, most);
        let [row_bytes, multiplied] = sizes.row_bytes();
        let row_of_x = |k: &mut Builder<'c>, row: Index<'c>| {
            let row = k.add(row, at);
            given.order.map_or(row, |order| order.of(k, row))
        };

        k.note("1 multiply");
        let left = move |k: &mut Builder<'c>, row: Index<'c>| {
            let last = k.sub_constant(rows, 1);
            let row = k.min(row, last);
            let row = row_of_x(k, row);
            let start = k.mul_constant(row, row_bytes);
            k.at_bytes(given.arguments.x, start)
        };
        let right = sizes.weight([self.weight, self.scales], self.first);
        let sums = multiply::<T>(k, (shape, self.shared), Side::new(left, multiplied), &right);

        k.note("2 stage the sums where the steps were, of which every copy has been waited for");
        k.barrier();
        let staged = Staged { place: self.shared, columns: shape.columns };
        sums.each_pair(k, |k, at, pair| {
            let pair = pair.map(|sum| sum.as_f32(k));
            staged.put(k, at, pair);
        });
        k.barrier();

        k.note("3 finish");
        let first = k.div_constant(self.first, sizes.finish.sums().into());
        let outputs = Outputs { rows, first_row: at, first, n: sizes.n, most: 8 };
        sizes.finish.store(k, shape.columns, outputs, &given.arguments.finish, |k, part| {
            let sum = staged.get(k, part);
            let column = part.column(k);
            let column = k.add(column, self.first);
            let sum = sizes.scaled(k, sum, self.scales, column);
            sizes.stepped(k, sum, |k| {
                let row = row_of_x(k, part.row);
                QuantizedRows { k: sizes.k }.step(k, given.arguments.x, row)
            })
        });
        // The next rows' steps go where the sums are.
        k.barrier();
    }
}
