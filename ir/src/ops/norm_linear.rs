//! `sail.norm_linear`

use super::linear::product;
use super::rms_norm::{EPS, norm_width};
use crate::op::{Op, Operands, ShapeError, Stages};
use crate::shape::Type;

/// RMS norm of every row, then a product.
///
/// | value    | shape    | type                        |
/// |----------|----------|-----------------------------|
/// | `x`      | `[…, k]` | bf16                        |
/// | `norm`   | `[k]`    | bf16                        |
/// | `weight` | `[n, k]` | bf16; packed once quantized |
/// | `y`      | `[…, n]` | bf16                        |
///
/// Rounding: that of `sail.rms_norm` (twice), then of `sail.linear`; fusing changes no bit.
/// Source: a norm and the products that read it, in every block.
pub const NORM_LINEAR: Op = Op {
    name: "norm_linear",
    summary: "RMS norm, then `x · weightᵀ`",
    operands: &["x", "norm", "weight"],
    packed: &["weight"],
    attributes: &[EPS],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    norm_width(operands, "norm")?;
    let (rows, n) = product(operands)?;
    Ok(vec![Type::of_width(rows, n)])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn takes_the_rows_of_x_and_of_the_weight() {
        check_infer(
            &NORM_LINEAR,
            "tensor<?x64xbf16>, tensor<64xbf16>, tensor<96x64xbf16> {eps = 1e-6}",
            expect!["tensor<?x96xbf16>"],
        );
    }

    #[test]
    fn refuses_a_norm_of_another_width() {
        check_infer(
            &NORM_LINEAR,
            "tensor<?x64xbf16>, tensor<32xbf16>, tensor<96x64xbf16> {eps = 1e-6}",
            expect!["error: `x` has 64 columns, `norm` has 32"],
        );
    }
}
