//! `sail.linear_add`

use super::linear::product;
use crate::op::{Op, Operands, ShapeError, Stages};
use crate::shape::Type;

/// A product added to a residual: `y = residual + x · weightᵀ`.
///
/// | value      | shape    | type                        |
/// |------------|----------|-----------------------------|
/// | `x`        | `[…, k]` | bf16                        |
/// | `weight`   | `[n, k]` | bf16; packed once quantized |
/// | `residual` | `[…, n]` | bf16                        |
/// | `y`        | `[…, n]` | bf16                        |
///
/// Rounding: accumulated in f32, residual included, then rounded to bf16 once; the single ops round
/// the product as well. Source: the second half of every block.
pub const LINEAR_ADD: Op = Op {
    name: "linear_add",
    summary: "`residual + x · weightᵀ`",
    operands: &["x", "weight", "residual"],
    packed: &["weight"],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (rows, n) = product(operands)?;
    let y = Type::of_width(rows, n);
    if operands.ty("residual") != &y {
        let found = operands.ty("residual");
        return Err(ShapeError::new(format!("`residual` is `{found}`, the product is `{y}`")));
    }
    Ok(vec![y])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn has_the_shape_of_the_residual() {
        check_infer(
            &LINEAR_ADD,
            "tensor<?x64xbf16>, tensor<96x64xbf16>, tensor<?x96xbf16>",
            expect!["tensor<?x96xbf16>"],
        );
    }

    #[test]
    fn refuses_a_residual_of_another_width() {
        check_infer(
            &LINEAR_ADD,
            "tensor<?x64xbf16>, tensor<96x64xbf16>, tensor<?x64xbf16>",
            expect!["error: `residual` is `tensor<?x64xbf16>`, the product is `tensor<?x96xbf16>`"],
        );
    }
}
