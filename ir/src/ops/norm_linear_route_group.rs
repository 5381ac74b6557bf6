//! `sail.norm_linear_route_group`

use super::linear_route::LINEAR_ROUTE;
use super::rms_norm::{EPS, norm_width};
use super::route::{RENORMALIZE, TOP_K};
use crate::dtype::DType;
use crate::op::{Op, Operands, ShapeError, Stages};
use crate::shape::Type;

/// All of a router: RMS norm, product, softmax, top-k and renormalisation, pairs sorted by expert.
///
/// | value     | shape    | type                                                     |
/// |-----------|----------|----------------------------------------------------------|
/// | `x`       | `[t, d]` | bf16                                                     |
/// | `norm`    | `[d]`    | bf16                                                     |
/// | `weight`  | `[x, d]` | bf16; packed once quantized                              |
/// | `ids`     | `[t, k]` | i32, likeliest first                                     |
/// | `weights` | `[t, k]` | bf16                                                     |
/// | `order`   | `[t, k]` | i32, as those of `sail.group_by_expert`                  |
/// | `place`   | `[t, k]` | i32                                                      |
/// | `starts`  | `[x + 1]`| i32                                                      |
/// | `normed`  | `[t, d]` | bf16: the rows that the experts read, too                |
///
/// Rounding: that of `sail.rms_norm`, `sail.linear` and `sail.route`; fusing changes no rounding.
/// Source: `Qwen3MoeSparseMoeBlock` and the norm before it.
pub const NORM_LINEAR_ROUTE_GROUP: Op = Op {
    name: "norm_linear_route_group",
    summary: "RMS norm, router product, choice of experts, rows sorted by them",
    operands: &["x", "norm", "weight"],
    packed: &["weight"],
    attributes: &[EPS, TOP_K, RENORMALIZE],
    results: &["ids", "weights", "order", "place", "starts", "normed"],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    norm_width(operands, "norm")?;
    let mut results = (LINEAR_ROUTE.infer)(operands)?;
    let (_, experts) = super::linear::product(operands)?;
    let pairs = results[0].clone();
    let starts = Type::fixed(&[experts + 1], DType::I32);
    results.extend([pairs.clone(), pairs, starts, operands.ty("x").clone()]);
    Ok(results)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_what_the_router_and_the_experts_need() {
        check_infer(
            &NORM_LINEAR_ROUTE_GROUP,
            "tensor<?x64xbf16>, tensor<64xbf16>, tensor<8x64xbf16> {eps = 1e-6, top_k = 2, renormalize = true}",
            expect![
                "tensor<?x2xi32>, tensor<?x2xbf16>, tensor<?x2xi32>, tensor<?x2xi32>, tensor<9xi32>, tensor<?x64xbf16>"
            ],
        );
    }

    #[test]
    fn refuses_a_norm_of_another_width() {
        check_infer(
            &NORM_LINEAR_ROUTE_GROUP,
            "tensor<?x64xbf16>, tensor<32xbf16>, tensor<8x64xbf16> {eps = 1e-6, top_k = 2, renormalize = true}",
            expect!["error: `x` has 64 columns, `norm` has 32"],
        );
    }

    #[test]
    fn refuses_to_choose_more_than_there_are() {
        check_infer(
            &NORM_LINEAR_ROUTE_GROUP,
            "tensor<?x64xbf16>, tensor<64xbf16>, tensor<8x64xbf16> {eps = 1e-6, top_k = 9, renormalize = true}",
            expect!["error: `top_k` is 9, there are 8 experts"],
        );
    }
}
