//! Fuse the gated feed-forward input: two products, `silu` and `mul` become `gate_up_silu`.
//!
//! Why: `x` is read once instead of twice and three intermediates are never written; for one
//! decoded token of SAIL-VL2-2B that is 28 layers × 36 KiB. Gate and up become one weight whose
//! rows alternate, so that one panel of the product holds both sides of every output.
//!
//! Before:
//!
//! ```mlir
//! %w_gate = "sail.weight"() {join = "one", paths = ["gate"]} : () -> tensor<96x64xbf16>
//! %w_up   = "sail.weight"() {join = "one", paths = ["up"]} : () -> tensor<96x64xbf16>
//! %gate   = "sail.linear"(%x, %w_gate) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
//! %act    = "sail.silu"(%gate) : (tensor<?x96xbf16>) -> tensor<?x96xbf16>
//! %up     = "sail.linear"(%x, %w_up) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
//! %y      = "sail.mul"(%act, %up) : (tensor<?x96xbf16>, tensor<?x96xbf16>) -> tensor<?x96xbf16>
//! ```
//!
//! After:
//!
//! ```mlir
//! %gate_up.weight = "sail.weight"() {join = "interleave", paths = ["gate", "up"]} : () -> tensor<192x64xbf16>
//! %y = "sail.gate_up_silu"(%x, %gate_up.weight) : (tensor<?x64xbf16>, tensor<192x64xbf16>) -> tensor<?x96xbf16>
//! ```
//!
//! Does not fire when `gate`, `up` or `act` has a second reader: the value must then exist anyway;
//! nor when a weight is not a tensor of the checkpoint. Numerics: gate, up and the activation are no
//! longer rounded to bf16; see `ops::GATE_UP_SILU`.

use sail_ir::op::Attributes;

use super::beside;
use crate::rewrite::{Decline, Join, New, Rewriter, Rule};
use crate::view::Op;

pub const RULE: Rule = Rule { name: "gate_up_silu", root: "mul", rewrite };

fn rewrite<'c>(mul: Op<'c, '_>, rewriter: &mut Rewriter<'c>) -> Result<(), Decline> {
    let [left, right] = [mul.operand("x"), mul.operand("y")];
    let (silu, other) = match left.made_by("silu") {
        Some(_) => (left.must_be_made_for(mul, "silu")?, right),
        None => (right.must_be_made_for(mul, "silu")?, left),
    };
    let gate = silu.operand("x").must_be_made_for(silu, "linear")?;
    let up = other.must_be_made_for(mul, "linear")?;
    let x = gate.operand("x");
    if up.operand("x") != x {
        let (one, other) = (x.name(), up.operand("x").name());
        return Err(Decline::because(format!("gate reads `%{one}`, up reads `%{other}`")));
    }

    let weights = [gate.operand("weight"), up.operand("weight")];
    let name = beside(weights[0], "gate_up.weight");
    let weight = rewriter.join_weights(mul, &weights, Join::Interleave, name)?;
    let (operands, name) = ([x, weight], mul.label());
    let attributes = Attributes::new();
    let new = New { op: "gate_up_silu", operands: &operands, attributes, name };
    let fused = rewriter.insert(mul, new);
    rewriter.replace(mul, &fused.results());
    Ok(())
}

crate::rewrite::doc_test!();
