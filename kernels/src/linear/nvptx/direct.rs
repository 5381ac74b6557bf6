//! What follows the sums of warpgroups: outputs are finished in the registers of the threads that
//! multiplied, so that the stages of the next tile fill up meanwhile.
//!
//! A thread has pairs of neighbouring sums of two rows; four threads side by side store 16 bytes. With
//! gate and up in alternating groups of eight, both sums of an output are the same thread's. What the
//! outputs are finished with is read for several of them before the first is stored: the assembler does
//! not know that a store changes nothing of it.

use super::few::Order;
use super::finish::GROUP;
use super::quantize::QuantizedRows;
use super::sum::Sum;
use super::{Arguments, Sizes, behind};
use crate::emit::{Bf16, Bool, Builder, F32, Index};

/// Pairs of a row whose operands are on their way together.
const TOGETHER: usize = 8;

/// Sums of a tile, as [`crate::emit::gpu::warpgroup`] deals them to this thread.
#[derive(Clone, Copy)]
pub(crate) struct Tile<'c, 't, T> {
    pub sums: &'t [T],
    /// Rows of y that it has, and the first of them.
    pub rows: Index<'c>,
    pub first_row: Index<'c>,
    /// Its first weight row, among those that a row of y needs and among all that are packed.
    pub first: Index<'c>,
    pub first_packed: Index<'c>,
    /// Which rows of x its rows are, where that is not their own number.
    pub order: Option<Order<'c>>,
}

/// Pairs of outputs of one row.
struct Row<'c> {
    /// First element of the row in y.
    start: Index<'c>,
    /// What a step of the row's integers is.
    step: Option<F32<'c>>,
}

/// Finish and store the outputs of a tile.
pub(crate) fn finish<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    tile: Tile<'c, '_, T>,
    sizes: &Sizes,
    arguments: &Arguments<'c>,
) {
    k.note("2 finish");
    let (warp, lane) = (k.warp(), k.lane_id());
    let first = k.mul_constant(warp, 16);
    let row = k.div_constant(lane, 4);
    let row = k.add(row, first);
    let within = k.rem_constant(lane, 4);
    let within = k.mul_constant(within, 2);
    let columns = tile.sums.len() as u64 * 2;
    let sums = u64::from(sizes.n) * u64::from(sizes.finish.sums());
    // Does a tile ever reach beyond the outputs?
    let ragged = !sums.is_multiple_of(columns);
    let direct = Direct { tile, sizes, arguments, within };
    for half in 0..2 {
        let row = k.add_constant(row, 8 * half as u64);
        let has = k.less(row, tile.rows);
        k.when(has, |k| {
            let row = direct.row(k, row);
            if !ragged {
                direct.store(k, half, &row, false);
                return;
            }
            let past = k.add_constant(tile.first, columns);
            let all = k.index(sums);
            let whole = k.less_equal(past, all);
            k.choose(
                whole,
                |k| direct.store(k, half, &row, false),
                |k| direct.store(k, half, &row, true),
            );
        });
    }
}

struct Direct<'c, 'a, T> {
    tile: Tile<'c, 'a, T>,
    sizes: &'a Sizes,
    arguments: &'a Arguments<'c>,
    /// This thread's first column of each group of eight.
    within: Index<'c>,
}

