//! `sail.linear_route`

use super::linear::product;
use super::route::{RENORMALIZE, TOP_K, chosen};
use crate::op::{Op, Operands, ShapeError, Stages};
use crate::shape::Type;

/// The router: its product, softmax, top-k and renormalisation.
///
/// | value     | shape    | type                        |
/// |-----------|----------|-----------------------------|
/// | `x`       | `[t, d]` | bf16                        |
/// | `weight`  | `[x, d]` | bf16; packed once quantized |
/// | `ids`     | `[t, k]` | i32, likeliest first        |
/// | `weights` | `[t, k]` | bf16                        |
///
/// As `sail.route` of `sail.linear`. Rounding: logits to bf16, as `sail.linear` rounds them, so that
/// the experts chosen are those that tapped logits choose; the softmax in f32, the weights to bf16
/// once. Source: `Qwen3MoeSparseMoeBlock`.
pub const LINEAR_ROUTE: Op = Op {
    name: "linear_route",
    summary: "router product and choice of experts",
    operands: &["x", "weight"],
    packed: &["weight"],
    attributes: &[TOP_K, RENORMALIZE],
    results: &["ids", "weights"],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (rows, experts) = product(operands)?;
    let [t] = rows.as_slice() else {
        return Err(ShapeError::new("`x` has tiles, a router works on tokens"));
    };
    chosen(operands, *t, experts)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_ids_and_weights() {
        check_infer(
            &LINEAR_ROUTE,
            "tensor<?x64xbf16>, tensor<8x64xbf16> {top_k = 2, renormalize = true}",
            expect!["tensor<?x2xi32>, tensor<?x2xbf16>"],
        );
    }

    #[test]
    fn refuses_to_choose_more_than_there_are() {
        check_infer(
            &LINEAR_ROUTE,
            "tensor<?x64xbf16>, tensor<8x64xbf16> {top_k = 9, renormalize = true}",
            expect!["error: `top_k` is 9, there are 8 experts"],
        );
    }
}
