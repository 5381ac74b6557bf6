//! `sail.gelu`

use crate::op::{Op, Operands, ShapeError};
use crate::shape::Type;

/// The exact GELU, `x/2 · (1 + erf(x/√2))`, element by element; not the tanh form.
///
/// | value | shape    | type |
/// |-------|----------|------|
/// | `x`   | `[…, d]` | bf16 |
/// | `y`   | `[…, d]` | bf16 |
///
/// Rounding: f32 inside, rounded to bf16 once. Source: `nn.GELU()` of `mlp1.2`.
pub const GELU: Op = Op {
    name: "gelu",
    summary: "exact GELU, with erf",
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
            &GELU,
            "tensor<?x64xbf16>",
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn refuses_indices() {
        check_infer(
            &GELU,
            "tensor<?x64xi32>",
            expect!["error: `x` is `tensor<?x64xi32>`, expected a tensor of bf16"],
        );
    }
}
