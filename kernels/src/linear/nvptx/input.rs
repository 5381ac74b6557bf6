//! The rows of a product of few rows, from memory to the operands of matrix instructions: as they
//! are, normalised, in integers.

use sail_ir::scheme::Scheme;

use super::few::Rows;
use super::measure::Statistics;
use super::weight::values_per_unit;
use crate::emit::gpu::piece_width;
use crate::emit::{Bf16, Builder, F32, I32, Index, Ptr};
use crate::linear::Prologue;
use crate::packing::fp8;

/// What is done to the rows.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    pub k: u32,
    pub scheme: Scheme,
    pub prologue: Prologue,
}

/// A row of x as a thread reads it.
pub struct Place<'c> {
    pub row: Ptr<'c>,
    scale: Option<F32<'c>>,
    inverse: Option<F32<'c>>,
}

impl Input {
    #[must_use]
    pub fn has_norm(&self) -> bool {
        matches!(self.prologue, Prologue::RmsNorm { .. })
    }

    pub(super) fn quantizes(&self) -> bool {
        self.scheme.quantizes_activations()
    }

    pub(super) fn row<'c>(&self, k: &mut Builder<'c>, rows: Rows<'c>, row: Index<'c>) -> Ptr<'c> {
        let row = rows.of_x(k, row);
        let first = k.mul_constant(row, self.k.into());
        k.at::<Bf16>(rows.x, first)
    }

    /// A row of the block as this thread reads it: the last one where there are fewer.
    pub fn open<'c>(
        &self,
        k: &mut Builder<'c>,
        rows: Rows<'c>,
        statistics: Statistics<'c>,
        row: Index<'c>,
    ) -> Place<'c> {
        let last = k.sub_constant(rows.count, 1);
        let row = k.min(row, last);
        let mut statistic = |which| {
            let place = statistics.at(k, row, which);
            k.load::<F32>(place, 1)
        };
        let scale = self.has_norm().then(|| statistic(0));
        let inverse = self.quantizes().then(|| statistic(1));
        Place { row: self.row(k, rows, row), scale, inverse }
    }

    /// The values that meet 16 bytes of a weight row, from `element` on, in eights; zeros beyond the
    /// row where it is `ragged`.
    pub fn values<'c>(
        &self,
        k: &mut Builder<'c>,
        row: Ptr<'c>,
        element: Index<'c>,
        ragged: bool,
    ) -> Vec<Bf16<'c>> {
        let width = piece_width(self.k.into());
        let eights = values_per_unit(self.scheme) / 8;
        (0..eights)
            .map(|eight| {
                let pieces: Vec<_> = (0..8 / u64::from(width))
                    .map(|piece| {
                        let element = k.add_constant(element, 8 * eight + piece * u64::from(width));
                        self.piece(k, row, element, width, ragged)
                    })
                    .collect();
                if let [all] = pieces[..] {
                    return all;
                }
                let single: Vec<_> =
                    pieces.into_iter().flat_map(|piece| k.lanes_of(piece)).collect();
                k.vector_of(&single)
            })
            .collect()
    }

    pub(super) fn piece<'c>(
        &self,
        k: &mut Builder<'c>,
        row: Ptr<'c>,
        element: Index<'c>,
        width: u32,
        ragged: bool,
    ) -> Bf16<'c> {
        let place = k.at::<Bf16>(row, element);
        if !ragged {
            return k.load_whole::<Bf16>(place, width);
        }
        let end = k.index(self.k.into());
        let has = k.less(element, end);
        let load = |k: &mut Builder<'c>| k.load_whole::<Bf16>(place, width);
        k.choose(has, load, |k| {
            let zeros = k.f32s(0.0, width);
            k.round(zeros)
        })
    }

    /// The words that values become in matrix instructions.
    pub fn operand<'c>(
        &self,
        k: &mut Builder<'c>,
        place: &Place<'c>,
        values: &[Bf16<'c>],
        norm: Option<&Vec<Bf16<'c>>>,
    ) -> Vec<I32<'c>> {
        let mut words = Vec::new();
        for (at, values) in values.iter().enumerate() {
            let norm = norm.map(|norm| norm[at]);
            let Some(inverse) = place.inverse else {
                let values = match place.scale.zip(norm) {
                    None => *values,
                    scaled => {
                        let values = normalised(k, *values, scaled);
                        k.round(values)
                    }
                };
                let pairs = k.as_pairs(values);
                words.extend(k.lanes_of(pairs));
                continue;
            };
            let values = normalised(k, *values, place.scale.zip(norm));
            words.extend(quantized(k, self.scheme, values, inverse));
        }
        words
    }
}

