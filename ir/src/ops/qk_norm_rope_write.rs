//! `sail.qk_norm_rope_write`

use super::cache::KV_HEADS;
use super::rms_norm::EPS;
use super::rope::{HEAD_DIM, THETA, even_head_dim, rope_table, slots_and_positions};
use crate::op::{Field, Kind, Op, Operands, ShapeError, Stages, equal};
use crate::shape::Type;

/// What happens between the q/k/v product and attention: norm and rotate queries and keys, store
/// keys and values.
///
/// | value    | shape           | type                                        |
/// |----------|-----------------|---------------------------------------------|
/// | `qkv`    | `[t, (h+2g)·e]` | bf16, queries, then keys, then values       |
/// | `q_norm` | `[e]`           | bf16                                        |
/// | `k_norm` | `[e]`           | bf16                                        |
/// | `rows`   | `[t, 2]`        | i32, (slot, position)                       |
/// | `cache`  |                 | `!sail.kv_cache<[g, e]>`                         |
/// | `table`  | `[m, e]`        | bf16, `sail.table`; from stage `kernels` on |
/// | `q`      | `[t, h·e]`      | bf16                                        |
/// | `after`  |                 | the cache, with these rows stored           |
///
/// Rounding: f32 from the norm to the rotated value, which is rounded to bf16 once; cosines and
/// sines are bf16 as in `sail.rope`. The single ops round five times. Values are copied.
/// Source: `Qwen3Attention`.
pub const QK_NORM_ROPE_WRITE: Op = Op {
    name: "qk_norm_rope_write",
    summary: "norm and rotate q and k, store k and v",
    operands: &["qkv", "q_norm", "k_norm", "rows", "cache"],
    lowered: &["table"],
    attributes: &[EPS, Field::required("heads", Kind::Int), KV_HEADS, HEAD_DIM, THETA],
    results: &["q", "after"],
    legal_in: Stages::FUSED.and_later(),
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (rows, width) = operands.rows_and_width("qkv")?;
    let (heads, kv_heads) = (operands.size("heads")?, operands.size("kv_heads")?);
    let head = even_head_dim(operands)?;
    equal("`qkv` has # columns", width, "its heads have #", (heads + 2 * kv_heads) * head)?;
    for norm in ["q_norm", "k_norm"] {
        equal(&format!("`{norm}` has #"), operands.vector(norm)?, "`head_dim` is #", head)?;
    }
    let cache = operands.cache("cache")?;
    if cache != (kv_heads, head) {
        let message = format!("`cache` is `{}`", operands.ty("cache"));
        return Err(ShapeError::new(format!("{message}, keys are {kv_heads} heads of {head}")));
    }
    slots_and_positions(operands)?;
    rope_table(operands)?;
    Ok(vec![Type::of_width(rows, heads * head), operands.ty("cache").clone()])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_the_queries_and_the_cache() {
        check_infer(
            &QK_NORM_ROPE_WRITE,
            "tensor<?x128xbf16>, tensor<16xbf16>, tensor<16xbf16>, tensor<?x2xi32>, !sail.kv_cache<[2, 16]> {eps = 1e-6, heads = 4, kv_heads = 2, head_dim = 16, theta = 1e6}",
            expect!["tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>"],
        );
    }

    #[test]
    fn refuses_columns_that_are_not_the_heads() {
        check_infer(
            &QK_NORM_ROPE_WRITE,
            "tensor<?x120xbf16>, tensor<16xbf16>, tensor<16xbf16>, tensor<?x2xi32>, !sail.kv_cache<[2, 16]> {eps = 1e-6, heads = 4, kv_heads = 2, head_dim = 16, theta = 1e6}",
            expect!["error: `qkv` has 120 columns, its heads have 128"],
        );
    }
}
