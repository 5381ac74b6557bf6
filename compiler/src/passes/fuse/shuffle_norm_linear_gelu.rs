//! Shuffle pixels and norm rows inside the adapter's first product.
//!
//! Why: the shuffled rows (256 × 6,144 values per image tile of SAIL-VL2) are written and read back
//! twice otherwise, for a product that reads each of them anyway.
//!
//! Before:
//!
//! ```mlir
//! %rows = "sail.pixel_shuffle"(%x) : (tensor<?x16x8xbf16>) -> tensor<?x4x32xbf16>
//! %h    = "sail.layer_norm"(%rows, %ln_w, %ln_b) {eps = 1.0e-5 : f64} : (tensor<?x4x32xbf16>, tensor<32xbf16>, tensor<32xbf16>) -> tensor<?x4x32xbf16>
//! %y    = "sail.linear_bias_gelu"(%h, %w, %b) : (tensor<?x4x32xbf16>, tensor<96x32xbf16>, tensor<96xbf16>) -> tensor<?x4x96xbf16>
//! ```
//!
//! After:
//!
//! ```mlir
//! %y = "sail.shuffle_norm_linear_gelu"(%x, %ln_w, %ln_b, %w, %b) {eps = 1.0e-5 : f64} : (tensor<?x16x8xbf16>, tensor<32xbf16>, tensor<32xbf16>, tensor<96x32xbf16>, tensor<96xbf16>) -> tensor<?x4x96xbf16>
//! ```
//!
//! Does not fire when the norm is not that of a shuffle, or a value in between has a second reader.
//! Numerics: none, the normed row is rounded as before.

use crate::rewrite::{Decline, New, Rewriter, Rule};
use crate::view::Op;

pub const RULE: Rule = Rule { name: "shuffle_norm_linear_gelu", root: "linear_bias_gelu", rewrite };

fn rewrite<'c>(product: Op<'c, '_>, rewriter: &mut Rewriter<'c>) -> Result<(), Decline> {
    let norm = product.operand("x").must_be_made_for(product, "layer_norm")?;
    let shuffle = norm.operand("x").must_be_made_for(norm, "pixel_shuffle")?;

    let operands = [
        shuffle.operand("x"),
        norm.operand("weight"),
        norm.operand("bias"),
        product.operand("weight"),
        product.operand("bias"),
    ];
    let (attributes, name) = (norm.attributes(), product.label());
    let new = New { op: "shuffle_norm_linear_gelu", operands: &operands, attributes, name };
    let fused = rewriter.insert(product, new);
    rewriter.replace(product, &fused.results());
    Ok(())
}

crate::rewrite::doc_test!();
