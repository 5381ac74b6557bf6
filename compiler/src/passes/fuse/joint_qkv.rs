//! Make one product of those for queries, keys and values: `x` is read once instead of three times.
//!
//! Why: one launch with three times the columns fills the machine better, most of all when a single
//! token is decoded; and the norm before it then has one reader, so it can be fused as well.
//!
//! Before:
//!
//! ```mlir
//! %w_q   = "sail.weight"() {join = "one", paths = ["q"]} : () -> tensor<64x32xbf16>
//! %w_k   = "sail.weight"() {join = "one", paths = ["k"]} : () -> tensor<16x32xbf16>
//! %w_v   = "sail.weight"() {join = "one", paths = ["v"]} : () -> tensor<16x32xbf16>
//! %q     = "sail.linear"(%x, %w_q) : (tensor<?x32xbf16>, tensor<64x32xbf16>) -> tensor<?x64xbf16>
//! %k     = "sail.linear"(%x, %w_k) : (tensor<?x32xbf16>, tensor<16x32xbf16>) -> tensor<?x16xbf16>
//! %v     = "sail.linear"(%x, %w_v) : (tensor<?x32xbf16>, tensor<16x32xbf16>) -> tensor<?x16xbf16>
//! %after = "sail.cache_write"(%cache, %k, %v, %rows) : (!sail.kv_cache<[1, 16]>, tensor<?x16xbf16>, tensor<?x16xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[1, 16]>
//! %y     = "sail.attention"(%q, %after, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[1, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
//! ```
//!
//! After:
//!
//! ```mlir
//! %qkv.weight = "sail.weight"() {join = "concat", paths = ["q", "k", "v"]} : () -> tensor<96x32xbf16>
//! %qkv   = "sail.linear"(%x, %qkv.weight) : (tensor<?x32xbf16>, tensor<96x32xbf16>) -> tensor<?x96xbf16>
//! %q     = "sail.columns"(%qkv) {count = 64 : i64, first = 0 : i64} : (tensor<?x96xbf16>) -> tensor<?x64xbf16>
//! %k     = "sail.columns"(%qkv) {count = 16 : i64, first = 64 : i64} : (tensor<?x96xbf16>) -> tensor<?x16xbf16>
//! %v     = "sail.columns"(%qkv) {count = 16 : i64, first = 80 : i64} : (tensor<?x96xbf16>) -> tensor<?x16xbf16>
//! %after = "sail.cache_write"(%cache, %k, %v, %rows) : (!sail.kv_cache<[1, 16]>, tensor<?x16xbf16>, tensor<?x16xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[1, 16]>
//! %y     = "sail.attention"(%q, %after, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[1, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
//! ```
//!
//! Looks through the norm and the rotation of heads between a product and attention. Does not fire
//! when the products read different values, or a weight is not a tensor of the checkpoint.
//! Numerics: none, each column is computed as before.

use sail_ir::op::Attributes;

use super::{beside, int};
use crate::rewrite::{Decline, Join, New, Rewriter, Rule};
use crate::view::{Op, Value};

pub const RULE: Rule = Rule { name: "joint_qkv", root: "attention", rewrite };

fn rewrite<'c>(attention: Op<'c, '_>, rewriter: &mut Rewriter<'c>) -> Result<(), Decline> {
    let write = attention.operand("cache").must_be_made_by("cache_write")?;
    let heads = [attention.operand("q"), write.operand("k"), write.operand("v")];
    let [q, k, v] = heads.map(|value| before_heads(value).must_be_made_by("linear"));
    let products = [q?, k?, v?];
    let x = products[0].operand("x");
    if let Some(other) = products.iter().map(|op| op.operand("x")).find(|other| *other != x) {
        let (one, other) = (x.name(), other.name());
        return Err(Decline::because(format!("one product reads `%{one}`, another `%{other}`")));
    }

    let first = products.iter().copied().reduce(|a, b| if b.is_before(a) { b } else { a });
    let first = first.expect("three products");
    let weights = products.map(|op| op.operand("weight"));
    let name = beside(weights[0], "qkv.weight");
    let weight = rewriter.join_weights(first, &weights, Join::Concat, name)?;
    let (operands, name) = ([x, weight], beside(products[0].result(), "qkv"));
    let attributes = Attributes::new();
    let joint = rewriter.insert(first, New { op: "linear", operands: &operands, attributes, name });
    let mut column = 0;
    for product in products {
        let count = product.result().ty().elements_per_row().expect("a product is a tensor");
        let attributes = [("first", int(column)), ("count", int(count))].into_iter().collect();
        let (operands, name) = ([joint.result()], product.label());
        let new = New { op: "columns", operands: &operands, attributes, name };
        let part = rewriter.insert(product, new);
        rewriter.replace(product, &part.results());
        column += count;
    }
    Ok(())
}

/// What a product made before its heads were normed and rotated.
fn before_heads<'c: 'm, 'm>(mut value: Value<'c, 'm>) -> Value<'c, 'm> {
    while let Some(op) = value.made_by("rope").or_else(|| value.made_by("head_norm")) {
        value = op.operand("x");
    }
    value
}

crate::rewrite::doc_test!();
