//! `sail.head_norm`

use super::rms_norm::EPS;
use crate::op::{Op, Operands, ShapeError};
use crate::shape::Type;

/// RMS norm of every head of every row, one weight for all heads.
///
/// | value    | shape      | type |
/// |----------|------------|------|
/// | `x`      | `[t, h·e]` | bf16 |
/// | `weight` | `[e]`      | bf16 |
/// | `y`      | `[t, h·e]` | bf16 |
///
/// Rounding: that of `sail.rms_norm`, twice. Source: `q_norm`, `k_norm` of `Qwen3Attention`.
pub const HEAD_NORM: Op = Op {
    name: "head_norm",
    summary: "RMS norm of every head",
    operands: &["x", "weight"],
    attributes: &[EPS],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (_, width) = operands.rows_and_width("x")?;
    let head = operands.vector("weight")?;
    if head == 0 || !width.is_multiple_of(head) {
        return Err(ShapeError::new(format!("{width} columns are not whole heads of {head}")));
    }
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
            &HEAD_NORM,
            "tensor<?x64xbf16>, tensor<16xbf16> {eps = 1e-6}",
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn refuses_columns_that_are_not_whole_heads() {
        check_infer(
            &HEAD_NORM,
            "tensor<?x64xbf16>, tensor<24xbf16> {eps = 1e-6}",
            expect!["error: 64 columns are not whole heads of 24"],
        );
    }
}
