//! The three functions of a SAIL-VL2 model: what goes in, what comes out.

use sail_ir::GraphBuilder;

use super::adapter::adapter;
use super::decoder::{decoder, embed};
use super::vision::tower;
use crate::spec::ModelSpec;

/// `@vision`: pixels `[n, 3, s, s]` to image features `[n, p/4, d]`.
pub fn vision<G: GraphBuilder>(g: &mut G, spec: &ModelSpec, pixels: G::Value) -> G::Value {
    let x = tower(g, &spec.vision, pixels);
    adapter(g, &spec.adapter, x)
}

/// What `@prefill` is given.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<V> {
    /// Token ids, `[t]`.
    pub ids: V,
    /// Slot and position of each, `[t, 2]`.
    pub rows: V,
    /// Which row of all image features takes a token's place, -1 for none, `[t]`.
    pub image_rows: V,
    /// What `@vision` gave, `[n, p/4, d]`.
    pub features: V,
    /// The tokens whose logits are wanted, `[o]`.
    pub outputs: V,
}

/// `@prefill`: a run of prompt tokens to the logits after some of them, `[o, v]`.
pub fn prefill<G: GraphBuilder>(
    g: &mut G,
    spec: &ModelSpec,
    prompt: &Prompt<G::Value>,
) -> G::Value {
    let x = embed(g, prompt.ids);
    let x = g.splice(x, prompt.features, prompt.image_rows);
    let logits = decoder(g, &spec.decoder, x, prompt.rows);
    let logits = g.select_rows(logits, prompt.outputs);
    g.tap("logits", logits);
    logits
}

/// `@decode`: one token `[t]` of each of `t` sequences, at `rows` (slot, position), to the logits
/// after it, `[t, v]`.
pub fn decode<G: GraphBuilder>(
    g: &mut G,
    spec: &ModelSpec,
    ids: G::Value,
    rows: G::Value,
) -> G::Value {
    let x = embed(g, ids);
    decoder(g, &spec.decoder, x, rows)
}

#[cfg(test)]
mod tests;
