//! `sail.linear_bias`

use super::linear::product;
use crate::op::{Op, Operands, ShapeError, equal};
use crate::shape::{Dim, Type};

/// Matrix product with a bias: `y = x · weightᵀ + bias`.
///
/// | value    | shape    | type                        |
/// |----------|----------|-----------------------------|
/// | `x`      | `[…, k]` | bf16                        |
/// | `weight` | `[n, k]` | bf16; packed once quantized |
/// | `bias`   | `[n]`    | bf16                        |
/// | `y`      | `[…, n]` | bf16                        |
///
/// A weight of more than two dimensions (a convolution's) is read as `[n, rest]`.
/// Rounding: accumulated in f32, bias included, then rounded to bf16 once.
/// Source: `torch.nn.functional.linear`, `nn.Conv2d`.
pub const LINEAR_BIAS: Op = Op {
    name: "linear_bias",
    summary: "`y = x · weightᵀ + bias`",
    operands: &["x", "weight", "bias"],
    packed: &["weight"],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (rows, n) = product_and_bias(operands)?;
    Ok(vec![Type::of_width(rows, n)])
}

pub(super) fn product_and_bias(operands: &Operands<'_>) -> Result<(Vec<Dim>, u64), ShapeError> {
    let (rows, n) = product(operands)?;
    equal("`bias` has #", operands.vector("bias")?, "`weight` has # outputs", n)?;
    Ok((rows, n))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn reads_a_convolution_weight_as_rows() {
        check_infer(
            &LINEAR_BIAS,
            "tensor<?x4x12xbf16>, tensor<96x3x2x2xbf16>, tensor<96xbf16>",
            expect!["tensor<?x4x96xbf16>"],
        );
    }

    #[test]
    fn refuses_a_bias_of_another_length() {
        check_infer(
            &LINEAR_BIAS,
            "tensor<?x64xbf16>, tensor<96x64xbf16>, tensor<95xbf16>",
            expect!["error: `bias` has 95, `weight` has 96 outputs"],
        );
    }
}
