//! What follows the sums: a thread has those of neighbouring rows of x, y has neighbouring outputs side
//! by side. A warp finishes its sums in registers, turns the rounded outputs around on their way to
//! shared memory (`stmatrix`), and stores them 16 bytes a thread.
//!
//! Outputs of 64 rows of x are on their way together. What is added to them (a residual) comes there
//! first, the same way back. With gate and up in alternating groups of eight, both sums of an output are
//! the same thread's.

use super::super::direct::Tile;
use super::super::finish::{Beside, GROUP};
use super::super::quantize::QuantizedRows;
use super::super::tile::place_of_unit;
use super::super::{Arguments, Sizes, behind};
use super::Mixed;
use super::fragments::{first_of_x, first_row};
use crate::emit::gpu::{Matrices, WARP};
use crate::emit::{Bf16, Builder, F32, I32, Index, Ptr};

/// Rows of x whose outputs are staged together.
pub(super) const TOGETHER: u32 = 64;

/// Bytes of a group of neighbouring outputs.
const UNIT: u64 = 2 * GROUP;

/// Matrices that one instruction moves.
const MATRICES: u32 = 4;

/// Finish and store the outputs of a tile, whose sums are as [`super::multiply`] deals them; `staged` is
/// room for those of all warps.
pub(crate) fn finish<'c>(
    k: &mut Builder<'c>,
    (shape, sizes): (Mixed, &Sizes),
    tile: Tile<'c, '_, F32<'c>>,
    arguments: &Arguments<'c>,
    staged: Ptr<'c>,
) {
    let warp = k.warp();
    let room = k.mul_constant(warp, shape.staged_bytes_of_warp(sizes));
    let staged = k.at_bytes(staged, room);
    let of_warp = first_row(k, shape);
    let row = k.add(of_warp, tile.first);
    let packed = k.add(of_warp, tile.first_packed);
    let output = k.div_constant(row, sizes.finish.sums().into());
    let above = first_of_x(k, shape);
    let outputs =
        Outputs { shape, sizes, tile, arguments, staged, rows: [row, packed], output, above };
    let beside = outputs.beside(k);
    let own_rows = outputs.own_rows();
    for first in (0..own_rows).step_by(TOGETHER as usize) {
        let rows = RowRun { first, count: TOGETHER.min(own_rows - first) };
        outputs.bring_residual(k, rows);
        outputs.stage(k, rows, &beside);
        outputs.store(k, rows);
    }
}

/// Some rows of x of a warpgroup.
#[derive(Clone, Copy)]
struct RowRun {
    first: u32,
    count: u32,
}

