//! `sail.route`

use crate::dtype::DType;
use crate::op::{Field, Kind, Op, Operands, ShapeError, fixed};
use crate::shape::{Dim, Type};

/// Choose the experts of every row.
///
/// | value     | shape    | type                                |
/// |-----------|----------|-------------------------------------|
/// | `logits`  | `[t, x]` | bf16                                |
/// | `ids`     | `[t, k]` | i32, likeliest first                |
/// | `weights` | `[t, k]` | bf16                                |
///
/// Softmax over all `x` experts, the best `top_k` (the lower id first where two are equal), divided
/// by their sum when `renormalize`. Rounding: all in f32, the weights to bf16 at the end.
/// Refuses a `top_k` above `x`. Source: `Qwen3MoeSparseMoeBlock`.
pub const ROUTE: Op = Op {
    name: "route",
    summary: "the best experts of every row and their weights",
    operands: &["logits"],
    attributes: &[TOP_K, RENORMALIZE],
    results: &["ids", "weights"],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let [t, experts] = operands.dims("logits")?;
    chosen(operands, t, fixed("logits", experts)?)
}

pub(super) const TOP_K: Field = Field::required("top_k", Kind::Int);
pub(super) const RENORMALIZE: Field = Field::required("renormalize", Kind::Bool);

/// Ids and weights of `top_k` of `experts` for each of `t` rows.
pub(super) fn chosen(
    operands: &Operands<'_>,
    t: Dim,
    experts: u64,
) -> Result<Vec<Type>, ShapeError> {
    let top_k = operands.size("top_k")?;
    if top_k == 0 || top_k > experts {
        return Err(ShapeError::new(format!("`top_k` is {top_k}, there are {experts} experts")));
    }
    let dims = vec![t, Dim::Fixed(top_k)];
    Ok(vec![Type::Tensor { dims: dims.clone(), dtype: DType::I32 }, Type::of_width(vec![t], top_k)])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_ids_and_weights() {
        check_infer(
            &ROUTE,
            "tensor<?x8xbf16> {top_k = 2, renormalize = true}",
            expect!["tensor<?x2xi32>, tensor<?x2xbf16>"],
        );
    }

    #[test]
    fn refuses_to_choose_more_than_there_are() {
        check_infer(
            &ROUTE,
            "tensor<?x8xbf16> {top_k = 9, renormalize = true}",
            expect!["error: `top_k` is 9, there are 8 experts"],
        );
    }
}
