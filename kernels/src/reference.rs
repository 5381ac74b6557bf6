//! Scalar twins: what every op means, in f64 on plain slices. Clarity only, never made faster.
//!
//! Two readers. The eager interpreter of the tests computes whole models with them at
//! [`Rounding::Exact`]; the numerics suite holds each kernel against its twin at
//! [`Rounding::Bf16`]. Where a fused op rounds at the same places as its parts it is their
//! composition; where it keeps a value in f32 that its parts would round, its doc says so.
//!
//! All matrices are row-major. Token rows are [`Row`]s.

mod attention;
mod experts;
mod norm;
mod pointwise;
mod product;
mod rows;
mod sample;
mod vision;

pub use attention::{
    Cache, Heads, QkNormRope, attention, attention_int8, attention_int8_by_integers, cache_write,
    qk_norm_rope_write, rope, rope_table, tile_attention,
};
pub use experts::{
    Groups, Mixture, Routed, combine, combine_add, experts, group_by_expert, grouped_gate_up_silu,
    grouped_linear, linear_route, norm_linear_route_group, route,
};
pub use norm::{LayerNorm, head_norm, layer_norm, rms_norm};
pub use pointwise::{add, add_positions, gelu, mul, silu};
pub use product::{
    float8_rows, gate_up_silu, linear, linear_add, linear_bias, linear_bias_gelu,
    norm_gate_up_silu, norm_linear, quantized_rows,
};
pub use rows::{all_reduce, columns, embed, select_rows, splice, tap};
pub use sample::{choose_token, draw_token};
pub use vision::{
    PatchEmbed, Picture, patch_embed, patches, pixel_shuffle, shuffle_norm_linear_gelu,
};

/// Where a token stands: slot, position.
pub type Row = [i32; 2];

/// Whether an op's declared rounding points round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// Nowhere: what the mathematics says.
    Exact,
    /// To bf16, to nearest, ties to even, at the places each twin's doc names.
    Bf16,
}

impl Rounding {
    /// `value` after one rounding point.
    #[must_use]
    pub fn round(self, value: f64) -> f64 {
        match self {
            Self::Exact => value,
            Self::Bf16 => to_bf16(value),
        }
    }

    /// Every value after one rounding point.
    #[must_use]
    fn all(self, mut values: Vec<f64>) -> Vec<f64> {
        for value in &mut values {
            *value = self.round(*value);
        }
        values
    }
}

/// The nearest bf16 value, ties to even; directly from f64, so that nothing is rounded twice.
fn to_bf16(value: f64) -> f64 {
    const SMALLEST_NORMAL: f64 = 1.175_494_350_822_287_5e-38; // 2^-126
    const STEP_BELOW_IT: f64 = 9.183_549_615_799_121e-41; // 2^-133
    const DROPPED_BITS: u32 = 52 - 7;
    if !value.is_finite() {
        return value;
    }
    if value.abs() < SMALLEST_NORMAL {
        return (value / STEP_BELOW_IT).round_ties_even() * STEP_BELOW_IT;
    }
    let bits = value.to_bits();
    let half_less_one = (1 << (DROPPED_BITS - 1)) - 1;
    let odd = (bits >> DROPPED_BITS) & 1;
    let rounded = f64::from_bits((bits + half_less_one + odd) >> DROPPED_BITS << DROPPED_BITS);
    if rounded.abs() >= 2f64.powi(128) { f64::INFINITY.copysign(value) } else { rounded }
}

/// Number of rows of `x` when each has `width` values.
///
/// # Panics
///
/// When `x` is not whole rows: the caller's shapes disagree.
fn rows_of(x: &[f64], width: usize) -> usize {
    assert!(
        width > 0 && x.len().is_multiple_of(width),
        "{} values are no rows of {width}",
        x.len()
    );
    x.len() / width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_bf16_goes_to_the_nearest_and_ties_to_even() {
        let round = |v| Rounding::Bf16.round(v);
        assert_eq!(round(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(round(1.0 + 3.0 / 256.0), 1.0 + 4.0 / 256.0);
        assert_eq!(round(1.0 + 1.0 / 256.0 + 1e-12), 1.0 + 2.0 / 256.0);
        assert_eq!(round(-255.75), -256.0);
        assert_eq!(round(3.4e38), f64::INFINITY);
        assert_eq!(round(3.39e38), f64::from(half::bf16::MAX));
        assert_eq!(round(1e-45), 0.0);
        assert_eq!(Rounding::Exact.round(1.0 + 1e-12), 1.0 + 1e-12);
    }

    #[test]
    fn every_bf16_value_rounds_to_itself() {
        for bits in 0..=u16::MAX {
            let value = f64::from(half::bf16::from_bits(bits));
            assert!(value.is_nan() || to_bf16(value) == value, "{bits:04x}");
        }
    }
}
