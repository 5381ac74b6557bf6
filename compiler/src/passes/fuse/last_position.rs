//! Take the wanted rows before the last norm and the head, not after: only their logits are computed.
//!
//! Why: of a prompt of 512 tokens of SAIL-VL2-2B one row of logits is wanted; the head's product is
//! 622 million multiplications a row. Norm and product work on each row alone, so choosing rows
//! commutes with both. Two steps, the second where the first has left a norm before the choice.
//!
//! Before:
//!
//! ```mlir
//! %h      = "sail.rms_norm"(%x, %norm) {eps = 1.0e-6 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
//! %all    = "sail.linear"(%h, %head) : (tensor<?x64xbf16>, tensor<300x64xbf16>) -> tensor<?x300xbf16>
//! %logits = "sail.select_rows"(%all, %outputs) : (tensor<?x300xbf16>, tensor<?xi32>) -> tensor<?x300xbf16>
//! ```
//!
//! After:
//!
//! ```mlir
//! %x.selected = "sail.select_rows"(%x, %outputs) : (tensor<?x64xbf16>, tensor<?xi32>) -> tensor<?x64xbf16>
//! %h          = "sail.rms_norm"(%x.selected, %norm) {eps = 1.0e-6 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
//! %logits     = "sail.linear"(%h, %head) : (tensor<?x64xbf16>, tensor<300x64xbf16>) -> tensor<?x300xbf16>
//! ```
//!
//! Does not fire when somebody else reads what the product or the norm makes: all rows must then
//! exist anyway. Numerics: none, rows do not see each other.

use crate::rewrite::{Decline, New, Rewriter, Rule};
use crate::view::Op;

pub const RULE: Rule = Rule { name: "last_position", root: "select_rows", rewrite };

fn rewrite<'c>(select: Op<'c, '_>, rewriter: &mut Rewriter<'c>) -> Result<(), Decline> {
    let (x, index) = (select.operand("x"), select.operand("index"));
    let by_row = x.made_by("linear").or_else(|| x.made_by("rms_norm")).ok_or_else(|| {
        Decline::because(format!("`%{}` is made by neither a product nor a norm", x.name()))
    })?;
    x.must_be_read_only_by(select)?;

    let from = by_row.operand("x");
    let name = format!("{}.selected", from.name());
    let operands = [from, index];
    let attributes = select.attributes();
    let rows =
        rewriter.insert(select, New { op: "select_rows", operands: &operands, attributes, name });

    // The head's logits keep their name; the norm before it keeps its own.
    let name = if by_row.is("linear") { select.label() } else { by_row.label() };
    let operands = [rows.result(), by_row.operand("weight")];
    let attributes = by_row.attributes();
    let y =
        rewriter.insert(select, New { op: by_row.name(), operands: &operands, attributes, name });
    rewriter.replace(select, &y.results());
    Ok(())
}

crate::rewrite::doc_test!();