impl<'c, T: Sum<'c>> Direct<'c, '_, T> {
    fn row(&self, k: &mut Builder<'c>, row: Index<'c>) -> Row<'c> {
        let at = k.add(row, self.tile.first_row);
        let start = k.mul_constant(at, u64::from(self.sizes.n));
        let codes = QuantizedRows { k: self.sizes.k };
        let step = self.sizes.scheme.quantizes_activations().then(|| {
            let at = self.tile.order.map_or(at, |order| order.of(k, at));
            codes.step(k, self.arguments.x, at)
        });
        Row { start, step }
    }

    /// Groups of sums of an output group.
    fn groups(&self, group: usize) -> Vec<usize> {
        match self.sizes.finish.sums() {
            1 => vec![group],
            _ => vec![2 * group, 2 * group + 1],
        }
    }

    /// The outputs of row `half` of this thread; with `guarded`, those that there are.
    fn store(&self, k: &mut Builder<'c>, half: usize, row: &Row<'c>, guarded: bool) {
        let sums = self.sizes.finish.sums() as usize;
        let groups: Vec<usize> = (0..self.tile.sums.len() / 4 / sums).collect();
        let first = k.div_constant(self.tile.first, sums as u64);
        let first = k.add(first, self.within);
        let odd = !self.sizes.n.is_multiple_of(2);
        for together in groups.chunks(if guarded { 1 } else { TOGETHER }) {
            let columns: Vec<Index<'c>> =
                together.iter().map(|group| k.add_constant(first, GROUP * *group as u64)).collect();
            if !guarded && !odd {
                self.store_pairs(k, half, row, together, &columns, 2);
                continue;
            }
            // A row of odd length: pairs are not aligned, and the last one may be half a one.
            let width = if odd { 1 } else { 2 };
            for (group, column) in together.iter().zip(columns) {
                let inside = self.inside(k, column);
                k.when(inside, |k| {
                    self.store_pairs(k, half, row, &[*group], &[column], width);
                });
            }
        }
    }

    fn inside(&self, k: &mut Builder<'c>, column: Index<'c>) -> Bool<'c> {
        let end = k.index(self.sizes.n.into());
        k.less(column, end)
    }

    /// Pairs of outputs of which at least the first is there.
    fn store_pairs(
        &self,
        k: &mut Builder<'c>,
        half: usize,
        row: &Row<'c>,
        groups: &[usize],
        columns: &[Index<'c>],
        width: u32,
    ) {
        for part in 0..2 / width as usize {
            let columns: Vec<Index<'c>> =
                columns.iter().map(|column| k.add_constant(*column, part as u64)).collect();
            let body = |k: &mut Builder<'c>| {
                let read: Vec<_> = groups
                    .iter()
                    .zip(&columns)
                    .map(|(group, column)| {
                        let at = k.add(row.start, *column);
                        let pointers = &self.arguments.finish;
                        let beside = self.sizes.finish.beside(k, ([*column, at], width), pointers);
                        (at, beside, self.scales(k, *group, part, width))
                    })
                    .collect();
                for (group, (at, beside, scales)) in groups.iter().zip(read) {
                    let sums = self.scaled(k, (*group, half, part), row, &scales, width);
                    let value = self.sizes.finish.value(k, &sums, beside);
                    let place = k.at::<Bf16>(self.arguments.finish.y, at);
                    let value = k.round(value);
                    k.store_whole(place, value);
                }
            };
            if part == 0 {
                body(k);
                continue;
            }
            let inside = self.inside(k, columns[0]);
            k.when(inside, body);
        }
    }

    /// Scales of the weight rows of an output group, as far as there are any.
    fn scales(&self, k: &mut Builder<'c>, group: usize, part: usize, width: u32) -> Vec<F32<'c>> {
        if !self.sizes.scheme.quantizes_activations() {
            return Vec::new();
        }
        let scales = behind(k, self.sizes, self.arguments.weight);
        self.groups(group)
            .into_iter()
            .map(|group| {
                let row = k.add(self.tile.first_packed, self.within);
                let row = k.add_constant(row, GROUP * group as u64 + part as u64);
                let place = k.at::<F32>(scales, row);
                k.load_whole::<F32>(place, width)
            })
            .collect()
    }

    /// The sums of an output group, as f32 with their scales.
    fn scaled(
        &self,
        k: &mut Builder<'c>,
        (group, half, part): (usize, usize, usize),
        row: &Row<'c>,
        scales: &[F32<'c>],
        width: u32,
    ) -> Vec<F32<'c>> {
        let groups = self.groups(group).into_iter().enumerate();
        groups
            .map(|(which, group)| {
                let first = 4 * group + 2 * half + part;
                let sums: Vec<F32<'c>> = (first..first + width as usize)
                    .map(|at| self.tile.sums[at].as_f32(k))
                    .collect();
                let sum = k.vector_of(&sums);
                match (scales.get(which), row.step) {
                    (Some(scale), Some(step)) => {
                        let sum = k.mul(sum, *scale);
                        let steps = k.vector_of(&vec![step; width as usize]);
                        k.mul(sum, steps)
                    }
                    _ => sum,
                }
            })
            .collect()
    }
}
