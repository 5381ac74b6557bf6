//! `sail.grouped_linear`

use super::grouped_gate_up_silu::runs;
use crate::op::{Op, Operands, ShapeError, Stages, equal, fixed};
use crate::shape::Type;

/// A product of every sorted row with its expert's weight.
///
/// | value    | shape       | type                           |
/// |----------|-------------|--------------------------------|
/// | `x`      | `[t, k, f]` | bf16, rows in sorted order     |
/// | `starts` | `[x + 1]`   | i32, of `sail.group_by_expert` |
/// | `weight` | `[x, d, f]` | bf16; packed once quantized    |
/// | `y`      | `[t, k, d]` | bf16, rows in sorted order     |
///
/// Rounding: that of `sail.linear`. Source: `down_proj` of every expert.
pub const GROUPED_LINEAR: Op = Op {
    name: "grouped_linear",
    summary: "a product, each row with its expert's weight",
    operands: &["x", "starts", "weight"],
    packed: &["weight"],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let [t, k, f] = operands.dims("x")?;
    let [experts, d, inner] = operands.weight("weight")?;
    equal("`x` has # columns", fixed("x", f)?, "`weight` has #", inner)?;
    runs(operands, experts)?;
    Ok(vec![Type::of_width(vec![t, k], d)])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn keeps_the_rows() {
        check_infer(
            &GROUPED_LINEAR,
            "tensor<?x2x24xbf16>, tensor<9xi32>, tensor<8x64x24xbf16>",
            expect!["tensor<?x2x64xbf16>"],
        );
    }

    #[test]
    fn refuses_unequal_inner_sizes() {
        check_infer(
            &GROUPED_LINEAR,
            "tensor<?x2x24xbf16>, tensor<9xi32>, tensor<8x24x64xbf16>",
            expect!["error: `x` has 24 columns, `weight` has 64"],
        );
    }
}
