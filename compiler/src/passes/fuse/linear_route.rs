//! Choose experts inside the router's product: `linear` and `route` become `linear_route`.
//!
//! Why: the logits of a row (128 values for 30B-A3B) never leave the registers that hold them, and
//! one launch per layer is saved.
//!
//! Before:
//!
//! ```mlir
//! %logits  = "sail.linear"(%h, %router) : (tensor<?x64xbf16>, tensor<8x64xbf16>) -> tensor<?x8xbf16>
//! %route:2 = "sail.route"(%logits) {renormalize = true, top_k = 2 : i64} : (tensor<?x8xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
//! ```
//!
//! After:
//!
//! ```mlir
//! %route:2 = "sail.linear_route"(%h, %router) {renormalize = true, top_k = 2 : i64} : (tensor<?x64xbf16>, tensor<8x64xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
//! ```
//!
//! Does not fire when somebody else reads the logits, for example a tap. Numerics: logits are no
//! longer rounded before the softmax; see `ops::LINEAR_ROUTE`.

use crate::rewrite::{Decline, New, Rewriter, Rule};
use crate::view::Op;

pub const RULE: Rule = Rule { name: "linear_route", root: "route", rewrite };

fn rewrite<'c>(route: Op<'c, '_>, rewriter: &mut Rewriter<'c>) -> Result<(), Decline> {
    let product = route.operand("logits").must_be_made_for(route, "linear")?;

    let (operands, attributes) = (product.operands(), route.attributes());
    let new = New { op: "linear_route", operands: &operands, attributes, name: route.label() };
    let fused = rewriter.insert(route, new);
    rewriter.replace(route, &fused.results());
    Ok(())
}

crate::rewrite::doc_test!();
