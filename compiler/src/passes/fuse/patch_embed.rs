//! Make one op of all that happens to a patch before the first block of the tower.
//!
//! Why: cut, product with bias, norm and position each read and write 1,024 rows of 1,536 values per
//! image tile of SAIL-VL2; together they read the pixels and write the rows once.
//!
//! Before:
//!
//! ```mlir
//! %patches = "sail.patches"(%pixels) {patch = 2 : i64} : (tensor<?x3x4x4xbf16>) -> tensor<?x4x12xbf16>
//! %x       = "sail.linear_bias"(%patches, %w, %b) : (tensor<?x4x12xbf16>, tensor<64x3x2x2xbf16>, tensor<64xbf16>) -> tensor<?x4x64xbf16>
//! %h       = "sail.rms_norm"(%x, %norm) {eps = 1.0e-5 : f64} : (tensor<?x4x64xbf16>, tensor<64xbf16>) -> tensor<?x4x64xbf16>
//! %y       = "sail.add_positions"(%h, %pos) : (tensor<?x4x64xbf16>, tensor<1x4x64xbf16>) -> tensor<?x4x64xbf16>
//! ```
//!
//! After:
//!
//! ```mlir
//! %y = "sail.patch_embed"(%pixels, %w, %b, %norm, %pos) {eps = 1.0e-5 : f64, patch = 2 : i64} : (tensor<?x3x4x4xbf16>, tensor<64x3x2x2xbf16>, tensor<64xbf16>, tensor<64xbf16>, tensor<1x4x64xbf16>) -> tensor<?x4x64xbf16>
//! ```
//!
//! Does not fire when one of the four is missing or a value in between has a second reader.
//! Numerics: nothing in between is rounded any more; see `ops::PATCH_EMBED`.

use crate::rewrite::{Decline, New, Rewriter, Rule};
use crate::view::Op;

pub const RULE: Rule = Rule { name: "patch_embed", root: "add_positions", rewrite };

fn rewrite<'c>(sum: Op<'c, '_>, rewriter: &mut Rewriter<'c>) -> Result<(), Decline> {
    let norm = sum.operand("x").must_be_made_for(sum, "rms_norm")?;
    let product = norm.operand("x").must_be_made_for(norm, "linear_bias")?;
    let patches = product.operand("x").must_be_made_for(product, "patches")?;

    let operands = [
        patches.operand("pixels"),
        product.operand("weight"),
        product.operand("bias"),
        norm.operand("weight"),
        sum.operand("positions"),
    ];
    let mut attributes = patches.attributes();
    attributes.extend(norm.attributes());
    let new = New { op: "patch_embed", operands: &operands, attributes, name: sum.label() };
    let fused = rewriter.insert(sum, new);
    rewriter.replace(sum, &fused.results());
    Ok(())
}

crate::rewrite::doc_test!();
