//! `sail.pixel_shuffle`

use crate::op::{Op, Operands, ShapeError, fixed};
use crate::shape::{Dim, Type};

/// Put each 2×2 square of patches into one row.
///
/// | value | shape           | type |
/// |-------|-----------------|------|
/// | `x`   | `[n, p, d]`     | bf16 |
/// | `y`   | `[n, p/4, 4·d]` | bf16 |
///
/// The grid is square, `√p` on a side. Row `(Y, X)` of the result is the patches `(2Y, 2X)`,
/// `(2Y, 2X+1)`, `(2Y+1, 2X)`, `(2Y+1, 2X+1)` one after the other. Rounding: none, values move.
/// Source: `pixel_shuffle` with `ps_version` v2, `modeling_sailvl.py`.
pub const PIXEL_SHUFFLE: Op = Op {
    name: "pixel_shuffle",
    summary: "2×2 neighbouring patches into one row",
    operands: &["x"],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (rows, width) = shuffled(operands)?;
    Ok(vec![Type::of_width(rows, width)])
}

/// Rows and width after the shuffle of operand `x`.
pub(super) fn shuffled(operands: &Operands<'_>) -> Result<(Vec<Dim>, u64), ShapeError> {
    let [n, p, d] = operands.dims("x")?;
    let p = fixed("x", p)?;
    let side = p.isqrt();
    if side * side != p || !side.is_multiple_of(2) {
        return Err(ShapeError::new(format!("{p} patches are not a square of even sides")));
    }
    Ok((vec![n, Dim::Fixed(p / 4)], 4 * fixed("x", d)?))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_a_quarter_of_the_rows() {
        check_infer(
            &PIXEL_SHUFFLE,
            "tensor<?x16x64xbf16>",
            expect!["tensor<?x4x256xbf16>"],
        );
    }

    #[test]
    fn refuses_an_odd_grid() {
        check_infer(
            &PIXEL_SHUFFLE,
            "tensor<?x9x64xbf16>",
            expect!["error: 9 patches are not a square of even sides"],
        );
    }
}
