//! The vision tower: SAIL-ViT, which is AIMv2. Every image tile is seen alone.
//!
//! Letters used in shapes: `n` image tiles, `s` pixels along a tile's edge, `p` patches of a tile,
//! `d` tower width, `f` feed-forward width.
//!
//! Source: `modeling_sailvit.py` of the published checkpoint. No class token, no rotary positions,
//! no norm of queries and keys; one learned position per patch, added *after* the first norm.

use sail_ir::GraphBuilder;

use super::names::VISION_BLOCKS;
use crate::spec::{VisionFeature, VisionSpec};

/// Pixels `[n, 3, s, s]` to the values the adapter reads, `[n, p, d]`.
pub fn tower<G: GraphBuilder>(g: &mut G, spec: &VisionSpec, pixels: G::Value) -> G::Value {
    g.tap("pixels", pixels);
    let mut x = patches(g, spec, pixels);
    g.tap("vit.0", x);
    for index in 0..spec.blocks_run() {
        x = block(g, spec, index, x);
        g.tap(&format!("vit.{}", index + 1), x);
    }
    if spec.feature == VisionFeature::Final {
        let norm = g.weight("vision_model.trunk.post_trunk_norm.weight");
        x = g.rms_norm(x, norm, spec.norm_eps);
    }
    g.tap("vision", x);
    x
}

/// The convolution with stride = kernel = patch, as a product; then norm, then positions.
fn patches<G: GraphBuilder>(g: &mut G, spec: &VisionSpec, pixels: G::Value) -> G::Value {
    let path = "vision_model.preprocessor";
    let weight = g.weight(&format!("{path}.patchifier.proj.weight"));
    let bias = g.weight(&format!("{path}.patchifier.proj.bias"));
    let x = g.patches(pixels, spec.patch_size);
    let x = g.linear_bias(x, weight, bias);

    let norm = g.weight(&format!("{path}.patchifier.norm.weight"));
    let x = g.rms_norm(x, norm, spec.norm_eps);
    let positions = g.weight(&format!("{path}.pos_embed"));
    g.add_positions(x, positions)
}

/// One block: attention, then feed-forward, each added to its input. `x` is `[n, p, d]`, so is the
/// result.
fn block<G: GraphBuilder>(g: &mut G, spec: &VisionSpec, index: u64, x: G::Value) -> G::Value {
    let path = format!("{VISION_BLOCKS}.{index}");

    let norm = g.weight(&format!("{path}.norm_1.weight"));
    let h = g.rms_norm(x, norm, spec.norm_eps);
    let qkv = g.weight(&format!("{path}.attn.qkv.weight"));
    let qkv = g.linear(h, qkv);
    let attended = g.tile_attention(qkv, spec.heads);
    let proj = g.weight(&format!("{path}.attn.proj.weight"));
    let attended = g.linear(attended, proj);
    let x = g.add(x, attended);

    let norm = g.weight(&format!("{path}.norm_2.weight"));
    let h = g.rms_norm(x, norm, spec.norm_eps);
    let mixed = feed_forward(g, &format!("{path}.mlp"), h);
    g.add(x, mixed)
}

/// `fc1` is the gate, `fc3` goes up, `fc2` comes down.
fn feed_forward<G: GraphBuilder>(g: &mut G, path: &str, h: G::Value) -> G::Value {
    let [gate, up, down] =
        ["fc1", "fc3", "fc2"].map(|part| g.weight(&format!("{path}.{part}.weight")));
    let gated = g.linear(h, gate);
    let gated = g.silu(gated);
    let raised = g.linear(h, up);
    let product = g.mul(gated, raised);
    g.linear(product, down)
}
