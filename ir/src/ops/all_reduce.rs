//! `sail.all_reduce`

use crate::op::{Field, Kind, Op, Operands, ShapeError};
use crate::shape::Type;

/// Sum of a value over the ranks that share `axis`; the value itself while there is one rank.
///
/// | value | shape    | type |
/// |-------|----------|------|
/// | `x`   | `[…, d]` | bf16 |
/// | `y`   | `[…, d]` | bf16 |
///
/// Rounding: summed in f32 in ascending rank, rounded to bf16 once. Source: tensor parallelism as
/// in Megatron-LM (row-parallel products).
pub const ALL_REDUCE: Op = Op {
    name: "all_reduce",
    summary: "sum over ranks",
    operands: &["x"],
    attributes: &[Field::required("axis", Kind::Text)],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    operands.activation("x")?;
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
            &ALL_REDUCE,
            r#"tensor<?x64xbf16> {axis = "width"}"#,
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn refuses_indices() {
        check_infer(
            &ALL_REDUCE,
            r#"tensor<?x64xi32> {axis = "width"}"#,
            expect!["error: `x` is `tensor<?x64xi32>`, expected a tensor of bf16"],
        );
    }
}