/// What sums of the thread's weight rows are finished with: for each part of the warpgroup's rows, of
/// rows g and g + 8, twice for two neighbouring rows of x.
struct OfRows<'c> {
    scales: Option<Vec<[F32<'c>; 2]>>,
    bias: Option<Vec<[Bf16<'c>; 2]>>,
}

/// The outputs of a warp.
struct Outputs<'c, 'a> {
    shape: Mixed,
    sizes: &'a Sizes,
    tile: Tile<'c, 'a, F32<'c>>,
    arguments: &'a Arguments<'c>,
    staged: Ptr<'c>,
    /// Its first weight row, among those that a row of y needs and among all that are packed.
    rows: [Index<'c>; 2],
    /// Its first output.
    output: Index<'c>,
    /// Rows of x in the tile before those of the warpgroup.
    above: Index<'c>,
}

impl<'c> Outputs<'c, '_> {
    /// Rows of x that the warpgroup has sums of.
    fn own_rows(&self) -> u32 {
        self.tile.sums.len() as u32 * 2 / self.shape.parts()
    }

    /// Groups of outputs of a row.
    fn units(&self) -> u32 {
        self.shape.of_warp() / self.sizes.finish.sums() / GROUP as u32
    }

    fn gated(&self) -> bool {
        self.sizes.finish.sums() == 2
    }

    /// What `read` gives for each of this thread's weight rows, of which the warp's `first` is the first,
    /// or for the last of `count` in place of those that are not there.
    fn of_rows<T>(
        &self,
        k: &mut Builder<'c>,
        (first, count): (Index<'c>, u64),
        read: impl Fn(&mut Builder<'c>, Index<'c>) -> T,
    ) -> Vec<[T; 2]> {
        let lane = k.lane_id();
        let row = k.div_constant(lane, 4);
        let row = k.add(row, first);
        let last = k.index(count - 1);
        let parts = 0..u64::from(self.shape.parts());
        parts
            .map(|part| {
                [0, 8].map(|half| {
                    let row = k.add_constant(row, 16 * part + half);
                    let row = k.min(row, last);
                    read(k, row)
                })
            })
            .collect()
    }

    fn beside(&self, k: &mut Builder<'c>) -> OfRows<'c> {
        let groups = self.sizes.scheme.quantizes_activations();
        let [row, packed] = self.rows;
        let scales = (!groups).then(|| {
            let scales = behind(k, self.sizes, self.arguments.weight);
            self.of_rows(k, (packed, self.sizes.packed_rows()), |k, row| {
                let place = k.at::<F32>(scales, row);
                let scale = k.load_whole::<F32>(place, 1);
                k.splat(scale, 2)
            })
        });
        let bias = self.arguments.finish.bias.map(|bias| {
            self.of_rows(k, (row, self.sizes.n.into()), |k, row| {
                let place = k.at::<Bf16>(bias, row);
                let bias = k.load_whole::<Bf16>(place, 1);
                k.splat(bias, 2)
            })
        });
        OfRows { scales, bias }
    }

    /// Row `row` of those of y, or the last one that there is.
    fn of_y(&self, k: &mut Builder<'c>, row: Index<'c>) -> Index<'c> {
        let row = k.add(row, self.above);
        let last = k.sub_constant(self.tile.rows, 1);
        let row = k.min(row, last);
        k.add(row, self.tile.first_row)
    }

    /// Where a group of outputs of a row is staged; groups are swapped by the number of the row.
    fn place(&self, k: &mut Builder<'c>, row: Index<'c>, unit: Index<'c>) -> Ptr<'c> {
        let place = place_of_unit(k, row, unit, UNIT * u64::from(self.units()));
        k.at_bytes(self.staged, place)
    }

    /// The groups that this thread moves between shared memory and that of the device, of `rows` rows:
    /// their rows, and the number of the group.
    fn moved(&self, k: &mut Builder<'c>, rows: RowRun) -> (Vec<Index<'c>>, Index<'c>) {
        let lane = k.lane_id();
        let units = self.units();
        let (row, unit) = (k.div_constant(lane, units.into()), k.rem_constant(lane, units.into()));
        let at_once = WARP / units;
        let rows = (0..rows.count).step_by(at_once as usize);
        (rows.map(|more| k.add_constant(row, more.into())).collect(), unit)
    }

    /// Where a group of outputs of a row stands in `matrix`: of the last group and the last row in place
    /// of those that are not there.
    fn of_matrix(
        &self,
        k: &mut Builder<'c>,
        matrix: Ptr<'c>,
        (row, unit): (Index<'c>, Index<'c>),
    ) -> Ptr<'c> {
        let row = self.of_y(k, row);
        let start = k.mul_constant(row, u64::from(self.sizes.n));
        let column = self.column(k, unit);
        let last = k.index(u64::from(self.sizes.n) - GROUP);
        let column = k.min(column, last);
        let at = k.add(start, column);
        k.at::<Bf16>(matrix, at)
    }

    /// The first output of a group.
    fn column(&self, k: &mut Builder<'c>, unit: Index<'c>) -> Index<'c> {
        let first = k.mul_constant(unit, GROUP);
        k.add(first, self.output)
    }

    /// Bring what is added to the outputs of `rows`, if something is, where these will be staged, which
    /// is where the last ones were. A thread puts it where it read those itself. Without, the warp must
    /// meet; before the first ones of a tile it has done so to give back a stage.
    fn bring_residual(&self, k: &mut Builder<'c>, rows: RowRun) {
        let Some(residual) = self.arguments.finish.residual else {
            if rows.first > 0 {
                k.warp_barrier();
            }
            return;
        };
        let (places, unit) = self.moved(k, rows);
        let read: Vec<I32<'c>> = places
            .iter()
            .map(|row| {
                let row = k.add_constant(*row, rows.first.into());
                let from = self.of_matrix(k, residual, (row, unit));
                k.load_whole::<I32>(from, 4)
            })
            .collect();
        for (row, words) in places.iter().zip(read) {
            let place = self.place(k, *row, unit);
            k.store_whole(place, words);
        }
        k.warp_barrier();
    }

    /// What the steps of the integers of `rows` are worth, for this thread's pairs of them.
    fn steps(&self, k: &mut Builder<'c>, rows: RowRun) -> Option<Vec<F32<'c>>> {
        if !self.sizes.scheme.quantizes_activations() {
            return None;
        }
        let lane = k.lane_id();
        let row = k.rem_constant(lane, 4);
        let row = k.mul_constant(row, 2);
        let row = k.add_constant(row, rows.first.into());
        let eights = (0..rows.count).step_by(8);
        let steps = eights.map(|eight| {
            let pair = [0, 1].map(|second| {
                let row = k.add_constant(row, u64::from(eight + second));
                let row = self.of_y(k, row);
                let row = self.tile.order.map_or(row, |order| order.of(k, row));
                QuantizedRows { k: self.sizes.k }.step(k, self.arguments.x, row)
            });
            k.vector_of(&pair)
        });
        Some(steps.collect())
    }

    /// Finish the outputs of `rows` and lay them out in shared memory.
    fn stage(&self, k: &mut Builder<'c>, rows: RowRun, of_rows: &OfRows<'c>) {
        let steps = self.steps(k, rows);
        let lane = k.lane_id();
        let (matrix, row) = (k.div_constant(lane, 8), k.rem_constant(lane, 8));
        // Matrices are rows g and g + 8 of two eights of rows of x; gated, one of four.
        let halves = 2 / self.sizes.finish.sums();
        let eights = MATRICES / halves;
        let down = k.div_constant(matrix, halves.into());
        let unit = k.rem_constant(matrix, halves.into());
        let down = k.mul_constant(down, 8);
        let row = k.add(row, down);
        for part in 0..self.shape.parts() {
            let unit = k.add_constant(unit, u64::from(halves * part));
            let place = self.place(k, row, unit);
            let places: Vec<(u32, Ptr<'c>)> = (0..rows.count / 8)
                .step_by(eights as usize)
                .map(|eight| {
                    let bytes = 8 * UNIT * u64::from(self.units());
                    (eight, k.at_bytes_constant(place, bytes * u64::from(eight)))
                })
                .collect();
            let residual: Vec<Vec<I32<'c>>> = match self.arguments.finish.residual {
                Some(_) => {
                    let read = places.iter();
                    let read = read.map(|(_, place)| k.load_matrices(*place, Matrices::Four, true));
                    let read = read.collect();
                    k.warp_barrier();
                    read
                }
                None => Vec::new(),
            };
            for (at, (eight, place)) in places.into_iter().enumerate() {
                let words: Vec<I32<'c>> = (0..MATRICES)
                    .map(|matrix| {
                        let (eight, half) = (eight + matrix / halves, matrix % halves);
                        let residual = residual.get(at).map(|words| words[matrix as usize]);
                        let steps = steps.as_ref().map(|steps| steps[eight as usize]);
                        let at = [part, rows.first / 8 + eight, half];
                        self.output(k, at, (of_rows, steps), residual)
                    })
                    .collect();
                k.store_matrices(place, &words, true);
            }
        }
        k.warp_barrier();
    }

    /// Two outputs of neighbouring rows of x, as a pair: of part `part` of the weight rows, eight
    /// `eight` of the rows of x, row g or g + 8; gated, of both.
    fn output(
        &self,
        k: &mut Builder<'c>,
        [part, eight, half]: [u32; 3],
        (of_rows, steps): (&OfRows<'c>, Option<F32<'c>>),
        residual: Option<I32<'c>>,
    ) -> I32<'c> {
        let (part, half) = (part as usize, half as usize);
        let halves = if self.gated() { 0..2 } else { half..half + 1 };
        let first = part * self.own_rows() as usize / 2 + 4 * eight as usize;
        let sums: Vec<F32<'c>> = halves
            .map(|half| {
                let mut sum = k.vector_of(&self.tile.sums[first + 2 * half..][..2]);
                if let Some(scales) = &of_rows.scales {
                    sum = k.mul(sum, scales[part][half]);
                }
                match steps {
                    Some(steps) => k.mul(sum, steps),
                    None => sum,
                }
            })
            .collect();
        let bias = of_rows.bias.as_ref().map(|bias| bias[part][half]);
        let residual = residual.map(|pair| k.as_bf16(pair));
        let value = self.sizes.finish.value(k, &sums, Beside { bias, residual });
        let value = k.round(value);
        k.as_pairs(value)
    }

    /// Store the outputs of `rows` that there are.
    fn store(&self, k: &mut Builder<'c>, rows: RowRun) {
        let (places, unit) = self.moved(k, rows);
        let words: Vec<I32<'c>> = places
            .iter()
            .map(|row| {
                let place = self.place(k, *row, unit);
                k.load_whole::<I32>(place, 4)
            })
            .collect();
        let column = self.column(k, unit);
        let n = k.index(self.sizes.n.into());
        let inside = k.less(column, n);
        k.when(inside, |k| {
            for (row, words) in places.iter().zip(words) {
                let row = k.add_constant(*row, rows.first.into());
                let to = self.of_matrix(k, self.arguments.finish.y, (row, unit));
                let row = k.add(row, self.above);
                let has = k.less(row, self.tile.rows);
                k.when(has, |k| k.store_whole(to, words));
            }
        });
    }
}
