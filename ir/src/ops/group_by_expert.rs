//! `sail.group_by_expert`

use crate::dtype::DType;
use crate::op::{Field, Kind, Op, Operands, ShapeError, Stages};
use crate::shape::Type;

/// Sort the (row, choice) pairs by expert, so that every expert's rows stand together.
///
/// | value    | shape    | type                                                   |
/// |----------|----------|--------------------------------------------------------|
/// | `ids`    | `[t, k]` | i32                                                    |
/// | `order`  | `[t, k]` | i32: pair `t·k + j` of sorted row `r`, at flat place `r` |
/// | `place`  | `[t, k]` | i32: sorted row of pair `t·k + j`, at its own place    |
/// | `starts` | `[x + 1]`| i32: expert `i` has sorted rows `starts[i]..starts[i+1]` |
///
/// Stable: by expert, then by pair. Rounding: none, integers.
/// Source: the loop over experts of `Qwen3MoeSparseMoeBlock`, as one sort.
pub const GROUP_BY_EXPERT: Op = Op {
    name: "group_by_expert",
    summary: "rows sorted by expert",
    operands: &["ids"],
    attributes: &[Field::required("experts", Kind::Int)],
    results: &["order", "place", "starts"],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let [_, _] = operands.indices("ids")?;
    let experts = operands.size("experts")?;
    if experts == 0 {
        return Err(ShapeError::new("`experts` is 0, there is nothing to group by"));
    }
    let pairs = operands.ty("ids").clone();
    Ok(vec![pairs.clone(), pairs, Type::fixed(&[experts + 1], DType::I32)])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_order_place_and_starts() {
        check_infer(
            &GROUP_BY_EXPERT,
            "tensor<?x2xi32> {experts = 8}",
            expect!["tensor<?x2xi32>, tensor<?x2xi32>, tensor<9xi32>"],
        );
    }

    #[test]
    fn refuses_no_experts() {
        check_infer(
            &GROUP_BY_EXPERT,
            "tensor<?x2xi32> {experts = 0}",
            expect!["error: `experts` is 0, there is nothing to group by"],
        );
    }
}
