//! Meanings of the products and of what is fused to them.
//!
//! Weights are `[n, k]`, a row per output, as in the checkpoint.

use super::pointwise::{gelu_of, silu_of};
use super::{Rounding, rms_norm, rows_of};
use crate::packing::fp8;

/// `y = x · weightᵀ`: `[rows, k] · [n, k]ᵀ → [rows, n]`, one rounding.
#[must_use]
pub fn linear(x: &[f64], weight: &[f64], k: usize, rounding: Rounding) -> Vec<f64> {
    rounding.all(product(x, weight, k))
}

/// `y = x · weightᵀ + bias`, one rounding. `n` is the bias's length, `k` the rest of the weight.
#[must_use]
pub fn linear_bias(x: &[f64], weight: &[f64], bias: &[f64], rounding: Rounding) -> Vec<f64> {
    rounding.all(product_bias(x, weight, bias))
}

/// `gelu(x · weightᵀ + bias)`; the product stays unrounded, one rounding at the end.
#[must_use]
pub fn linear_bias_gelu(x: &[f64], weight: &[f64], bias: &[f64], rounding: Rounding) -> Vec<f64> {
    product_bias(x, weight, bias).into_iter().map(|v| rounding.round(gelu_of(v))).collect()
}

/// `x · weightᵀ + residual`; the product stays unrounded, one rounding at the end.
#[must_use]
pub fn linear_add(
    x: &[f64],
    weight: &[f64],
    residual: &[f64],
    k: usize,
    rounding: Rounding,
) -> Vec<f64> {
    super::add(&product(x, weight, k), residual, rounding)
}

/// `silu(x · gateᵀ) · (x · upᵀ)`; gate and up stay unrounded, one rounding at the end.
#[must_use]
pub fn gate_up_silu(x: &[f64], gate_up: [&[f64]; 2], k: usize, rounding: Rounding) -> Vec<f64> {
    let [gate, up] = gate_up.map(|weight| product(x, weight, k));
    assert_eq!(gate.len(), up.len(), "gate and up have one shape");
    gate.iter().zip(up).map(|(&gate, up)| rounding.round(silu_of(gate) * up)).collect()
}

/// [`linear`] of [`rms_norm`]; `k` is the norm weight's length.
#[must_use]
pub fn norm_linear(
    x: &[f64],
    norm: &[f64],
    weight: &[f64],
    eps: f64,
    rounding: Rounding,
) -> Vec<f64> {
    linear(&rms_norm(x, norm, eps, rounding), weight, norm.len(), rounding)
}

/// [`gate_up_silu`] of [`rms_norm`]; `k` is the norm weight's length.
#[must_use]
pub fn norm_gate_up_silu(
    x: &[f64],
    norm: &[f64],
    gate_up: [&[f64]; 2],
    eps: f64,
    rounding: Rounding,
) -> Vec<f64> {
    gate_up_silu(&rms_norm(x, norm, eps, rounding), gate_up, norm.len(), rounding)
}

/// The values of rows of `k` as products of a scheme with quantized activations take them: the
/// greatest magnitude of a row becomes 127 steps, all else the nearest whole number of steps.
///
/// The steps are counted in f32, as kernels count them, so that the integers are the same.
#[must_use]
pub fn quantized_rows(x: &[f64], k: usize) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks_exact(k) {
        let greatest = row.iter().fold(0.0_f32, |most, value| most.max((*value as f32).abs()));
        let inverse = if greatest == 0.0 { 0.0 } else { 127.0 / greatest };
        let step = f64::from(greatest / 127.0);
        let integers = row.iter().map(|value| (*value as f32 * inverse).round_ties_even());
        y.extend(integers.map(|integer| f64::from(integer) * step));
    }
    y
}

