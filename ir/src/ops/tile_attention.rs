//! `sail.tile_attention`

use crate::op::{Field, Kind, Op, Operands, ShapeError, fixed};
use crate::shape::Type;

/// Attention of every patch to every patch of its own image tile.
///
/// | value | shape            | type |
/// |-------|------------------|------|
/// | `qkv` | `[n, p, 3·h·e]`  | bf16, all queries, then all keys, then all values |
/// | `y`   | `[n, p, h·e]`    | bf16 |
///
/// Scale `e^-0.5`, no mask; tiles do not see each other. Rounding: scores and softmax in f32, the
/// weights rounded to bf16 before they meet the values, sums in f32, `y` rounded to bf16 once.
/// Source: `Attention` in `modeling_sailvit.py`, `scaled_dot_product_attention`.
pub const TILE_ATTENTION: Op = Op {
    name: "tile_attention",
    summary: "attention among the patches of a tile",
    operands: &["qkv"],
    attributes: &[Field::required("heads", Kind::Int)],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let [n, p, width] = operands.dims("qkv")?;
    let (width, heads) = (fixed("qkv", width)?, operands.size("heads")?);
    if heads == 0 || !width.is_multiple_of(3 * heads) {
        return Err(ShapeError::new(format!("{width} columns are not q, k and v of {heads} heads")));
    }
    Ok(vec![Type::of_width(vec![n, p], width / 3)])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_a_third_of_the_columns() {
        check_infer(
            &TILE_ATTENTION,
            "tensor<?x4x96xbf16> {heads = 2}",
            expect!["tensor<?x4x32xbf16>"],
        );
    }

    #[test]
    fn refuses_columns_that_are_not_three_times_the_heads() {
        check_infer(
            &TILE_ATTENTION,
            "tensor<?x4x64xbf16> {heads = 2}",
            expect!["error: 64 columns are not q, k and v of 2 heads"],
        );
    }
}
