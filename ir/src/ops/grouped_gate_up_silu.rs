//! `sail.grouped_gate_up_silu`

use super::gate_up_silu::half;
use crate::op::{Op, Operands, ShapeError, Stages, equal, fixed};
use crate::shape::Type;

/// Gather the rows of every expert and give each its expert's gated input.
///
/// | value    | shape        | type                                                   |
/// |----------|--------------|--------------------------------------------------------|
/// | `x`      | `[t, d]`     | bf16                                                   |
/// | `order`  | `[t, k]`     | i32, of `sail.group_by_expert`                         |
/// | `starts` | `[x + 1]`    | i32, of `sail.group_by_expert`                         |
/// | `weight` | `[x, 2f, d]` | bf16; packed once quantized; joined `stack_interleave` |
/// | `y`      | `[t, k, f]`  | bf16, rows in sorted order                             |
///
/// Sorted row `r` is `silu(gate x_i) · up x_i` with `i = order[r] / k` and the expert whose run
/// holds `r`. Rounding: that of `sail.gate_up_silu`. Source: `Qwen3MoeMLP` of every expert.
pub const GROUPED_GATE_UP_SILU: Op = Op {
    name: "grouped_gate_up_silu",
    summary: "`silu(gate x) · up x`, each row with its expert's weight",
    operands: &["x", "order", "starts", "weight"],
    packed: &["weight"],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (_, d) = operands.rows_and_width("x")?;
    let [t, k] = operands.indices("order")?;
    let [experts, both, inner] = operands.weight("weight")?;
    equal("`x` has # columns", d, "`weight` has #", inner)?;
    runs(operands, experts)?;
    Ok(vec![Type::of_width(vec![t, k], half(both)?)])
}

/// Refuses `starts` that are not those of `experts` experts.
pub(super) fn runs(operands: &Operands<'_>, experts: u64) -> Result<(), ShapeError> {
    let [starts] = operands.indices("starts")?;
    equal("`starts` has # places", fixed("starts", starts)?, "the experts need #", experts + 1)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_a_row_per_choice() {
        check_infer(
            &GROUPED_GATE_UP_SILU,
            "tensor<?x64xbf16>, tensor<?x2xi32>, tensor<9xi32>, tensor<8x48x64xbf16>",
            expect!["tensor<?x2x24xbf16>"],
        );
    }

    #[test]
    fn refuses_starts_of_another_number_of_experts() {
        check_infer(
            &GROUPED_GATE_UP_SILU,
            "tensor<?x64xbf16>, tensor<?x2xi32>, tensor<8xi32>, tensor<8x48x64xbf16>",
            expect!["error: `starts` has 8 places, the experts need 9"],
        );
    }
}
