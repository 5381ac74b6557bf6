//! Erase ops whose results nobody reads and whose running changes nothing.
//!
//! MLIR's own dead-code elimination leaves `sail` ops alone: a dialect made from IRDL declares no
//! effects. Here an op has an effect when it has no result (a tap) or changes a cache.

use super::Pass;

pub(super) fn pass() -> Pass<'static> {
    Pass::new("erase_dead", |function, rewriter| {
        // From the end: what an op read dies with it. The list is taken anew after each death.
        while function.ops().into_iter().rev().any(|op| rewriter.erase_if_dead(op)) {}
    })
}
