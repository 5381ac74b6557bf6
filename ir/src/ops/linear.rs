//! `sail.linear`

use crate::op::{Op, Operands, ShapeError};
use crate::shape::{Dim, Type};

/// Matrix product with the weight stored one row per output: `y = x · weightᵀ`.
///
/// | value    | shape    | type                        |
/// |----------|----------|-----------------------------|
/// | `x`      | `[…, k]` | bf16                        |
/// | `weight` | `[n, k]` | bf16; packed once quantized |
/// | `y`      | `[…, n]` | bf16                        |
///
/// Rounding: products are accumulated in f32 over the whole of `k`, then rounded to bf16 once.
/// No bias (`sail.linear_bias` has one). Source: `torch.nn.functional.linear`.
pub const LINEAR: Op = Op {
    name: "linear",
    summary: "`y = x · weightᵀ`",
    operands: &["x", "weight"],
    packed: &["weight"],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (rows, n) = product(operands)?;
    Ok(vec![Type::of_width(rows, n)])
}

/// Rows of `x` and outputs of `weight`, whose inner sizes must agree.
pub(super) fn product(operands: &Operands<'_>) -> Result<(Vec<Dim>, u64), ShapeError> {
    let (rows, k) = operands.rows_and_width("x")?;
    let [n, weight_k] = operands.weight_matrix("weight")?;
    if k != weight_k {
        return Err(ShapeError::new(format!("`x` has {k} columns, `weight` has {weight_k}"))
            .hint("a weight is stored [outputs, inputs]; is this one transposed?"));
    }
    Ok((rows, n))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn takes_the_rows_of_x_and_of_the_weight() {
        check_infer(
            &LINEAR,
            "tensor<?x64xbf16>, tensor<96x64xbf16>",
            expect!["tensor<?x96xbf16>"],
        );
    }

    #[test]
    fn reads_a_packed_weight_alike() {
        check_infer(
            &LINEAR,
            r#"tensor<?x4x64xbf16>, !sail.packed<[96, 64], "bf16">"#,
            expect!["tensor<?x4x96xbf16>"],
        );
    }

    #[test]
    fn refuses_unequal_inner_sizes() {
        check_infer(
            &LINEAR,
            "tensor<?x64xbf16>, tensor<96x32xbf16>",
            expect![[r#"
                error: `x` has 64 columns, `weight` has 32
                hint: a weight is stored [outputs, inputs]; is this one transposed?"#]],
        );
    }
}
