//! `sail.rms_norm`

use crate::op::{Field, Kind, Op, Operands, ShapeError, equal};
use crate::shape::Type;

/// Root-mean-square normalisation of every row.
///
/// | value    | shape    | type |
/// |----------|----------|------|
/// | `x`      | `[…, d]` | bf16 |
/// | `weight` | `[d]`    | bf16 |
/// | `y`      | `[…, d]` | bf16 |
///
/// `y = x / sqrt(mean(x²) + eps) · weight`. Rounding: the mean in f32; rounded to bf16 after
/// normalising and again after the weight, because the model casts back before multiplying.
/// Source: `RMSNorm` in `modeling_sailvit.py`, `Qwen3RMSNorm`.
pub const RMS_NORM: Op = Op {
    name: "rms_norm",
    summary: "RMS norm of every row",
    operands: &["x", "weight"],
    attributes: &[EPS],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    norm_width(operands, "weight")?;
    Ok(vec![operands.ty("x").clone()])
}

pub(super) const EPS: Field = Field::required("eps", Kind::Float);

/// Refuses a norm whose weight called `name` is not as long as a row of `x`.
pub(super) fn norm_width(operands: &Operands<'_>, name: &str) -> Result<(), ShapeError> {
    let (_, width) = operands.rows_and_width("x")?;
    equal("`x` has # columns", width, &format!("`{name}` has #"), operands.vector(name)?)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn keeps_the_shape() {
        check_infer(
            &RMS_NORM,
            "tensor<?x64xbf16>, tensor<64xbf16> {eps = 1e-6}",
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn refuses_a_weight_of_another_width() {
        check_infer(
            &RMS_NORM,
            "tensor<?x64xbf16>, tensor<32xbf16> {eps = 1e-6}",
            expect!["error: `x` has 64 columns, `weight` has 32"],
        );
    }
}
