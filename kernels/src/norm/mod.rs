//! Normalisations of rows. Statistics in f32, in an order fixed by the width alone.
//!
//! Floor: 4 bytes a value (one read, one written); a row is read twice, the second time from the
//! nearest cache.

pub mod layer_norm;
pub mod nvptx;
pub mod rms_norm;

pub use layer_norm::LayerNorm;
pub use rms_norm::RmsNorm;

use crate::emit::{Builder, F32, Piece, Ptr};

/// Rows of one work item of the kernels here.
const ROWS_PER_BLOCK: u32 = 16;

/// `1 / sqrt(mean + eps)` of the square of each value that `value` gives for the pieces of a row
/// of `width`; lanes beyond the row's end must be 0.
pub(crate) fn inverse_deviation<'c>(
    k: &mut Builder<'c>,
    width: u32,
    eps: f64,
    value: impl Fn(&mut Builder<'c>, Piece<'c>) -> F32<'c>,
) -> F32<'c> {
    let lanes = k.lanes();
    let none = k.f32s(0.0, lanes);
    let squares = k.fold_pieces(u64::from(width), none, |k, piece, sum| {
        let value = value(k, piece);
        k.fma(value, value, sum)
    });
    let sum = k.sum_lanes(squares);
    let count = k.f32(width as f32);
    let mean = k.div(sum, count);
    let eps = k.f32(eps as f32);
    let mean = k.add(mean, eps);
    k.rsqrt(mean)
}

/// `x · rsqrt(mean(x²) + eps)`, rounded, `· weight`, rounded: one row from `x` to `y`.
pub(crate) fn rms_norm_row<'c>(
    k: &mut Builder<'c>,
    [x, weight, y]: [Ptr<'c>; 3],
    width: u32,
    eps: f64,
) {
    let scale = inverse_deviation(k, width, eps, |k, piece| k.read_widened(x, piece));
    k.for_each_piece(u64::from(width), |k, piece| {
        let (x, weight) = (k.read_widened(x, piece), k.read_widened(weight, piece));
        let normal = k.mul(x, scale);
        let normal = k.rounded(normal);
        let scaled = k.mul(normal, weight);
        k.write_rounded(y, piece, scaled);
    });
}
