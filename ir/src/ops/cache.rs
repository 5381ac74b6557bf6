//! `sail.cache`

use super::rope::HEAD_DIM;
use crate::op::{Field, Kind, Op, Operands, ShapeError};
use crate::shape::Type;

/// The keys and values of one decoder layer, of all slots.
///
/// | value   | type                          |
/// |---------|-------------------------------|
/// | `cache` | `!sail.kv_cache<[kv_heads, head_dim]>` |
///
/// Paged: where a position's values stand is said by the page table of its slot, at run time.
/// Rounding: keys and values are kept in bf16. Source: `DynamicCache` of transformers 4.51.3.
pub const CACHE: Op = Op {
    name: "cache",
    summary: "keys and values of one layer",
    attributes: &[Field::required("layer", Kind::Int), KV_HEADS, HEAD_DIM],
    results: &["cache"],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    operands.size("layer")?;
    let (kv_heads, head_dim) = (operands.size("kv_heads")?, operands.size("head_dim")?);
    if kv_heads == 0 || head_dim == 0 {
        return Err(ShapeError::new(format!("{kv_heads} kv heads of {head_dim} hold nothing")));
    }
    Ok(vec![Type::Cache { kv_heads, head_dim }])
}

pub(super) const KV_HEADS: Field = Field::required("kv_heads", Kind::Int);

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn has_the_type_of_its_sizes() {
        check_infer(
            &CACHE,
            "{layer = 3, kv_heads = 2, head_dim = 16}",
            expect!["!sail.kv_cache<[2, 16]>"],
        );
    }

    #[test]
    fn refuses_no_heads() {
        check_infer(
            &CACHE,
            "{layer = 3, kv_heads = 0, head_dim = 16}",
            expect!["error: 0 kv heads of 16 hold nothing"],
        );
    }
}
