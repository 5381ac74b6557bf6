//! `sail.silu`

use crate::op::{Op, Operands, ShapeError};
use crate::shape::Type;

/// `x / (1 + exp(-x))`, element by element.
///
/// | value | shape    | type |
/// |-------|----------|------|
/// | `x`   | `[…, d]` | bf16 |
/// | `y`   | `[…, d]` | bf16 |
///
/// Rounding: f32 inside, rounded to bf16 once. Source: `torch.nn.functional.silu`.
pub const SILU: Op = Op {
    name: "silu",
    summary: "`x · sigmoid(x)`",
    operands: &["x"],
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
            &SILU,
            "tensor<?x64xbf16>",
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn refuses_indices() {
        check_infer(
            &SILU,
            "tensor<?x64xi32>",
            expect!["error: `x` is `tensor<?x64xi32>`, expected a tensor of bf16"],
        );
    }
}
