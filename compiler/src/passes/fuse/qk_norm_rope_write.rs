//! Norm and rotate queries and keys, and store keys and values, in one op on the joint product.
//!
//! Why: three views, two norms, two rotations and the cache's write are eight small launches that
//! each read and write a row; together they read it once. For one decoded token of SAIL-VL2-2B
//! that is 28 layers × 7 launches less.
//!
//! Before:
//!
//! ```mlir
//! %q     = "sail.columns"(%qkv) {count = 64 : i64, first = 0 : i64} : (tensor<?x96xbf16>) -> tensor<?x64xbf16>
//! %k     = "sail.columns"(%qkv) {count = 16 : i64, first = 64 : i64} : (tensor<?x96xbf16>) -> tensor<?x16xbf16>
//! %v     = "sail.columns"(%qkv) {count = 16 : i64, first = 80 : i64} : (tensor<?x96xbf16>) -> tensor<?x16xbf16>
//! %q.n   = "sail.head_norm"(%q, %q_norm) {eps = 1.0e-6 : f64} : (tensor<?x64xbf16>, tensor<16xbf16>) -> tensor<?x64xbf16>
//! %k.n   = "sail.head_norm"(%k, %k_norm) {eps = 1.0e-6 : f64} : (tensor<?x16xbf16>, tensor<16xbf16>) -> tensor<?x16xbf16>
//! %q.r   = "sail.rope"(%q.n, %rows) {head_dim = 16 : i64, theta = 1.0e6 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>
//! %k.r   = "sail.rope"(%k.n, %rows) {head_dim = 16 : i64, theta = 1.0e6 : f64} : (tensor<?x16xbf16>, tensor<?x2xi32>) -> tensor<?x16xbf16>
//! %after = "sail.cache_write"(%cache, %k.r, %v, %rows) : (!sail.kv_cache<[1, 16]>, tensor<?x16xbf16>, tensor<?x16xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[1, 16]>
//! %y     = "sail.attention"(%q.r, %after, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[1, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
//! ```
//!
//! After:
//!
//! ```mlir
//! %q.r:2 = "sail.qk_norm_rope_write"(%qkv, %q_norm, %k_norm, %rows, %cache) {eps = 1.0e-6 : f64, head_dim = 16 : i64, heads = 4 : i64, kv_heads = 1 : i64, theta = 1.0e6 : f64} : (tensor<?x96xbf16>, tensor<16xbf16>, tensor<16xbf16>, tensor<?x2xi32>, !sail.kv_cache<[1, 16]>) -> (tensor<?x64xbf16>, !sail.kv_cache<[1, 16]>)
//! %y     = "sail.attention"(%q.r#0, %q.r#1, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[1, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
//! ```
//!
//! Does not fire without the joint product, when a value in between has a second reader, or when
//! queries and keys differ in epsilon, theta or rows. Numerics: from the norm to the rotated value
//! nothing is rounded; see `ops::QK_NORM_ROPE_WRITE`.

use super::int;
use crate::rewrite::{Decline, New, Rewriter, Rule};
use crate::view::{Op, Value};

pub const RULE: Rule = Rule { name: "qk_norm_rope_write", root: "attention", rewrite };

fn rewrite<'c>(attention: Op<'c, '_>, rewriter: &mut Rewriter<'c>) -> Result<(), Decline> {
    let rows = attention.operand("rows");
    let write = attention.operand("cache").must_be_made_for(attention, "cache_write")?;
    let q = Heads::of(attention.operand("q"), attention)?;
    let k = Heads::of(write.operand("k"), write)?;
    let v = write.operand("v").must_be_made_for(write, "columns")?;

    let qkv = q.columns.operand("x");
    if [k.columns, v].iter().any(|part| part.operand("x") != qkv) {
        return Err(Decline::because("q, k and v are not parts of one product"));
    }
    let ends = [q.columns, k.columns, v].map(|part| part.size("first") + part.size("count"));
    let firsts = [q.columns, k.columns, v].map(|part| part.size("first"));
    if firsts != [0, ends[0], ends[1]] || qkv.ty().elements_per_row() != Some(ends[2]) {
        return Err(Decline::because(format!("`%{}` is not q, then k, then v", qkv.name())));
    }
    for (what, one, other) in [
        ("epsilon", q.norm.attributes().remove("eps"), k.norm.attributes().remove("eps")),
        ("theta", q.rope.attributes().remove("theta"), k.rope.attributes().remove("theta")),
        (
            "head size",
            q.rope.attributes().remove("head_dim"),
            k.rope.attributes().remove("head_dim"),
        ),
    ] {
        if one != other {
            return Err(Decline::because(format!("queries and keys differ in their {what}")));
        }
    }
    if [q.rope, k.rope, write].iter().any(|op| op.operand("rows") != rows) {
        return Err(Decline::because("queries and keys are at different rows"));
    }

    let head = q.rope.size("head_dim");
    let mut attributes = q.rope.attributes();
    attributes.extend(q.norm.attributes());
    attributes.insert("heads", int(q.columns.size("count") / head));
    attributes.insert("kv_heads", int(k.columns.size("count") / head));
    let [q_norm, k_norm] = [q.norm, k.norm].map(|norm| norm.operand("weight"));
    let operands = [qkv, q_norm, k_norm, rows, write.operand("cache")];
    let (op, name) = ("qk_norm_rope_write", q.rope.label());
    let fused = rewriter.insert(attention, New { op, operands: &operands, attributes, name });
    let results = fused.results();
    rewriter.replace(q.rope, &results[..1]);
    rewriter.replace(write, &results[1..]);
    Ok(())
}

/// The columns of one of q and k, normed, then rotated; each made for the next alone.
struct Heads<'c, 'm> {
    columns: Op<'c, 'm>,
    norm: Op<'c, 'm>,
    rope: Op<'c, 'm>,
}

impl<'c, 'm> Heads<'c, 'm> {
    fn of(value: Value<'c, 'm>, reader: Op<'c, 'm>) -> Result<Self, Decline> {
        let rope = value.must_be_made_for(reader, "rope")?;
        let norm = rope.operand("x").must_be_made_for(rope, "head_norm")?;
        let columns = norm.operand("x").must_be_made_for(norm, "columns")?;
        Ok(Self { columns, norm, rope })
    }
}

crate::rewrite::doc_test!();
