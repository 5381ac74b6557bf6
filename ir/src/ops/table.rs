//! `sail.table`

use super::rope::even_head_dim;
use crate::dtype::DType;
use crate::op::{Field, Kind, Op, Operands, ShapeError, Stages};
use crate::shape::Type;

/// A table that depends on no checkpoint byte, computed when compiling and stored beside the weights.
///
/// | value   | shape                   | type |
/// |---------|-------------------------|------|
/// | `table` | `[positions, head_dim]` | bf16 |
///
/// `kind` is `rope`: row `p` holds `cos(p·f_i)`, `i < head_dim/2`, then the sines of the same
/// angles, with `f_i = theta^(-2i/head_dim)`. Rounding: frequency, angle and function in f32, the
/// result to bf16. Made by `lower`. Source: `Qwen3RotaryEmbedding`, transformers 4.51.3.
pub const TABLE: Op = Op {
    name: "table",
    summary: "cosines and sines of RoPE for every position",
    attributes: &[
        Field::required("kind", Kind::Text),
        Field::required("theta", Kind::Float),
        Field::required("head_dim", Kind::Int),
        Field::required("positions", Kind::Int),
    ],
    results: &["table"],
    legal_in: Stages::KERNELS,
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let kind = operands.text("kind")?;
    if kind != "rope" {
        return Err(ShapeError::new(format!("`kind` is `{kind}`, expected `rope`")));
    }
    let sizes = [operands.size("positions")?, even_head_dim(operands)?];
    Ok(vec![Type::fixed(&sizes, DType::Bf16)])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn has_a_row_per_position() {
        check_infer(
            &TABLE,
            r#"{kind = "rope", theta = 1e6, head_dim = 16, positions = 40}"#,
            expect!["tensor<40x16xbf16>"],
        );
    }

    #[test]
    fn refuses_an_odd_head_size() {
        check_infer(
            &TABLE,
            r#"{kind = "rope", theta = 1e6, head_dim = 15, positions = 40}"#,
            expect!["error: `head_dim` is 15, expected an even size"],
        );
    }
}
