//! `sail.cache_write`

use super::rope::slots_and_positions;
use crate::op::{Op, Operands, ShapeError, equal};
use crate::shape::Type;

/// Store keys and values at the slot and position of their row.
///
/// | value   | shape      | type                              |
/// |---------|------------|-----------------------------------|
/// | `cache` |            | `!sail.kv_cache<[g, e]>`               |
/// | `k`     | `[t, g·e]` | bf16                              |
/// | `v`     | `[t, g·e]` | bf16                              |
/// | `rows`  | `[t, 2]`   | i32, (slot, position)             |
/// | `after` |            | the cache, with these rows stored |
///
/// Readers of `after` see the new rows; the same storage, nothing is copied. Rounding: none.
/// Source: `DynamicCache.update`.
pub const CACHE_WRITE: Op = Op {
    name: "cache_write",
    summary: "the cache with keys and values of new rows",
    operands: &["cache", "k", "v", "rows"],
    results: &["after"],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (kv_heads, head_dim) = operands.cache("cache")?;
    for name in ["k", "v"] {
        let (_, width) = operands.rows_and_width(name)?;
        let what = format!("`{name}` has # columns");
        equal(&what, width, "a row of the cache has #", kv_heads * head_dim)?;
    }
    slots_and_positions(operands)?;
    Ok(vec![operands.ty("cache").clone()])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn gives_the_cache_back() {
        check_infer(
            &CACHE_WRITE,
            "!sail.kv_cache<[2, 16]>, tensor<?x32xbf16>, tensor<?x32xbf16>, tensor<?x2xi32>",
            expect!["!sail.kv_cache<[2, 16]>"],
        );
    }

    #[test]
    fn refuses_keys_of_another_width() {
        check_infer(
            &CACHE_WRITE,
            "!sail.kv_cache<[2, 16]>, tensor<?x64xbf16>, tensor<?x32xbf16>, tensor<?x2xi32>",
            expect!["error: `k` has 64 columns, a row of the cache has 32"],
        );
    }
}
