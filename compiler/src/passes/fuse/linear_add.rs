//! Add a residual inside the product that ends a block: `linear` and `add` become `linear_add`.
//!
//! Why: the product's result is never written and read back, and one launch is saved: two for each
//! block of tower and decoder.
//!
//! Before:
//!
//! ```mlir
//! %down = "sail.linear"(%act, %w) : (tensor<?x96xbf16>, tensor<64x96xbf16>) -> tensor<?x64xbf16>
//! %y    = "sail.add"(%x, %down) : (tensor<?x64xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
//! ```
//!
//! After:
//!
//! ```mlir
//! %y = "sail.linear_add"(%act, %w, %x) : (tensor<?x96xbf16>, tensor<64x96xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
//! ```
//!
//! Either side of the addition may be the product. Does not fire when the product has a second
//! reader, or is added to itself. Numerics: the product is no longer rounded before it is added; see
//! `ops::LINEAR_ADD`.

use sail_ir::op::Attributes;

use crate::rewrite::{Decline, New, Rewriter, Rule};
use crate::view::Op;

pub const RULE: Rule = Rule { name: "linear_add", root: "add", rewrite };

fn rewrite<'c>(add: Op<'c, '_>, rewriter: &mut Rewriter<'c>) -> Result<(), Decline> {
    let [x, y] = [add.operand("x"), add.operand("y")];
    let (product, residual) = match y.must_be_made_for(add, "linear") {
        Ok(product) => (product, x),
        Err(declined) => match x.must_be_made_for(add, "linear") {
            Ok(product) => (product, y),
            // Where one side is a product after all, its reason is the one to tell.
            Err(other) if y.made_by("linear").is_none() && x.made_by("linear").is_some() => {
                return Err(other);
            }
            Err(_) => return Err(declined),
        },
    };

    let operands = [product.operand("x"), product.operand("weight"), residual];
    let (attributes, name) = (Attributes::new(), add.label());
    let new = New { op: "linear_add", operands: &operands, attributes, name };
    let fused = rewriter.insert(add, new);
    rewriter.replace(add, &fused.results());
    Ok(())
}

crate::rewrite::doc_test!();
