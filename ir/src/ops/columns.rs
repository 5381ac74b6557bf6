//! `sail.columns`

use crate::op::{Field, Kind, Op, Operands, ShapeError, Stages};
use crate::shape::Type;

/// A run of columns of every row: q, k or v of a joint product.
///
/// | value | shape        | type |
/// |-------|--------------|------|
/// | `x`   | `[…, d]`     | bf16 |
/// | `y`   | `[…, count]` | bf16 |
///
/// Columns `first .. first + count`. Rounding: none, values move.
/// Refuses a run beyond the last column. Source: `qkv.split(…, dim=-1)`.
pub const COLUMNS: Op = Op {
    name: "columns",
    summary: "a run of columns of every row",
    operands: &["x"],
    attributes: &[Field::required("first", Kind::Int), Field::required("count", Kind::Int)],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (rows, width) = operands.rows_and_width("x")?;
    let (first, count) = (operands.size("first")?, operands.size("count")?);
    if count == 0 || first.checked_add(count).is_none_or(|end| end > width) {
        let message = format!("columns {first} and {count} from there on, of {width}");
        return Err(ShapeError::new(message));
    }
    Ok(vec![Type::of_width(rows, count)])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_the_run() {
        check_infer(
            &COLUMNS,
            "tensor<?x64xbf16> {first = 48, count = 16}",
            expect!["tensor<?x16xbf16>"],
        );
    }

    #[test]
    fn refuses_a_run_beyond_the_last_column() {
        check_infer(
            &COLUMNS,
            "tensor<?x64xbf16> {first = 49, count = 16}",
            expect!["error: columns 49 and 16 from there on, of 64"],
        );
    }
}
