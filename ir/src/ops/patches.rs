//! `sail.patches`

use crate::op::{Field, Kind, Op, Operands, ShapeError, equal, fixed};
use crate::shape::{Dim, Type};

/// Cut every image tile into its patches, one row each.
///
/// | value    | shape            | type |
/// |----------|------------------|------|
/// | `pixels` | `[n, c, s, s]`   | bf16 |
/// | `y`      | `[n, p, c·patch²]` | bf16 |
///
/// `p = (s/patch)²`, row-major over the tile; inside a row the order is (channel, dy, dx): the
/// order of a convolution weight `[d, c, patch, patch]` read as `[d, c·patch²]`.
///
/// Rounding: none, values move. Refuses a tile that is not square or that `patch` does not divide.
/// Source: `nn.Conv2d` with stride = kernel, `modeling_sailvit.py`.
pub const PATCHES: Op = Op {
    name: "patches",
    summary: "rows of pixels, one per patch",
    operands: &["pixels"],
    attributes: &[Field::required("patch", Kind::Int)],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (n, p, k) = patch_sizes(operands)?;
    Ok(vec![Type::of_width(vec![n, Dim::Fixed(p)], k)])
}

/// Tiles, patches of a tile, values of a patch.
pub(super) fn patch_sizes(operands: &Operands<'_>) -> Result<(Dim, u64, u64), ShapeError> {
    let [n, channels, height, width] = operands.dims("pixels")?;
    let (height, width) = (fixed("pixels", height)?, fixed("pixels", width)?);
    equal("a tile is # high", height, "# wide", width)?;
    let patch = operands.size("patch")?;
    if patch == 0 || !height.is_multiple_of(patch) {
        return Err(ShapeError::new(format!("patches of {patch} do not cut {height} pixels evenly")));
    }
    Ok((n, (height / patch).pow(2), fixed("pixels", channels)? * patch * patch))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_a_row_per_patch() {
        check_infer(
            &PATCHES,
            "tensor<?x3x28x28xbf16> {patch = 14}",
            expect!["tensor<?x4x588xbf16>"],
        );
    }

    #[test]
    fn refuses_a_tile_that_patches_do_not_cut_evenly() {
        check_infer(
            &PATCHES,
            "tensor<?x3x30x30xbf16> {patch = 14}",
            expect!["error: patches of 14 do not cut 30 pixels evenly"],
        );
    }
}