/// The values of rows of `k` as products of scheme `fp8` take them: the greatest magnitude of a row
/// becomes 448, all else the nearest float of 8 bits, ties to even.
///
/// Scaled in f32, as kernels do it, so that the floats are the same.
#[must_use]
pub fn float8_rows(x: &[f64], k: usize) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks_exact(k) {
        let greatest = row.iter().fold(0.0_f32, |most, value| most.max((*value as f32).abs()));
        let inverse = if greatest == 0.0 { 0.0 } else { fp8::MOST / greatest };
        let step = f64::from(greatest / fp8::MOST);
        let codes = row.iter().map(|value| fp8::nearest(*value as f32 * inverse));
        y.extend(codes.map(|code| f64::from(fp8::value(code)) * step));
    }
    y
}

pub(super) fn product(x: &[f64], weight: &[f64], k: usize) -> Vec<f64> {
    let (rows, n) = (rows_of(x, k), rows_of(weight, k));
    let mut y = Vec::with_capacity(rows * n);
    for row in x.chunks_exact(k) {
        for output in weight.chunks_exact(k) {
            y.push(row.iter().zip(output).map(|(x, w)| x * w).sum());
        }
    }
    y
}

pub(super) fn product_bias(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    assert_eq!(weight.len() % bias.len(), 0, "a bias for every output");
    let mut y = product(x, weight, weight.len() / bias.len());
    for row in y.chunks_exact_mut(bias.len()) {
        for (y, b) in row.iter_mut().zip(bias) {
            *y += b;
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: [f64; 4] = [1.0, 2.0, -3.0, 0.5];
    const WEIGHT: [f64; 6] = [1.0, 0.0, 1.0, 1.0, 2.0, -4.0];

    #[test]
    fn a_product_has_a_row_per_token_and_a_column_per_weight_row() {
        let y = linear(&X, &WEIGHT, 2, Rounding::Exact);
        assert_eq!(y, [1.0, 3.0, -6.0, -3.0, -2.5, -8.0]);
        let y = linear_bias(&X, &WEIGHT, &[0.0, 1.0, 10.0], Rounding::Exact);
        assert_eq!(y, [1.0, 4.0, 4.0, -3.0, -1.5, 2.0]);
        let y = linear_add(&X, &WEIGHT, &[1.0; 6], 2, Rounding::Exact);
        assert_eq!(y, [2.0, 4.0, -5.0, -2.0, -1.5, -7.0]);
    }

    #[test]
    fn fused_products_round_once_at_the_end() {
        // 257 is no bf16 value: rounded before the bias it would give 256 + 1 -> 256
        assert_eq!(linear_bias(&[1.0], &[257.0], &[1.0], Rounding::Bf16), [258.0]);
        assert_eq!(linear_add(&[1.0], &[257.0], &[1.0], 1, Rounding::Bf16), [258.0]);
        assert_eq!(linear(&[1.0], &[257.0], 1, Rounding::Bf16), [256.0]);
        assert_eq!(linear_bias_gelu(&[1.0], &[257.0], &[1.0], Rounding::Bf16), [258.0]);
        // silu(257) · 2.015625 = 518.015625; 256 · 2.015625 would give 516
        let y = gate_up_silu(&[1.0], [&[257.0], &[2.015625]], 1, Rounding::Bf16);
        assert_eq!(y, [520.0]);
    }

    #[test]
    fn gate_and_up_meet_in_silu_times_up() {
        let y = gate_up_silu(&[1.0, 1.0], [&[0.5, 0.5], &[1.0, 3.0]], 2, Rounding::Exact);
        assert!((y[0] - 4.0 * 0.731_058_578_630_004_9).abs() < 1e-12);
    }

    #[test]
    fn a_norm_before_a_product_is_the_composition() {
        let y = norm_linear(&[3.0, 4.0, 0.0, 0.0], &[1.0; 4], &[1.0; 4], 0.0, Rounding::Exact);
        assert!((y[0] - 2.8).abs() < 1e-15);
        let weights: [&[f64]; 2] = [&[0.0; 4], &[1.0; 4]];
        let y = norm_gate_up_silu(&[3.0, 4.0, 0.0, 0.0], &[1.0; 4], weights, 0.0, Rounding::Exact);
        assert_eq!(y, [0.0]);
    }
}
