//! Apply the GELU inside the product before it: `linear_bias` and `gelu` become one op.
//!
//! Why: the product's result is never written and read back, and one launch is saved.
//!
//! Before:
//!
//! ```mlir
//! %x1 = "sail.linear_bias"(%x, %w, %b) : (tensor<?x4x64xbf16>, tensor<96x64xbf16>, tensor<96xbf16>) -> tensor<?x4x96xbf16>
//! %y  = "sail.gelu"(%x1) : (tensor<?x4x96xbf16>) -> tensor<?x4x96xbf16>
//! ```
//!
//! After:
//!
//! ```mlir
//! %y = "sail.linear_bias_gelu"(%x, %w, %b) : (tensor<?x4x64xbf16>, tensor<96x64xbf16>, tensor<96xbf16>) -> tensor<?x4x96xbf16>
//! ```
//!
//! Does not fire when the product has a second reader, or has no bias. Numerics: the product is no
//! longer rounded before the GELU; see `ops::LINEAR_BIAS_GELU`.

use sail_ir::op::Attributes;

use crate::rewrite::{Decline, New, Rewriter, Rule};
use crate::view::Op;

pub const RULE: Rule = Rule { name: "linear_bias_gelu", root: "gelu", rewrite };

fn rewrite<'c>(gelu: Op<'c, '_>, rewriter: &mut Rewriter<'c>) -> Result<(), Decline> {
    let product = gelu.operand("x").must_be_made_for(gelu, "linear_bias")?;

    let (attributes, name) = (Attributes::new(), gelu.label());
    let operands = product.operands();
    let new = New { op: "linear_bias_gelu", operands: &operands, attributes, name };
    let fused = rewriter.insert(gelu, new);
    rewriter.replace(gelu, &fused.results());
    Ok(())
}

crate::rewrite::doc_test!();
