//! The cache of keys and values that a plan asks for.

use sail_ir::plan::CacheSpec;
use sail_ir::shape::Type;

use super::bounds::Bounds;
use super::choose;
use super::flat::FunctionView;
use crate::error::CompileError;

/// What keys and values of a position take, in all layers that have them.
///
/// Refuses heads whose size is none.
pub fn spec(functions: &[FunctionView], bounds: &Bounds) -> Result<CacheSpec, CompileError> {
    let mut layers = 0;
    let mut sizes = (0, 0);
    for view in functions {
        for op in view.ops.iter().filter(|op| op.op.name == "cache") {
            let Type::Cache { kv_heads, head_dim } = &view.values[op.results[0]].ty else {
                panic!("broken invariant `cache.type`");
            };
            layers = layers.max(choose::layer_of(op) + 1);
            sizes = (*kv_heads, *head_dim);
        }
    }
    let narrow = |size: u64| {
        u32::try_from(size).map_err(|_| CompileError::TooLarge { what: "cache".to_owned(), size })
    };
    let [kv_heads, head_dim] = [narrow(sizes.0)?, narrow(sizes.1)?];
    let too_large =
        || CompileError::TooLarge { what: "cache".to_owned(), size: u64::from(head_dim) };
    Ok(CacheSpec {
        layers,
        kv_heads,
        head_dim,
        scheme: bounds.cache,
        block_bytes: bounds.cache.block_bytes(head_dim).ok_or_else(too_large)?,
        max_positions: bounds.max_positions,
    })
}
