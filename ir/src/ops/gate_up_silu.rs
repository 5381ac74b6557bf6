//! `sail.gate_up_silu`

use super::linear::product;
use crate::op::{Op, Operands, ShapeError, Stages};
use crate::shape::Type;

/// The gated input of a feed-forward: `y = silu(gate x) · up x`.
///
/// | value     | shape     | type                                                        |
/// |-----------|-----------|-------------------------------------------------------------|
/// | `x`       | `[…, d]`  | bf16                                                        |
/// | `weight`  | `[2f, d]` | bf16; packed once quantized; gate and up joined `interleave`|
/// | `y`       | `[…, f]`  | bf16                                                        |
///
/// Rounding: gate and up are accumulated in f32 and not rounded; SiLU and product in f32, `y`
/// rounded to bf16 once. The single ops round four times. Source: `Qwen3MLP`, `SAILViT` `mlp`.
pub const GATE_UP_SILU: Op = Op {
    name: "gate_up_silu",
    summary: "`silu(gate x) · up x`",
    operands: &["x", "weight"],
    packed: &["weight"],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (rows, both) = product(operands)?;
    Ok(vec![Type::of_width(rows, half(both)?)])
}

/// Rows of gate, which are as many as those of up; refuses an odd number of both.
pub(super) fn half(both: u64) -> Result<u64, ShapeError> {
    if !both.is_multiple_of(2) {
        return Err(ShapeError::new(format!("`weight` has {both} rows, not as many gates as ups")));
    }
    Ok(both / 2)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_half_of_the_rows_of_the_weight() {
        check_infer(
            &GATE_UP_SILU,
            "tensor<?x64xbf16>, tensor<192x64xbf16>",
            expect!["tensor<?x96xbf16>"],
        );
    }

    #[test]
    fn refuses_an_odd_number_of_rows() {
        check_infer(
            &GATE_UP_SILU,
            "tensor<?x64xbf16>, tensor<191x64xbf16>",
            expect!["error: `weight` has 191 rows, not as many gates as ups"],
        );
    }
}
