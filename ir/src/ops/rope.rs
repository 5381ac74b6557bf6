//! `sail.rope`

use crate::op::{Field, Kind, Op, Operands, ShapeError, equal, fixed};
use crate::shape::Type;

/// Rotate every head by the angles of its row's position.
///
/// | value   | shape      | type                                       |
/// |---------|------------|--------------------------------------------|
/// | `x`     | `[t, h·e]` | bf16                                       |
/// | `rows`  | `[t, 2]`   | i32, (slot, position)                      |
/// | `table` | `[m, e]`   | bf16, `sail.table`; from stage `kernels` on|
/// | `y`     | `[t, h·e]` | bf16                                       |
///
/// Rotate-half form: `y_i = x_i·cos_i - x_(i+e/2)·sin_i`, `y_(i+e/2) = x_(i+e/2)·cos_i + x_i·sin_i`.
/// Rounding: cosines and sines to bf16 first, each product to bf16, the sum to bf16.
/// Source: `apply_rotary_pos_emb` of Qwen3.
pub const ROPE: Op = Op {
    name: "rope",
    summary: "rotate-half RoPE of every head",
    operands: &["x", "rows"],
    lowered: &["table"],
    attributes: &[HEAD_DIM, THETA],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let [_, width] = operands.dims("x")?;
    let (width, head) = (fixed("x", width)?, even_head_dim(operands)?);
    if !width.is_multiple_of(head) {
        return Err(ShapeError::new(format!("{width} columns are not whole heads of {head}")));
    }
    slots_and_positions(operands)?;
    rope_table(operands)?;
    Ok(vec![operands.ty("x").clone()])
}

pub(super) const HEAD_DIM: Field = Field::required("head_dim", Kind::Int);
pub(super) const THETA: Field = Field::required("theta", Kind::Float);

/// The attribute `head_dim`; refuses an odd one, which has no halves to rotate.
pub(super) fn even_head_dim(operands: &Operands<'_>) -> Result<u64, ShapeError> {
    match operands.size("head_dim")? {
        head if head > 0 && head.is_multiple_of(2) => Ok(head),
        head => Err(ShapeError::new(format!("`head_dim` is {head}, expected an even size"))),
    }
}

/// Refuses `rows` that are not pairs.
pub(super) fn slots_and_positions(operands: &Operands<'_>) -> Result<(), ShapeError> {
    let [_, pair] = operands.indices("rows")?;
    equal("`rows` has # columns", fixed("rows", pair)?, "(slot, position) has #", 2)
}

/// Refuses a table whose rows are not as long as a head; before `kernels` there is none.
pub(super) fn rope_table(operands: &Operands<'_>) -> Result<(), ShapeError> {
    if !operands.is_lowered() {
        return Ok(());
    }
    let [_, width] = operands.dims("table")?;
    equal("`table` has # columns", fixed("table", width)?, "`head_dim` is #", operands.size("head_dim")?)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn keeps_the_shape() {
        check_infer(
            &ROPE,
            "tensor<?x64xbf16>, tensor<?x2xi32> {head_dim = 16, theta = 1e6}",
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn takes_a_table_once_lowered() {
        check_infer(
            &ROPE,
            "tensor<?x64xbf16>, tensor<?x2xi32>, tensor<40x16xbf16> {head_dim = 16, theta = 1e6}",
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn refuses_an_odd_head() {
        check_infer(
            &ROPE,
            "tensor<?x60xbf16>, tensor<?x2xi32> {head_dim = 15, theta = 1e6}",
            expect!["error: `head_dim` is 15, expected an even size"],
        );
    }
}
