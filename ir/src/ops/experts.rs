//! `sail.experts`

use crate::op::{Op, Operands, ShapeError, Stages, equal, fixed, same_type};
use crate::shape::Type;

/// The weighted sum of the chosen experts' feed-forwards.
///
/// | value     | shape       | type                        |
/// |-----------|-------------|-----------------------------|
/// | `x`       | `[t, d]`    | bf16                        |
/// | `ids`     | `[t, k]`    | i32                         |
/// | `weights` | `[t, k]`    | bf16                        |
/// | `gate`    | `[x, f, d]` | bf16; packed once quantized |
/// | `up`      | `[x, f, d]` | bf16; packed once quantized |
/// | `down`    | `[x, d, f]` | bf16; packed once quantized |
/// | `y`       | `[t, d]`    | bf16                        |
///
/// `y = Σ weight · down(silu(gate x) · up x)`. Rounding: every intermediate to bf16 as the single
/// ops do; added to a bf16 zero in ascending expert id, rounding at each addition.
/// Not in stage `kernels`: `lower` groups rows by expert. Source: `Qwen3MoeSparseMoeBlock`.
pub const EXPERTS: Op = Op {
    name: "experts",
    summary: "weighted sum of the chosen experts",
    operands: &["x", "ids", "weights", "gate", "up", "down"],
    packed: &["gate", "up", "down"],
    legal_in: Stages::GRAPH.and(Stages::FUSED).and(Stages::PACKED),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (_, d) = operands.rows_and_width("x")?;
    let [_, k] = operands.indices("ids")?;
    let [_, weights] = operands.dims("weights")?;
    equal("`ids` has # columns", fixed("ids", k)?, "`weights` has #", fixed("weights", weights)?)?;
    same_type(operands, "gate", "up")?;
    let [experts, f, inner] = operands.weight("gate")?;
    equal("`x` has # columns", d, "`gate` has #", inner)?;
    let down = operands.weight::<3>("down")?;
    if down != [experts, d, f] {
        return Err(ShapeError::new(format!("`down` is {down:?}, expected {:?}", [experts, d, f])));
    }
    Ok(vec![operands.ty("x").clone()])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn keeps_the_shape() {
        check_infer(
            &EXPERTS,
            "tensor<?x64xbf16>, tensor<?x2xi32>, tensor<?x2xbf16>, tensor<8x24x64xbf16>, tensor<8x24x64xbf16>, tensor<8x64x24xbf16>",
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn refuses_a_transposed_down_weight() {
        check_infer(
            &EXPERTS,
            "tensor<?x64xbf16>, tensor<?x2xi32>, tensor<?x2xbf16>, tensor<8x24x64xbf16>, tensor<8x24x64xbf16>, tensor<8x24x64xbf16>",
            expect!["error: `down` is [8, 24, 64], expected [8, 64, 24]"],
        );
    }
}
