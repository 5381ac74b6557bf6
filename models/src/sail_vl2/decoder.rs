//! The language model: Qwen3 blocks, dense or mixture-of-experts.
//!
//! Letters used in shapes: `t` tokens, `d` model width, `h` query heads, `g` key/value heads,
//! `e` values per head, `v` vocabulary. `h * e` need not equal `d` (it does not for A3B).
//!
//! Source: `Qwen3DecoderLayer` and `Qwen3MoeSparseMoeBlock`, transformers 4.51.3.
//! Nothing here knows of fusion, quantization, targets or the caches' layout; those are passes.

use sail_ir::GraphBuilder;

use super::names::{EMBEDDING, HEAD, LAYERS};
use crate::spec::{DecoderSpec, FeedForward, Head};

/// Token ids `[t]` to their rows of the embedding table, `[t, d]`.
pub fn embed<G: GraphBuilder>(g: &mut G, ids: G::Value) -> G::Value {
    let table = g.weight(EMBEDDING);
    g.embed(ids, table)
}

/// All blocks, the last norm and the head: `[t, d]` at `rows` (slot, position) to logits `[t, v]`.
pub fn decoder<G: GraphBuilder>(
    g: &mut G,
    spec: &DecoderSpec,
    mut x: G::Value,
    rows: G::Value,
) -> G::Value {
    g.tap("layers.0", x);
    for layer in 0..spec.layers() {
        x = block(g, spec, layer, x, rows);
        g.tap(&format!("layers.{}", layer + 1), x);
    }

    let norm = g.weight("language_model.model.norm.weight");
    let x = g.rms_norm(x, norm, spec.norm_eps);
    let head = g.weight(match spec.head {
        Head::Stored => HEAD,
        Head::Embedding => EMBEDDING,
    });
    g.linear(x, head)
}

/// One block: attention, then feed-forward, each added to its input. `x` is `[t, d]`, so is the
/// result.
fn block<G: GraphBuilder>(
    g: &mut G,
    spec: &DecoderSpec,
    layer: u64,
    x: G::Value,
    rows: G::Value,
) -> G::Value {
    let path = format!("{LAYERS}.{layer}");

    let norm = g.weight(&format!("{path}.input_layernorm.weight"));
    let h = g.rms_norm(x, norm, spec.norm_eps);
    let attended = attention(g, spec, layer, h, rows);
    let x = g.add(x, attended);

    let norm = g.weight(&format!("{path}.post_attention_layernorm.weight"));
    let h = g.rms_norm(x, norm, spec.norm_eps);
    let mixed = match spec.feed_forward[layer as usize] {
        FeedForward::Dense { .. } => dense(g, &format!("{path}.mlp"), h),
        FeedForward::Experts { count, top_k, renormalize, .. } => {
            let router = g.weight(&format!("{path}.mlp.gate.weight"));
            let logits = g.linear(h, router);
            g.tap(&format!("router.{layer}"), logits);
            let route = g.route(logits, top_k, renormalize);
            let experts = experts(g, &format!("{path}.mlp.experts"), count);
            g.experts(h, route, experts)
        }
    };
    g.add(x, mixed)
}

/// Queries and keys are normalized per head, then turned by their position; `h` query heads share
/// `g` heads of keys and values.
fn attention<G: GraphBuilder>(
    g: &mut G,
    spec: &DecoderSpec,
    layer: u64,
    h: G::Value,
    rows: G::Value,
) -> G::Value {
    let path = format!("{LAYERS}.{layer}.self_attn");
    let [q, k, v] =
        ["q_proj", "k_proj", "v_proj"].map(|part| g.weight(&format!("{path}.{part}.weight")));
    let q = g.linear(h, q);
    let k = g.linear(h, k);
    let v = g.linear(h, v);

    let [q_norm, k_norm] =
        ["q_norm", "k_norm"].map(|part| g.weight(&format!("{path}.{part}.weight")));
    let q = g.head_norm(q, q_norm, spec.norm_eps);
    let k = g.head_norm(k, k_norm, spec.norm_eps);
    let q = g.rope(q, rows, spec.head_width, spec.rope_theta);
    let k = g.rope(k, rows, spec.head_width, spec.rope_theta);

    let cache = g.cache(layer, spec.kv_heads, spec.head_width);
    let cache = g.cache_write(cache, k, v, rows);
    let attended = g.attention(q, cache, rows);
    let output = g.weight(&format!("{path}.o_proj.weight"));
    g.linear(attended, output)
}

fn dense<G: GraphBuilder>(g: &mut G, path: &str, h: G::Value) -> G::Value {
    let [gate, up, down] = ["gate_proj", "up_proj", "down_proj"]
        .map(|part| g.weight(&format!("{path}.{part}.weight")));
    let gated = g.linear(h, gate);
    let gated = g.silu(gated);
    let raised = g.linear(h, up);
    let product = g.mul(gated, raised);
    g.linear(product, down)
}

/// The experts' weights, each of the three parts stacked: gate, up, down.
fn experts<G: GraphBuilder>(g: &mut G, path: &str, count: u64) -> [G::Value; 3] {
    ["gate_proj", "up_proj", "down_proj"].map(|part| {
        let paths: Vec<String> =
            (0..count).map(|expert| format!("{path}.{expert}.{part}.weight")).collect();
        g.stacked_weights(&paths)
    })
}
