//! `sail.add`

use crate::op::{Op, Operands, ShapeError, same_type};
use crate::shape::Type;

/// Sum of two activations: a residual.
///
/// | value | shape    | type |
/// |-------|----------|------|
/// | `x`   | `[…, d]` | bf16 |
/// | `y`   | `[…, d]` | bf16 |
/// | `z`   | `[…, d]` | bf16 |
///
/// Rounding: x + y in f32, rounded to bf16 once. Refuses unlike types: nothing is broadcast.
/// Source: residual additions of every block.
pub const ADD: Op = Op {
    name: "add",
    summary: "`x + y`, element by element",
    operands: &["x", "y"],
    results: &["z"],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    operands.activation("x")?;
    same_type(operands, "x", "y")?;
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
            &ADD,
            "tensor<?x64xbf16>, tensor<?x64xbf16>",
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn refuses_to_broadcast() {
        check_infer(
            &ADD,
            "tensor<?x64xbf16>, tensor<64xbf16>",
            expect!["error: `x` is `tensor<?x64xbf16>`, `y` is `tensor<64xbf16>`"],
        );
    }
}
