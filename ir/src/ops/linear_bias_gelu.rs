//! `sail.linear_bias_gelu`

use super::linear_bias::product_and_bias;
use crate::op::{Op, Operands, ShapeError, Stages};
use crate::shape::Type;

/// A product with bias, then the exact GELU.
///
/// | value    | shape    | type                        |
/// |----------|----------|-----------------------------|
/// | `x`      | `[…, k]` | bf16                        |
/// | `weight` | `[n, k]` | bf16; packed once quantized |
/// | `bias`   | `[n]`    | bf16                        |
/// | `y`      | `[…, n]` | bf16                        |
///
/// Rounding: f32 from the product to the GELU, rounded to bf16 once; the single ops round twice.
/// Source: `mlp1.1` and `mlp1.2`.
pub const LINEAR_BIAS_GELU: Op = Op {
    name: "linear_bias_gelu",
    summary: "`gelu(x · weightᵀ + bias)`",
    operands: &["x", "weight", "bias"],
    packed: &["weight"],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (rows, n) = product_and_bias(operands)?;
    Ok(vec![Type::of_width(rows, n)])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn takes_the_rows_of_x_and_of_the_weight() {
        check_infer(
            &LINEAR_BIAS_GELU,
            "tensor<?x4x64xbf16>, tensor<96x64xbf16>, tensor<96xbf16>",
            expect!["tensor<?x4x96xbf16>"],
        );
    }

    #[test]
    fn refuses_a_bias_of_another_length() {
        check_infer(
            &LINEAR_BIAS_GELU,
            "tensor<?x4x64xbf16>, tensor<96x64xbf16>, tensor<64xbf16>",
            expect!["error: `bias` has 64, `weight` has 96 outputs"],
        );
    }
}
