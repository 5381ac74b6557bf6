//! Do all of a router at once: the norm before it, its product, the choice of experts and the sorting by
//! expert become `norm_linear_route_group`.
//!
//! Why: each of the four is a microsecond of work, and on a GPU four of a launch's beginning and end; of few
//! rows they are a quarter of a layer's time. The normed rows, which the experts read, are a result.
//!
//! Before:
//!
//! ```mlir
//! %h       = "sail.rms_norm"(%x, %norm) {eps = 1.0e-6 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
//! %logits  = "sail.linear"(%h, %router) : (tensor<?x64xbf16>, tensor<8x64xbf16>) -> tensor<?x8xbf16>
//! %route:2 = "sail.route"(%logits) {renormalize = true, top_k = 2 : i64} : (tensor<?x8xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
//! %group:3 = "sail.group_by_expert"(%route#0) {experts = 8 : i64} : (tensor<?x2xi32>) -> (tensor<?x2xi32>, tensor<?x2xi32>, tensor<9xi32>)
//! %y       = "sail.grouped_linear"(%act, %group#2, %down) : (tensor<?x2x24xbf16>, tensor<9xi32>, tensor<8x64x24xbf16>) -> tensor<?x2x64xbf16>
//! %z       = "sail.combine_add"(%y, %group#1, %route#1, %h) : (tensor<?x2x64xbf16>, tensor<?x2xi32>, tensor<?x2xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
//! ```
//!
//! After:
//!
//! ```mlir
//! %route:6 = "sail.norm_linear_route_group"(%x, %norm, %router) {eps = 1.0e-6 : f64, renormalize = true, top_k = 2 : i64} : (tensor<?x64xbf16>, tensor<64xbf16>, tensor<8x64xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>, tensor<?x2xi32>, tensor<?x2xi32>, tensor<9xi32>, tensor<?x64xbf16>)
//! %y       = "sail.grouped_linear"(%act, %route#4, %down) : (tensor<?x2x24xbf16>, tensor<9xi32>, tensor<8x64x24xbf16>) -> tensor<?x2x64xbf16>
//! %z       = "sail.combine_add"(%y, %route#3, %route#1, %route#5) : (tensor<?x2x64xbf16>, tensor<?x2xi32>, tensor<?x2xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
//! ```
//!
//! Does not fire when somebody else reads logits or ids, for example a tap, or reads the normed rows before
//! the product does. Numerics: none, the rounding is the same.

use crate::rewrite::{Decline, New, Rewriter, Rule};
use crate::view::Op;

pub const RULE: Rule = Rule { name: "norm_linear_route_group", root: "group_by_expert", rewrite };

fn rewrite<'c>(group: Op<'c, '_>, rewriter: &mut Rewriter<'c>) -> Result<(), Decline> {
    let ids = group.operand("ids");
    let route = ids.must_be_made_for(group, "route")?;
    let product = route.operand("logits").must_be_made_for(route, "linear")?;
    let h = product.operand("x");
    let norm = h.must_be_made_by("rms_norm")?;
    if let Some(early) = h.readers().into_iter().find(|reader| reader.is_before(product)) {
        let reader = early.full_name();
        return Err(Decline::because(format!(
            "`{reader}` reads `%{}` before the router does",
            h.name()
        )));
    }

    let operands = [norm.operand("x"), norm.operand("weight"), product.operand("weight")];
    let mut attributes = norm.attributes();
    attributes.extend(route.attributes());
    let new =
        New { op: "norm_linear_route_group", operands: &operands, attributes, name: route.label() };
    let results = rewriter.insert(product, new).results();
    let [ids, weights, order, place, starts, normed] = results[..] else {
        unreachable!("`norm_linear_route_group` has six results")
    };
    rewriter.replace(norm, &[normed]);
    rewriter.replace(route, &[ids, weights]);
    rewriter.replace(group, &[order, place, starts]);
    Ok(())
}

crate::rewrite::doc_test!();
