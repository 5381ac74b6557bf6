//! The left side of products: words of weight rows out of shared memory, unpacked in registers.

use super::super::tile::place_of_unit;
use super::super::weight::expanded;
use super::{Mixed, WARPS, WEIGHT_STEP};
use crate::emit::gpu::Matrices;
use crate::emit::{Builder, I32, Index, Ptr};

/// A left side of one instruction: 16 weight rows of this warp by 32 bytes of x.
pub(super) type Left<'c> = [I32<'c>; 4];

/// Instructions whose left sides one `ldmatrix` holds.
pub(super) const UNITS: usize = 2;

/// Where this thread finds the words of its warp's rows in a stage.
#[derive(Clone, Copy)]
pub(super) struct Fragments<'c> {
    shape: Mixed,
    /// What its thread gives `ldmatrix` for the first two units of 16 bytes of a row, and for the others.
    rows: [Index<'c>; 2],
    /// The words of this thread's rows, the first of a pair that is 8 rows apart.
    words: Index<'c>,
}

impl<'c> Fragments<'c> {
    pub fn new(k: &mut Builder<'c>, shape: Mixed) -> Self {
        let first = first_row(k, shape);
        let [row, half] = k.matrix_row(false);
        let row = k.add(row, first);
        let rows = [0, UNITS as u64].map(|unit| {
            let unit = k.add_constant(half, unit);
            let place = place_of_unit(k, row, unit, WEIGHT_STEP);
            k.add_constant(place, shape.right_bytes())
        });
        let lane = k.lane_id();
        let row = k.div_constant(lane, 4);
        let row = k.add(row, first);
        let words = k.mul_constant(row, 4);
        let words = k.add_constant(words, shape.words());
        Self { shape, rows, words }
    }

    /// The left sides of half `half` of a step: for each part of the warpgroup's weight rows, those of
    /// [`UNITS`] instructions. `zeros` are the zero points of rows g and g + 8.
    pub fn half(
        &self,
        k: &mut Builder<'c>,
        (stage, half): (Ptr<'c>, usize),
        zeros: Option<[I32<'c>; 2]>,
    ) -> Vec<Left<'c>> {
        let stage = k.at_bytes(stage, self.rows[half]);
        let mut all = Vec::new();
        for part in 0..u64::from(self.shape.parts()) {
            let rows = k.at_bytes_constant(stage, WEIGHT_STEP * 16 * part);
            // Rows g, then g + 8 of the first unit, then of the second.
            let words = k.load_matrices(rows, Matrices::Four, false);
            for words in words.chunks_exact(2) {
                let [g, below] = [0, 1].map(|row| {
                    let zero = zeros.map(|zeros| zeros[row]);
                    expanded(k, self.shape.scheme, words[row], zero)
                });
                all.push([g[0], below[0], g[1], below[1]]);
            }
        }
        all
    }

    /// The words of the group that a step is, of rows g and g + 8.
    pub fn words(&self, k: &mut Builder<'c>, stage: Ptr<'c>) -> [I32<'c>; 2] {
        let place = k.at_bytes(stage, self.words);
        [0, 8].map(|row| {
            let place = k.at_bytes_constant(place, 4 * row);
            k.load_whole::<I32>(place, 1)
        })
    }
}

/// The first weight row of this warp in the tile.
pub(super) fn first_row<'c>(k: &mut Builder<'c>, shape: Mixed) -> Index<'c> {
    let warp = k.warp();
    let warp = k.rem_constant(warp, u64::from(WARPS * shape.along_weight()));
    k.mul_constant(warp, shape.of_warp().into())
}

/// The first row of x of this thread's warpgroup in the tile.
pub(super) fn first_of_x<'c>(k: &mut Builder<'c>, shape: Mixed) -> Index<'c> {
    let warp = k.warp();
    let group = k.div_constant(warp, u64::from(WARPS * shape.along_weight()));
    k.mul_constant(group, shape.own_rows().into())
}