/// Who stores rows: part `share` of `of`.
#[derive(Clone, Copy)]
pub struct Share<'c> {
    pub share: Index<'c>,
    pub of: u32,
}

impl Input {
    /// Store rows, normed by `norm`, as rows of `to`. All threads of the block come here after the rows
    /// were measured, and store what is their block's share.
    pub fn store_normed<'c>(
        &self,
        k: &mut Builder<'c>,
        (rows, to): (Rows<'c>, Ptr<'c>),
        norm: Ptr<'c>,
        statistics: Statistics<'c>,
        Share { share, of }: Share<'c>,
    ) {
        let width = piece_width(self.k.into());
        let pieces = u64::from(self.k / width);
        let threads = k.threads();
        let (thread, before) = (k.thread(), k.mul_constant(share, threads.into()));
        let (first, end) = (k.add(thread, before), k.mul_constant(rows.count, pieces));
        k.for_each(first, end, u64::from(threads * of), |k, at| {
            let (row, piece) = (k.div_constant(at, pieces), k.rem_constant(at, pieces));
            let place = self.open(k, rows, statistics, row);
            let element = k.mul_constant(piece, width.into());
            let [x, norm] = [place.row, norm].map(|row| self.piece(k, row, element, width, false));
            let value = normalised(k, x, place.scale.map(|scale| (scale, norm)));
            let row = rows.of_x(k, row);
            let start = k.mul_constant(row, self.k.into());
            let to = k.at::<Bf16>(to, start);
            let to = k.at::<Bf16>(to, element);
            let value = k.round(value);
            k.store_whole(to, value);
        });
    }
}

/// Values times a norm's scale and weight, rounded after each, or as they are.
pub(super) fn normalised<'c>(
    k: &mut Builder<'c>,
    values: Bf16<'c>,
    scaled: Option<(F32<'c>, Bf16<'c>)>,
) -> F32<'c> {
    let values = k.widen(values);
    let Some((scale, weight)) = scaled else { return values };
    let values = k.mul(values, scale);
    let values = k.rounded(values);
    let weight = k.widen(weight);
    let values = k.mul(values, weight);
    k.rounded(values)
}

/// How many steps 1 has, and the size of one, where the greatest magnitude is `most`.
pub(crate) fn steps<'c>(k: &mut Builder<'c>, scheme: Scheme, most: F32<'c>) -> [F32<'c>; 2] {
    let limit = if scheme == Scheme::Fp8 { fp8::MOST } else { 127.0 };
    let (zero, limit) = (k.f32(0.0), k.f32(limit));
    let inverse = k.div(limit, most);
    let nothing = k.less_equal(most, zero);
    let inverse = k.select(nothing, zero, inverse);
    [inverse, k.div(most, limit)]
}

/// Values as the nearest whole numbers of steps, or floats of 8 bits, four in a word.
pub(crate) fn quantized<'c>(
    k: &mut Builder<'c>,
    scheme: Scheme,
    values: F32<'c>,
    inverse: F32<'c>,
) -> Vec<I32<'c>> {
    let values = k.mul(values, inverse);
    if scheme == Scheme::Fp8 {
        let values = k.lanes_of(values);
        let fours = values.chunks_exact(4);
        return fours.map(|four| k.e4m3_of([four[0], four[1], four[2], four[3]])).collect();
    }
    let bytes: Vec<_> =
        k.lanes_of(values).into_iter().map(|value| k.round_to_byte(value)).collect();
    bytes
        .chunks_exact(4)
        .map(|four| {
            // Low bytes of two words, then of two such pairs.
            let [low, high] = [[0, 1], [2, 3]].map(|[a, b]| k.pick_bytes(four[a], four[b], 0x0040));
            k.pick_bytes(low, high, 0x5410)
        })
        .collect()
}
