//! `sail.embed`

use crate::op::{Op, Operands, ShapeError, fixed};
use crate::shape::Type;

/// Rows of the embedding table.
///
/// | value   | shape    | type                |
/// |---------|----------|---------------------|
/// | `ids`   | `[t]`    | i32                 |
/// | `table` | `[v, d]` | bf16, never packed  |
/// | `y`     | `[t, d]` | bf16                |
///
/// Rounding: none, values move. Ids are below `v`: the caller checks. Source: `nn.Embedding`.
pub const EMBED: Op = Op {
    name: "embed",
    summary: "rows of the embedding table",
    operands: &["ids", "table"],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let [t] = operands.indices("ids")?;
    let [_, d] = operands.dims("table")?;
    Ok(vec![Type::of_width(vec![t], fixed("table", d)?)])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_a_row_per_id() {
        check_infer(
            &EMBED,
            "tensor<?xi32>, tensor<300x64xbf16>",
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn refuses_ids_that_are_not_integers() {
        check_infer(
            &EMBED,
            "tensor<?xbf16>, tensor<300x64xbf16>",
            expect!["error: `ids` is `tensor<?xbf16>`, expected a tensor of i32"],
        );
    }
}
