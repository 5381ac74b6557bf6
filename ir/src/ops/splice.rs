//! `sail.splice`

use crate::op::{Op, Operands, ShapeError, equal, fixed};
use crate::shape::Type;

/// Put image embeddings at the image-token places of the prompt.
///
/// | value        | shape        | type                              |
/// |--------------|--------------|-----------------------------------|
/// | `x`          | `[t, d]`     | bf16                              |
/// | `features`   | `[n, p/4, d]`| bf16, read as `[n·p/4, d]`        |
/// | `image_rows` | `[t]`        | i32, row of `features`, -1 = text |
/// | `y`          | `[t, d]`     | bf16                              |
///
/// Rounding: none, values move. Source: `generate` in `modeling_sailvl.py`.
pub const SPLICE: Op = Op {
    name: "splice",
    summary: "image embeddings at the image-token places",
    operands: &["x", "features", "image_rows"],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let [_, d] = operands.dims("x")?;
    let (_, width) = operands.rows_and_width("features")?;
    equal("`x` has # columns", fixed("x", d)?, "`features` has #", width)?;
    let [_] = operands.indices("image_rows")?;
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
            &SPLICE,
            "tensor<?x64xbf16>, tensor<?x4x64xbf16>, tensor<?xi32>",
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn refuses_features_of_another_width() {
        check_infer(
            &SPLICE,
            "tensor<?x64xbf16>, tensor<?x4x32xbf16>, tensor<?xi32>",
            expect!["error: `x` has 64 columns, `features` has 32"],
        );
    }
}
