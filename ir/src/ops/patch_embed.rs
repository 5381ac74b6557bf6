//! `sail.patch_embed`

use super::add_positions::positions;
use super::patches::patch_sizes;
use super::rms_norm::EPS;
use crate::op::{Field, Kind, Op, Operands, ShapeError, Stages, equal};
use crate::shape::{Dim, Type};

/// Pixels to the first activations of the ViT: product of every patch, bias, RMS norm, positions.
///
/// | value       | shape                   | type                                   |
/// |-------------|-------------------------|----------------------------------------|
/// | `pixels`    | `[n, c, s, s]`          | bf16                                   |
/// | `weight`    | `[d, c, patch, patch]`  | bf16; packed as `[d, c·patch²]`        |
/// | `bias`      | `[d]`                   | bf16                                   |
/// | `norm`      | `[d]`                   | bf16                                   |
/// | `positions` | `[p, d]` or `[1, p, d]` | bf16                                   |
/// | `y`         | `[n, p, d]`             | bf16                                   |
///
/// Patches as in `sail.patches`. Rounding: the product with its bias stays f32, as in every fused
/// product; then to bf16 after the norm's scale, after its weight and after the position, as the
/// published model does. The single ops round after the bias as well. Source: `SAILViTPreprocessor`.
pub const PATCH_EMBED: Op = Op {
    name: "patch_embed",
    summary: "patches, product, bias, RMS norm, positions",
    operands: &["pixels", "weight", "bias", "norm", "positions"],
    packed: &["weight"],
    attributes: &[EPS, Field::required("patch", Kind::Int)],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (n, p, k) = patch_sizes(operands)?;
    let [d, weight_k] = operands.weight_matrix("weight")?;
    equal("a patch has #", k, "a row of `weight` has #", weight_k)?;
    for name in ["bias", "norm"] {
        equal(&format!("`{name}` has #"), operands.vector(name)?, "`weight` has # outputs", d)?;
    }
    positions(operands, p, d)?;
    Ok(vec![Type::of_width(vec![n, Dim::Fixed(p)], d)])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_a_row_per_patch() {
        check_infer(
            &PATCH_EMBED,
            "tensor<?x3x28x28xbf16>, tensor<64x3x14x14xbf16>, tensor<64xbf16>, tensor<64xbf16>, tensor<1x4x64xbf16> {eps = 1e-5, patch = 14}",
            expect!["tensor<?x4x64xbf16>"],
        );
    }

    #[test]
    fn refuses_a_weight_of_another_patch() {
        check_infer(
            &PATCH_EMBED,
            "tensor<?x3x28x28xbf16>, tensor<64x3x7x7xbf16>, tensor<64xbf16>, tensor<64xbf16>, tensor<1x4x64xbf16> {eps = 1e-5, patch = 14}",
            expect!["error: a patch has 588, a row of `weight` has 147"],
        );
    }
}
