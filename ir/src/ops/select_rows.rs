//! `sail.select_rows`

use crate::op::{Op, Operands, ShapeError, fixed};
use crate::shape::Type;

/// The rows of `x` that `index` names.
///
/// | value   | shape    | type |
/// |---------|----------|------|
/// | `x`     | `[t, d]` | bf16 |
/// | `index` | `[o]`    | i32  |
/// | `y`     | `[o, d]` | bf16 |
///
/// Counted like `index`, not like `x`. Rounding: none, values move.
/// Source: the last-position logits of `generate`.
pub const SELECT_ROWS: Op = Op {
    name: "select_rows",
    summary: "the rows that an index names",
    operands: &["x", "index"],
    rows_of: 1,
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let [_, d] = operands.dims("x")?;
    let [o] = operands.indices("index")?;
    Ok(vec![Type::of_width(vec![o], fixed("x", d)?)])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_a_row_per_index() {
        check_infer(
            &SELECT_ROWS,
            "tensor<?x64xbf16>, tensor<?xi32>",
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn refuses_an_index_that_is_not_integer() {
        check_infer(
            &SELECT_ROWS,
            "tensor<?x64xbf16>, tensor<?xbf16>",
            expect!["error: `index` is `tensor<?xbf16>`, expected a tensor of i32"],
        );
    }
}
