//! Tap what every product reads, for calibrating: `sail.tap` of each such value, once.
//!
//! Only tapped twins (`@NAME.taps`) are changed. The first product of pixels is left alone: its
//! weight keeps `bf16`, and a tap would cut its kernel in two. What an expert's last product reads
//! is made inside of one op and can be seen when that is grouped; its rows are then sorted by
//! expert, so its tap is called after the one of the router, whose logits say which row is whose.

use std::collections::BTreeMap;

use sail_ir::op::Attribute;

use super::Pass;
use crate::rewrite::{New, Rewriter};
use crate::stage::{Graph, Module};
use crate::view::{Function, Op, Value};

/// In front of the names of taps of what products read.
pub const PREFIX: &str = "input.";
/// In front of the names of taps of what the last products of all experts read.
pub const EXPERTS: &str = "experts.";

/// At stage `graph`, where norms are not yet part of products.
pub(super) fn pass() -> Pass<'static> {
    Pass::new("tap_inputs", |function, rewriter| {
        let Some(twin) = twin(function) else { return };
        let mut tapped = Vec::new();
        for product in function.ops() {
            let Some(x) = input(product).filter(|x| !tapped.contains(x)) else { continue };
            tapped.push(x);
            tap(product, x, format!("{PREFIX}{}", key(&twin, x)), rewriter);
        }
    })
}

/// At stage `fused`, where experts are grouped.
pub(super) fn experts_pass() -> Pass<'static> {
    Pass::new("tap_experts", |function, rewriter| {
        if twin(function).is_none() {
            return;
        }
        for product in function.ops().into_iter().filter(|op| op.is("grouped_linear")) {
            let x = product.operand("x");
            let order = x.owner().map(|act| act.operand("order"));
            let ids = order.and_then(Value::owner).map(|group| group.operand("ids"));
            if let Some(router) = ids.and_then(router) {
                tap(product, x, format!("{EXPERTS}{router}"), rewriter);
            }
        }
    })
}

fn tap<'c, 'm>(before: Op<'c, 'm>, x: Value<'c, 'm>, name: String, rewriter: &mut Rewriter<'c>) {
    let attributes = [("name", Attribute::Text(name))].into_iter().collect();
    rewriter.insert(before, New { op: "tap", operands: &[x], attributes, name: String::new() });
}

/// For each tensor of the checkpoint that is the weight of a product, what that product reads, as
/// [`key`] and [`expert_key`] call it.
#[must_use]
pub fn inputs_of_weights(module: &Module<'_, Graph>) -> BTreeMap<String, String> {
    let mut inputs = BTreeMap::new();
    for function in module.functions() {
        let Some(twin) = twin(function) else { continue };
        for product in function.ops() {
            let Some(x) = input(product) else { continue };
            let row = product.row().expect("products are ops of the dialect");
            for name in row.packed {
                let paths = paths(product.operand(name)).into_iter();
                if !product.is("experts") || *name != "down" {
                    inputs.extend(paths.map(|path| (path, key(&twin, x))));
                } else if let Some(router) = router(product.operand("ids")) {
                    let paths = paths.enumerate();
                    inputs.extend(paths.map(|(at, path)| (path, expert_key(&router, at))));
                }
            }
        }
    }
    inputs
}

/// What the last product of an expert reads.
#[must_use]
pub fn expert_key(router: &str, expert: usize) -> String {
    format!("{EXPERTS}{router}.{expert}")
}

/// The function whose twin this is.
pub(super) fn twin(function: Function<'_, '_>) -> Option<String> {
    function.name().strip_suffix(".taps").map(str::to_owned)
}

/// What a product reads beside its weights.
pub(super) fn input<'c, 'm>(op: Op<'c, 'm>) -> Option<Value<'c, 'm>> {
    let product = ["linear", "linear_bias", "experts"].iter().any(|name| op.is(name));
    let x = product.then(|| op.operand("x"))?;
    x.made_by("patches").is_none().then_some(x)
}

/// Names are unique in a function.
pub(super) fn key(twin: &str, x: Value<'_, '_>) -> String {
    format!("{twin}.{}", x.name())
}

/// What the logits are tapped as that the experts `ids` were chosen by.
fn router(ids: Value<'_, '_>) -> Option<String> {
    let logits = ids.made_by("route")?.operand("logits");
    let tap = logits.readers().into_iter().find(|reader| reader.is("tap"))?;
    match tap.attributes().get("name") {
        Some(Attribute::Text(name)) if !name.starts_with(PREFIX) => Some(name.clone()),
        _ => None,
    }
}

pub(super) fn paths(weight: Value<'_, '_>) -> Vec<String> {
    let attributes = weight.made_by("weight").map(Op::attributes).unwrap_or_default();
    match attributes.get("paths") {
        Some(Attribute::Texts(paths)) => paths.clone(),
        _ => Vec::new(),
    }
}
