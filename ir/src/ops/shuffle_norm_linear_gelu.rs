//! `sail.shuffle_norm_linear_gelu`

use super::pixel_shuffle::shuffled;
use super::rms_norm::EPS;
use crate::op::{Op, Operands, ShapeError, Stages, equal};
use crate::shape::Type;

/// The adapter up to its first activation: pixel shuffle, layer norm, product with bias, GELU.
///
/// | value       | shape         | type                        |
/// |-------------|---------------|-----------------------------|
/// | `x`         | `[n, p, d]`   | bf16                        |
/// | `ln_weight` | `[4d]`        | bf16                        |
/// | `ln_bias`   | `[4d]`        | bf16                        |
/// | `weight`    | `[m, 4d]`     | bf16; packed once quantized |
/// | `bias`      | `[m]`         | bf16                        |
/// | `y`         | `[n, p/4, m]` | bf16                        |
///
/// Rounding: the normalised row to bf16 once as in `sail.layer_norm`, then that of
/// `sail.linear_bias_gelu`. Source: `pixel_shuffle` and `mlp1.0` to `mlp1.2`, `modeling_sailvl.py`.
pub const SHUFFLE_NORM_LINEAR_GELU: Op = Op {
    name: "shuffle_norm_linear_gelu",
    summary: "pixel shuffle, layer norm, product, bias, GELU",
    operands: &["x", "ln_weight", "ln_bias", "weight", "bias"],
    packed: &["weight"],
    attributes: &[EPS],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (rows, width) = shuffled(operands)?;
    for name in ["ln_weight", "ln_bias"] {
        equal("a shuffled row has #", width, &format!("`{name}` has #"), operands.vector(name)?)?;
    }
    let [m, inner] = operands.weight_matrix("weight")?;
    equal("a shuffled row has #", width, "a row of `weight` has #", inner)?;
    equal("`bias` has #", operands.vector("bias")?, "`weight` has # outputs", m)?;
    Ok(vec![Type::of_width(rows, m)])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_a_quarter_of_the_rows() {
        check_infer(
            &SHUFFLE_NORM_LINEAR_GELU,
            "tensor<?x16x8xbf16>, tensor<32xbf16>, tensor<32xbf16>, tensor<96x32xbf16>, tensor<96xbf16> {eps = 1e-5}",
            expect!["tensor<?x4x96xbf16>"],
        );
    }

    #[test]
    fn refuses_a_norm_of_the_width_before_the_shuffle() {
        check_infer(
            &SHUFFLE_NORM_LINEAR_GELU,
            "tensor<?x16x8xbf16>, tensor<8xbf16>, tensor<8xbf16>, tensor<96x32xbf16>, tensor<96xbf16> {eps = 1e-5}",
            expect!["error: a shuffled row has 32, `ln_weight` has 8"],
        );
    }
}
