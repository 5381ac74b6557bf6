//! `sail.combine_add`

use super::combine::combined;
use crate::op::{Op, Operands, ShapeError, Stages};
use crate::shape::Type;

/// The weighted sum of a row's experts, added to a residual.
///
/// | value      | shape       | type                           |
/// |------------|-------------|--------------------------------|
/// | `x`        | `[t, k, d]` | bf16, rows in sorted order     |
/// | `place`    | `[t, k]`    | i32, of `sail.group_by_expert` |
/// | `weights`  | `[t, k]`    | bf16                           |
/// | `residual` | `[t, d]`    | bf16                           |
/// | `y`        | `[t, d]`    | bf16                           |
///
/// `residual` + `sail.combine`. Rounding: all in f32, rounded to bf16 once.
/// Source: `Qwen3MoeDecoderLayer`.
pub const COMBINE_ADD: Op = Op {
    name: "combine_add",
    summary: "weighted sum of each row's experts, plus a residual",
    operands: &["x", "place", "weights", "residual"],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let y = combined(operands)?;
    if operands.ty("residual") != &y {
        let found = operands.ty("residual");
        return Err(ShapeError::new(format!("`residual` is `{found}`, the sum is `{y}`")));
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
            &COMBINE_ADD,
            "tensor<?x2x64xbf16>, tensor<?x2xi32>, tensor<?x2xbf16>, tensor<?x64xbf16>",
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn refuses_a_residual_of_another_width() {
        check_infer(
            &COMBINE_ADD,
            "tensor<?x2x64xbf16>, tensor<?x2xi32>, tensor<?x2xbf16>, tensor<?x32xbf16>",
            expect!["error: `residual` is `tensor<?x32xbf16>`, the sum is `tensor<?x64xbf16>`"],
        );
    }
}
