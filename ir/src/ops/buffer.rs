//! `sail.buffer`

use crate::op::{Field, Kind, Op, Operands, ShapeError, Stages};
use crate::shape::Type;

/// A run of bytes of a planned function, by the name steps use for it.
///
/// No operands, no results: from stage `plan` on, memory is addressed, values are gone. `bytes` and
/// `offset` are affine in the rows `r` of the size class: `4096*r+512`. `place` is `arena`,
/// `weight N`, `cache LAYER`, `control FIELD`, `port PORT`, `tap NAME` or `choice LAYER of
/// EXPERTS`; only the arena has an `offset`. Rounding: none. Source: `plan::Buffer`.
pub const BUFFER: Op = Op {
    name: "buffer",
    summary: "a run of bytes that steps read and write",
    attributes: &[
        Field::required("name", Kind::Text),
        Field::required("type", Kind::Text),
        Field::required("place", Kind::Text),
        Field::required("bytes", Kind::Text),
        Field::optional("offset", Kind::Text),
    ],
    results: &[],
    legal_in: Stages::PLAN,
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let place = operands.text("place")?;
    let has_offset = operands.attributes.contains_key("offset");
    if has_offset != (place == "arena") {
        let what = if has_offset { "an `offset`" } else { "no `offset`" };
        return Err(ShapeError::new(format!("a buffer at `{place}` has {what}")));
    }
    Ok(vec![])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn an_arena_buffer_has_an_offset() {
        check_infer(
            &BUFFER,
            r#" {name = "x", type = "tensor<?x64xbf16>", place = "arena", bytes = "128*r", offset = "0"}"#,
            expect![],
        );
    }

    #[test]
    fn refuses_an_arena_buffer_without_one() {
        check_infer(
            &BUFFER,
            r#" {name = "x", type = "tensor<?x64xbf16>", place = "arena", bytes = "128*r"}"#,
            expect!["error: a buffer at `arena` has no `offset`"],
        );
    }
}
