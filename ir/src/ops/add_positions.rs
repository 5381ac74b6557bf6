//! `sail.add_positions`

use crate::op::{Op, Operands, ShapeError, fixed};
use crate::shape::{Dim, Type};

/// Add the learned position of every patch; the same for every image tile.
///
/// | value       | shape                    | type |
/// |-------------|--------------------------|------|
/// | `x`         | `[n, p, d]`              | bf16 |
/// | `positions` | `[p, d]` or `[1, p, d]`  | bf16 |
/// | `y`         | `[n, p, d]`              | bf16 |
///
/// Rounding: the sum in f32, rounded to bf16 once. Source: `pos_embed` in `modeling_sailvit.py`.
pub const ADD_POSITIONS: Op = Op {
    name: "add_positions",
    summary: "a learned position added to every patch",
    operands: &["x", "positions"],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let [_, p, d] = operands.dims("x")?;
    positions(operands, fixed("x", p)?, fixed("x", d)?)?;
    Ok(vec![operands.ty("x").clone()])
}

/// Refuses an operand `positions` that is not `[p, d]` or `[1, p, d]`.
pub(super) fn positions(operands: &Operands<'_>, p: u64, d: u64) -> Result<(), ShapeError> {
    let expected = [Dim::Fixed(p), Dim::Fixed(d)];
    match operands.activation("positions")?.as_slice() {
        [Dim::Fixed(1), rest @ ..] if rest == expected => Ok(()),
        dims if dims == expected => Ok(()),
        _ => Err(ShapeError::new(format!(
            "`positions` is `{}`, expected {p} positions of {d}",
            operands.ty("positions")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn keeps_the_shape() {
        check_infer(
            &ADD_POSITIONS,
            "tensor<?x4x64xbf16>, tensor<1x4x64xbf16>",
            expect!["tensor<?x4x64xbf16>"],
        );
    }

    #[test]
    fn refuses_another_number_of_positions() {
        check_infer(
            &ADD_POSITIONS,
            "tensor<?x4x64xbf16>, tensor<9x64xbf16>",
            expect!["error: `positions` is `tensor<9x64xbf16>`, expected 4 positions of 64"],
        );
    }
}
