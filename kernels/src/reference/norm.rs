//! Meanings of the normalisations.

use super::{Rounding, rows_of};

/// Root-mean-square normalisation of every row: `x · rsqrt(mean(x²) + eps) · weight`.
///
/// `x` is `[rows, weight.len()]`; the result has its shape. Rounds twice, after normalising and
/// after the weight, because the model casts back before it multiplies.
#[must_use]
pub fn rms_norm(x: &[f64], weight: &[f64], eps: f64, rounding: Rounding) -> Vec<f64> {
    rows_of(x, weight.len());
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weight.len()) {
        let sum: f64 = row.iter().map(|v| v * v).sum();
        let scale = 1.0 / (sum / row.len() as f64 + eps).sqrt();
        for (v, w) in row.iter().zip(weight) {
            y.push(rounding.round(rounding.round(v * scale) * w));
        }
    }
    y
}

/// [`rms_norm`] of every head: `x` is `[t, h·e]`, `weight` is `[e]`. Rounds as it does.
#[must_use]
pub fn head_norm(x: &[f64], weight: &[f64], eps: f64, rounding: Rounding) -> Vec<f64> {
    rms_norm(x, weight, eps, rounding)
}

/// The parameters of [`layer_norm`]; both `[d]`.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    pub weight: &'a [f64],
    pub bias: &'a [f64],
    pub eps: f64,
}

/// Layer normalisation of every row: mean taken away, divided by the deviation, `· weight + bias`.
///
/// `x` is `[rows, d]`; the result has its shape. Rounds once, at the end.
#[must_use]
pub fn layer_norm(x: &[f64], norm: &LayerNorm<'_>, rounding: Rounding) -> Vec<f64> {
    let LayerNorm { weight, bias, eps } = *norm;
    assert_eq!(weight.len(), bias.len(), "weight and bias have one width");
    rows_of(x, weight.len());
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weight.len()) {
        let width = row.len() as f64;
        let mean = row.iter().sum::<f64>() / width;
        let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / width;
        let scale = 1.0 / (variance + eps).sqrt();
        for ((v, w), b) in row.iter().zip(weight).zip(bias) {
            y.push(rounding.round((v - mean) * scale * w + b));
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rms_norm_divides_by_the_root_of_the_mean_square() {
        // mean square of (3, 4, 0, 0) is 25/4
        let y = rms_norm(&[3.0, 4.0, 0.0, 0.0], &[1.0, 2.0, 1.0, 1.0], 0.0, Rounding::Exact);
        assert!((y[0] - 1.2).abs() < 1e-15 && (y[1] - 3.2).abs() < 1e-15 && y[2..] == [0.0, 0.0]);
        // with eps: 25/4 + 11/4 = 9
        let y = rms_norm(&[3.0, 4.0, 0.0, 0.0], &[1.0; 4], 2.75, Rounding::Exact);
        assert!((y[0] - 1.0).abs() < 1e-15 && (y[1] - 4.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn rms_norm_rounds_before_the_weight_and_after() {
        // 1.2 rounds to 1.203125 first, and 3 · 1.203125 = 3.609375 to 3.609375
        let y = rms_norm(&[3.0, 4.0, 0.0, 0.0], &[3.0; 4], 0.0, Rounding::Bf16);
        assert_eq!(y[0], 3.609375);
        // 1.6 rounds to 1.6015625, 3 · 1.6015625 = 4.8046875 to 4.8125
        assert_eq!(y[1], 4.8125);
    }

    #[test]
    fn head_norm_normalises_each_head_by_itself() {
        let y = head_norm(&[1.0, 1.0, 5.0, -5.0], &[1.0, 2.0], 0.0, Rounding::Exact);
        assert_eq!(y, [1.0, 2.0, 1.0, -2.0]);
    }

    #[test]
    fn layer_norm_takes_the_mean_away_and_divides_by_the_deviation() {
        let norm = LayerNorm { weight: &[1.0, 2.0], bias: &[0.5, 0.0], eps: 0.0 };
        assert_eq!(layer_norm(&[7.0, 3.0], &norm, Rounding::Exact), [1.5, -2.0]);
        let norm = LayerNorm { weight: &[1.0, 1.0], bias: &[0.0, 0.0], eps: 12.0 };
        assert_eq!(layer_norm(&[7.0, 3.0], &norm, Rounding::Exact), [0.5, -0.5]);
    }
}
