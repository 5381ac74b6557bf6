//! `sail.norm_gate_up_silu`

use super::gate_up_silu::half;
use super::linear::product;
use super::rms_norm::{EPS, norm_width};
use crate::op::{Op, Operands, ShapeError, Stages};
use crate::shape::Type;

/// RMS norm of every row, then the gated input of a feed-forward.
///
/// | value    | shape     | type                                                        |
/// |----------|-----------|-------------------------------------------------------------|
/// | `x`      | `[…, d]`  | bf16                                                        |
/// | `norm`   | `[d]`     | bf16                                                        |
/// | `weight` | `[2f, d]` | bf16; packed once quantized; gate and up joined `interleave`|
/// | `y`      | `[…, f]`  | bf16                                                        |
///
/// Rounding: that of `sail.rms_norm` (twice), then of `sail.gate_up_silu`.
/// Source: `post_attention_layernorm` and `Qwen3MLP`; `norm_2` and `mlp` of the ViT.
pub const NORM_GATE_UP_SILU: Op = Op {
    name: "norm_gate_up_silu",
    summary: "RMS norm, then `silu(gate x) · up x`",
    operands: &["x", "norm", "weight"],
    packed: &["weight"],
    attributes: &[EPS],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    norm_width(operands, "norm")?;
    let (rows, both) = product(operands)?;
    Ok(vec![Type::of_width(rows, half(both)?)])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_half_of_the_rows_of_the_weight() {
        check_infer(
            &NORM_GATE_UP_SILU,
            "tensor<?x64xbf16>, tensor<64xbf16>, tensor<192x64xbf16> {eps = 1e-6}",
            expect!["tensor<?x96xbf16>"],
        );
    }

    #[test]
    fn refuses_a_norm_of_another_width() {
        check_infer(
            &NORM_GATE_UP_SILU,
            "tensor<?x64xbf16>, tensor<32xbf16>, tensor<192x64xbf16> {eps = 1e-6}",
            expect!["error: `x` has 64 columns, `norm` has 32"],
        );
    }
}
