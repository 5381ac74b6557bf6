//! `sail.combine`

use crate::op::{Op, Operands, ShapeError, Stages, fixed};
use crate::shape::Type;

/// The weighted sum of a row's experts, taken from their sorted places.
///
/// | value     | shape       | type                           |
/// |-----------|-------------|--------------------------------|
/// | `x`       | `[t, k, d]` | bf16, rows in sorted order     |
/// | `place`   | `[t, k]`    | i32, of `sail.group_by_expert` |
/// | `weights` | `[t, k]`    | bf16                           |
/// | `y`       | `[t, d]`    | bf16                           |
///
/// `y_i = Σ_j weights[i, j] · x[place[i, j]]`, in ascending `place`, that is ascending expert id.
/// Rounding: summed in f32, rounded to bf16 once; `sail.experts` rounds at every step.
/// Source: `index_add_` of `Qwen3MoeSparseMoeBlock`.
pub const COMBINE: Op = Op {
    name: "combine",
    summary: "weighted sum of each row's experts",
    operands: &["x", "place", "weights"],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    Ok(vec![combined(operands)?])
}

/// The type of the sum; refuses choices of unlike number.
pub(super) fn combined(operands: &Operands<'_>) -> Result<Type, ShapeError> {
    let [t, k, d] = operands.dims("x")?;
    let [_, places] = operands.indices("place")?;
    let [_, weights] = operands.dims("weights")?;
    if k != places || k != weights {
        return Err(ShapeError::new(format!(
            "`x` has {k} choices a row, `place` has {places}, `weights` has {weights}"
        )));
    }
    Ok(Type::of_width(vec![t], fixed("x", d)?))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_a_row_per_token() {
        check_infer(
            &COMBINE,
            "tensor<?x2x64xbf16>, tensor<?x2xi32>, tensor<?x2xbf16>",
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn refuses_choices_of_unlike_number() {
        check_infer(
            &COMBINE,
            "tensor<?x2x64xbf16>, tensor<?x3xi32>, tensor<?x2xbf16>",
            expect!["error: `x` has 2 choices a row, `place` has 3, `weights` has 2"],
        );
    }
}
