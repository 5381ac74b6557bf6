//! `sail.layer_norm`

use super::rms_norm::{EPS, norm_width};
use crate::op::{Op, Operands, ShapeError};
use crate::shape::Type;

/// Layer normalisation of every row, with weight and bias.
///
/// | value    | shape    | type |
/// |----------|----------|------|
/// | `x`      | `[…, d]` | bf16 |
/// | `weight` | `[d]`    | bf16 |
/// | `bias`   | `[d]`    | bf16 |
/// | `y`      | `[…, d]` | bf16 |
///
/// `y = (x - mean) / sqrt(variance + eps) · weight + bias`, the variance over `d`, not `d - 1`.
/// Rounding: f32 inside, rounded to bf16 once. Source: `nn.LayerNorm` of `mlp1.0`.
pub const LAYER_NORM: Op = Op {
    name: "layer_norm",
    summary: "layer norm of every row",
    operands: &["x", "weight", "bias"],
    attributes: &[EPS],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    norm_width(operands, "weight")?;
    norm_width(operands, "bias")?;
    Ok(vec![operands.ty("x").clone()])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn keeps_the_shape() {
        check_infer(
            &LAYER_NORM,
            "tensor<?x4x64xbf16>, tensor<64xbf16>, tensor<64xbf16> {eps = 1e-5}",
            expect!["tensor<?x4x64xbf16>"],
        );
    }

    #[test]
    fn refuses_a_bias_of_another_width() {
        check_infer(
            &LAYER_NORM,
            "tensor<?x4x64xbf16>, tensor<64xbf16>, tensor<32xbf16> {eps = 1e-5}",
            expect!["error: `x` has 64 columns, `bias` has 32"],
        );
    }
}
