//! `sail.tap`

use crate::op::{Field, Kind, Op, Operands, ShapeError};
use crate::shape::Type;

/// Keep a value for the person who asked; an f32 copy under `name`.
///
/// | value | shape    | type |
/// |-------|----------|------|
/// | `x`   | `[…, d]` | bf16 |
///
/// No result. Only in functions built with taps. A tapped value exists as such: no rule fuses it
/// away. Rounding: none, bf16 fits f32.
/// Source: the names of recorded hidden states: `vit.N`, `layers.N`, `logits`.
pub const TAP: Op = Op {
    name: "tap",
    summary: "an f32 copy of a value, for checking",
    operands: &["x"],
    attributes: &[Field::required("name", Kind::Text)],
    results: &[],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    operands.activation("x")?;
    Ok(vec![])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn has_no_result() {
        check_infer(
            &TAP,
            r#"tensor<?x64xbf16> {name = "vit.0"}"#,
            expect![],
        );
    }

    #[test]
    fn refuses_to_be_nameless() {
        check_infer(
            &TAP,
            "tensor<?x64xbf16>",
            expect!["error: attribute `name` is expected"],
        );
    }
}
