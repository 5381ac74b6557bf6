//! Let a product norm the rows it reads: `rms_norm` and the product after it become one op.
//!
//! Why: the normed rows are never written and read back, and one launch is saved: two for each
//! block of tower and decoder. The product rounds the normed row as the norm would have.
//!
//! Before:
//!
//! ```mlir
//! %h = "sail.rms_norm"(%x, %norm) {eps = 1.0e-6 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
//! %y = "sail.linear"(%h, %w) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
//! ```
//!
//! After:
//!
//! ```mlir
//! %y = "sail.norm_linear"(%x, %norm, %w) {eps = 1.0e-6 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
//! ```
//!
//! Works on `gate_up_silu` alike, which becomes `norm_gate_up_silu`. Does not fire when the normed
//! rows have a second reader: writing them once is then cheaper than norming them twice.
//! Numerics: none, the rounding is the same.

use crate::rewrite::{Decline, New, Rewriter, Rule};
use crate::view::Op;

pub const RULE: Rule = Rule { name: "norm_linear", root: "rms_norm", rewrite };

/// Products, and what they are called with a norm in front.
const PRODUCTS: [(&str, &str); 2] =
    [("linear", "norm_linear"), ("gate_up_silu", "norm_gate_up_silu")];

fn rewrite<'c>(norm: Op<'c, '_>, rewriter: &mut Rewriter<'c>) -> Result<(), Decline> {
    let h = norm.result();
    let readers = h.readers();
    let Some(product) = readers.first().copied() else {
        return Err(Decline::because(format!("nobody reads `%{}`", h.name())));
    };
    let Some((_, fused)) = PRODUCTS.into_iter().find(|(name, _)| product.is(name)) else {
        let reader = product.full_name();
        return Err(Decline::because(format!(
            "`{reader}`, which reads `%{}`, norms nothing",
            h.name()
        )));
    };
    h.must_be_read_only_by(product)?;

    let operands = [norm.operand("x"), norm.operand("weight"), product.operand("weight")];
    let (attributes, name) = (norm.attributes(), product.label());
    let fused = rewriter.insert(product, New { op: fused, operands: &operands, attributes, name });
    rewriter.replace(product, &fused.results());
    Ok(())
}

crate::rewrite::doc_test!();
