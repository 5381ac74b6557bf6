//! `sail.attention`

use super::rope::slots_and_positions;
use crate::op::{Op, Operands, ShapeError};
use crate::shape::Type;

/// Causal grouped-query attention over the cache.
///
/// | value   | shape      | type                  |
/// |---------|------------|-----------------------|
/// | `q`     | `[t, h·e]` | bf16                  |
/// | `cache` |            | `!sail.kv_cache<[g, e]>`   |
/// | `rows`  | `[t, 2]`   | i32, (slot, position) |
/// | `y`     | `[t, h·e]` | bf16                  |
///
/// Row (slot, position) sees positions `0..=position` of its slot; query head `i` reads kv head
/// `i / (h/g)`; scale `e^-0.5`. Rounding: scores and softmax in f32, the weights rounded to bf16
/// before they meet the values, sums in f32, `y` rounded to bf16 once. Refuses heads that do not
/// fall into whole groups. Source: `Qwen3Attention`; the rounding is FlashAttention 2's.
pub const ATTENTION: Op = Op {
    name: "attention",
    summary: "causal attention over the cache",
    operands: &["q", "cache", "rows"],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (kv_heads, head_dim) = operands.cache("cache")?;
    let (_, width) = operands.rows_and_width("q")?;
    if !width.is_multiple_of(kv_heads * head_dim) {
        return Err(ShapeError::new(format!(
            "`q` has {width} columns, not a whole group of heads of {head_dim} for each of {kv_heads} kv heads"
        )));
    }
    slots_and_positions(operands)?;
    Ok(vec![operands.ty("q").clone()])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn keeps_the_shape_of_the_queries() {
        check_infer(
            &ATTENTION,
            "tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>",
            expect!["tensor<?x64xbf16>"],
        );
    }

    #[test]
    fn refuses_heads_that_are_not_whole_groups() {
        check_infer(
            &ATTENTION,
            "tensor<?x48xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>",
            expect!["error: `q` has 48 columns, not a whole group of heads of 16 for each of 2 kv heads"],
        );
    }
}
