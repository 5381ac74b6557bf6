//! `sail.embed`

use crate::op::{Op, Operands, ShapeError};
use crate::shape::Type;

/// Rows of the embedding table.
///
/// | value   | shape    | type                                        |
/// |---------|----------|---------------------------------------------|
/// | `ids`   | `[t]`    | i32                                         |
/// | `table` | `[v, d]` | bf16; packed where it is the head's as well |
/// | `y`     | `[t, d]` | bf16                                        |
///
/// Rounding: none, values move. Ids are below `v`: the caller checks. Source: `nn.Embedding`.
pub const EMBED: Op = Op {
    name: "embed",
    summary: "rows of the embedding table",
    operands: &["ids", "table"],
    moved: &["table"],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let [t] = operands.indices("ids")?;
    let [_, d] = operands.weight("table")?;
    Ok(vec![Type::of_width(vec![t], d)])
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
    fn reads_the_panels_of_the_head() {
        check_infer(
            &EMBED,
            r#"tensor<?xi32>, !sail.packed<[300, 64], "bf16">"#,
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
