//! Group the chosen experts' work by expert: gather, gate and up, down, weighted sum.
//!
//! Why: sorted by expert, all rows of one expert meet its weights in one product, so that a weight is
//! read once however many rows chose it; and the residual is added where the experts are summed.
//!
//! Before:
//!
//! ```mlir
//! %gate = "sail.weight"() {join = "stack", paths = ["g.0", "g.1"]} : () -> tensor<2x24x64xbf16>
//! %up   = "sail.weight"() {join = "stack", paths = ["u.0", "u.1"]} : () -> tensor<2x24x64xbf16>
//! %down = "sail.weight"() {join = "stack", paths = ["d.0", "d.1"]} : () -> tensor<2x64x24xbf16>
//! %mix  = "sail.experts"(%h, %ids, %weights, %gate, %up, %down) : (tensor<?x64xbf16>, tensor<?x1xi32>, tensor<?x1xbf16>, tensor<2x24x64xbf16>, tensor<2x24x64xbf16>, tensor<2x64x24xbf16>) -> tensor<?x64xbf16>
//! %y    = "sail.add"(%x, %mix) : (tensor<?x64xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
//! ```
//!
//! After:
//!
//! ```mlir
//! %down = "sail.weight"() {join = "stack", paths = ["d.0", "d.1"]} : () -> tensor<2x64x24xbf16>
//! %mix.gate_up.weight = "sail.weight"() {join = "stack_interleave", paths = ["g.0", "g.1", "u.0", "u.1"]} : () -> tensor<2x48x64xbf16>
//! %mix.group:3 = "sail.group_by_expert"(%ids) {experts = 2 : i64} : (tensor<?x1xi32>) -> (tensor<?x1xi32>, tensor<?x1xi32>, tensor<3xi32>)
//! %mix.act  = "sail.grouped_gate_up_silu"(%h, %mix.group#0, %mix.group#2, %mix.gate_up.weight) : (tensor<?x64xbf16>, tensor<?x1xi32>, tensor<3xi32>, tensor<2x48x64xbf16>) -> tensor<?x1x24xbf16>
//! %mix.down = "sail.grouped_linear"(%mix.act, %mix.group#2, %down) : (tensor<?x1x24xbf16>, tensor<3xi32>, tensor<2x64x24xbf16>) -> tensor<?x1x64xbf16>
//! %y        = "sail.combine_add"(%mix.down, %mix.group#1, %weights, %x) : (tensor<?x1x64xbf16>, tensor<?x1xi32>, tensor<?x1xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
//! ```
//!
//! Where the sum is read otherwise than by one addition, `combine` takes the place of `combine_add`.
//! Does not fire when a weight is not a stack of tensors of the checkpoint; `lower` groups what this
//! rule was told to leave. Numerics: gate, up and the weighted parts are no longer rounded one by one;
//! see `ops::GROUPED_GATE_UP_SILU` and `ops::COMBINE`.

use sail_ir::op::{Attribute, Attributes};

use super::int;
use crate::rewrite::{Decline, Join, New, Rewriter, Rule};
use crate::view::{Op, Value};

pub const RULE: Rule = Rule { name: "group_experts", root: "experts", rewrite: group };

/// Replace `experts`, and the addition that reads it if that is its only reader.
pub(in crate::passes) fn group<'c, 'm>(
    experts: Op<'c, 'm>,
    rewriter: &mut Rewriter<'c>,
) -> Result<(), Decline> {
    let [x, ids, weights, gate, up, down] =
        ["x", "ids", "weights", "gate", "up", "down"].map(|name| experts.operand(name));
    let count = stacked(down)?;
    let sum = residual_sum(experts);
    let root = sum.map_or(experts, |(add, _)| add);
    let module = experts.label();
    let name = |part: &str| format!("{module}.{part}");
    let both = [gate, up];
    let weight =
        rewriter.join_weights(root, &both, Join::StackInterleave, name("gate_up.weight"))?;

    let attributes = [("experts", int(count))].into_iter().collect();
    let new = New { op: "group_by_expert", operands: &[ids], attributes, name: name("group") };
    let [order, place, starts] = rewriter.insert(root, new).results()[..] else {
        unreachable!("`group_by_expert` has three results")
    };
    let mut next = |op, operands: &[Value<'c, 'm>], name: String| {
        rewriter.insert(root, New { op, operands, attributes: Attributes::new(), name }).result()
    };
    let act = next("grouped_gate_up_silu", &[x, order, starts, weight], name("act"));
    let out = next("grouped_linear", &[act, starts, down], name("down"));
    let y = match sum {
        Some((_, residual)) => next("combine_add", &[out, place, weights, residual], root.label()),
        None => next("combine", &[out, place, weights], root.label()),
    };
    rewriter.replace(root, &[y]);
    Ok(())
}

/// How many tensors of the checkpoint are stacked in `weight`.
fn stacked(weight: Value<'_, '_>) -> Result<u64, Decline> {
    match weight.must_be_made_by("weight")?.attributes().get("paths") {
        Some(Attribute::Texts(paths)) => Ok(paths.len() as u64),
        _ => Err(Decline::because(format!("`%{}` has no paths", weight.name()))),
    }
}

/// The addition that alone reads the experts' sum, and what it adds to it.
fn residual_sum<'c, 'm>(experts: Op<'c, 'm>) -> Option<(Op<'c, 'm>, Value<'c, 'm>)> {
    let mix = experts.result();
    let [add] = mix.readers()[..] else { return None };
    let mut others = add.operands().into_iter().filter(|value| *value != mix);
    let residual = others.next_back().filter(|_| add.is("add"))?;
    Some((add, residual))
}

crate::rewrite::doc_test!();
