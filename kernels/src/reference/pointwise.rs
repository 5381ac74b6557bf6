//! Meanings of the ops that work value by value.

use super::Rounding;

/// `x + y`, one rounding.
#[must_use]
pub fn add(x: &[f64], y: &[f64], rounding: Rounding) -> Vec<f64> {
    assert_eq!(x.len(), y.len(), "both have one shape");
    x.iter().zip(y).map(|(x, y)| rounding.round(x + y)).collect()
}

/// `[n, p, d] + [p, d]`, the same positions for every tile; one rounding.
#[must_use]
pub fn add_positions(x: &[f64], positions: &[f64], rounding: Rounding) -> Vec<f64> {
    super::rows_of(x, positions.len());
    x.chunks_exact(positions.len()).flat_map(|tile| add(tile, positions, rounding)).collect()
}

/// `x · y` value by value, one rounding.
#[must_use]
pub fn mul(x: &[f64], y: &[f64], rounding: Rounding) -> Vec<f64> {
    assert_eq!(x.len(), y.len(), "both have one shape");
    x.iter().zip(y).map(|(x, y)| rounding.round(x * y)).collect()
}

/// `x / (1 + exp(-x))`, one rounding.
#[must_use]
pub fn silu(x: &[f64], rounding: Rounding) -> Vec<f64> {
    x.iter().map(|&x| rounding.round(silu_of(x))).collect()
}

pub(super) fn silu_of(x: f64) -> f64 {
    x / (1.0 + libm::exp(-x))
}

/// `x / 2 · (1 + erf(x / √2))`, the exact form; one rounding.
#[must_use]
pub fn gelu(x: &[f64], rounding: Rounding) -> Vec<f64> {
    x.iter().map(|&x| rounding.round(gelu_of(x))).collect()
}

pub(super) fn gelu_of(x: f64) -> f64 {
    // erfc keeps the small values of the left side, where 1 + erf would cancel.
    0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, want: f64) -> bool {
        (got - want).abs() <= 1e-12
    }

    #[test]
    fn sums_and_products_go_value_by_value_and_round_once() {
        assert_eq!(add(&[1.0, 2.0], &[0.5, -2.0], Rounding::Exact), [1.5, 0.0]);
        assert_eq!(add(&[256.0], &[1.0], Rounding::Bf16), [256.0]);
        assert_eq!(mul(&[3.0, -2.0], &[0.5, 4.0], Rounding::Exact), [1.5, -8.0]);
        assert_eq!(mul(&[1.0078125], &[1.0078125], Rounding::Bf16), [1.015625]);
    }

    #[test]
    fn every_tile_gets_the_same_positions() {
        let x = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(add_positions(&x, &[10.0, 20.0], Rounding::Exact), [11.0, 22.0, 13.0, 24.0]);
    }

    #[test]
    fn silu_is_x_times_its_logistic() {
        let y = silu(&[0.0, 1.0, -1.0, 40.0, -1000.0], Rounding::Exact);
        assert!(near(y[1], 0.731_058_578_630_004_9) && near(y[2], -0.268_941_421_369_995_1));
        assert!(y[0] == 0.0 && near(y[3], 40.0) && y[4] == 0.0);
    }

    #[test]
    fn gelu_is_the_exact_one() {
        let y = gelu(&[0.0, 1.0, -1.0, 9.0, -3.0], Rounding::Exact);
        assert!(near(y[1], 0.841_344_746_068_543) && near(y[2], -0.158_655_253_931_457));
        assert!(y[0] == 0.0 && near(y[3], 9.0) && near(y[4], -0.004_049_694_095_283_62));
    }
}
