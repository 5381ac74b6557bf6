//! The tensors of a SAIL-VL2 checkpoint: names, shapes, and the config keys that give them.
//!
//! The order is the published modules' own (the order of `state_dict()`), which decides how a
//! checkpoint is cut into shards. The experts' names are Qwen3-MoE's under `language_model.`;
//! no such SAIL-VL2 checkpoint has been published.

use crate::spec::{FeedForward, Head, ModelSpec};
use crate::tensor::{Draw, Tensor};

/// Prefix of the vision tower's blocks.
pub const VISION_BLOCKS: &str = "vision_model.trunk.blocks";
/// Prefix of the decoder's layers.
pub const LAYERS: &str = "language_model.model.layers";
pub const EMBEDDING: &str = "language_model.model.embed_tokens.weight";
pub const HEAD: &str = "language_model.lm_head.weight";

type Dim = (u64, &'static str);

/// Every tensor the model of `spec` reads, in the order of the published modules.
///
/// [`Head::Embedding`] leaves the head's tensor out.
pub fn tensors(spec: &ModelSpec) -> Vec<Tensor> {
    let mut list = List(Vec::new());
    vision(&mut list, spec);
    decoder(&mut list, spec);
    adapter(&mut list, spec);
    list.0
}

struct List(Vec<Tensor>);

impl List {
    fn add(&mut self, name: &str, dims: &[Dim], draw: Draw) {
        self.0.push(Tensor { name: name.to_owned(), dims: dims.to_vec(), draw });
    }

    fn norm(&mut self, name: &str, width: Dim) {
        self.add(name, &[width], Draw::NORM);
    }

    fn linear(&mut self, name: &str, outputs: Dim, inputs: Dim) {
        self.add(name, &[outputs, inputs], Draw::product(inputs.0, 1.0));
    }
}

fn vision(list: &mut List, spec: &ModelSpec) {
    let v = &spec.vision;
    let width = (v.width, "`vision_config.hidden_size`");
    let patches = (v.patches(), "(`vision_config.image_size` / `vision_config.patch_size`)²");
    let edge = (v.patch_size, "`vision_config.patch_size`");
    let channels = (v.channels, "`vision_config.num_channels`");
    let ff = (v.ff_width, "`vision_config.intermediate_size`");

    list.add("vision_model.preprocessor.pos_embed", &[(1, ""), patches, width], Draw::EMBEDDING);
    let patchifier = "vision_model.preprocessor.patchifier";
    let conv = Draw::product(v.patch_values(), 1.0);
    list.add(&format!("{patchifier}.proj.weight"), &[width, channels, edge, (edge.0, "")], conv);
    list.add(&format!("{patchifier}.proj.bias"), &[width], Draw::BIAS);
    list.norm(&format!("{patchifier}.norm.weight"), width);
    for index in 0..v.layers {
        let path = format!("{VISION_BLOCKS}.{index}");
        let qkv = (3 * v.width, "3 × `vision_config.hidden_size`");
        list.linear(&format!("{path}.attn.qkv.weight"), qkv, width);
        list.linear(&format!("{path}.attn.proj.weight"), width, width);
        list.norm(&format!("{path}.norm_1.weight"), width);
        list.linear(&format!("{path}.mlp.fc1.weight"), ff, width);
        list.linear(&format!("{path}.mlp.fc2.weight"), width, ff);
        list.linear(&format!("{path}.mlp.fc3.weight"), ff, width);
        list.norm(&format!("{path}.norm_2.weight"), width);
    }
    list.norm("vision_model.trunk.post_trunk_norm.weight", width);
}

fn decoder(list: &mut List, spec: &ModelSpec) {
    let d = &spec.decoder;
    let width = (d.width, "`llm_config.hidden_size`");
    let vocab = (d.vocab, "`llm_config.vocab_size`");
    list.add(EMBEDDING, &[vocab, width], Draw::EMBEDDING);
    for (index, feed_forward) in d.feed_forward.iter().enumerate() {
        let path = format!("{LAYERS}.{index}");
        attention(list, spec, &format!("{path}.self_attn"));
        match *feed_forward {
            FeedForward::Dense { width: ff } => {
                let ff = (ff, "`llm_config.intermediate_size`");
                gated(list, &format!("{path}.mlp"), ff, width);
            }
            FeedForward::Experts { count, width: ff, .. } => {
                let experts = [(count, "`llm_config.num_experts`"), width];
                let ff = (ff, "`llm_config.moe_intermediate_size`");
                list.add(&format!("{path}.mlp.gate.weight"), &experts, Draw::product(width.0, 1.5));
                for expert in 0..count {
                    gated(list, &format!("{path}.mlp.experts.{expert}"), ff, width);
                }
            }
        }
        list.norm(&format!("{path}.input_layernorm.weight"), width);
        list.norm(&format!("{path}.post_attention_layernorm.weight"), width);
    }
    list.norm("language_model.model.norm.weight", width);
    if d.head == Head::Stored {
        list.add(HEAD, &[vocab, width], Draw::product(d.width, 1.5));
    }
}

fn attention(list: &mut List, spec: &ModelSpec, path: &str) {
    let d = &spec.decoder;
    let width = (d.width, "`llm_config.hidden_size`");
    let q = (d.q_width(), "`llm_config.num_attention_heads` × `llm_config.head_dim`");
    let kv = (d.kv_width(), "`llm_config.num_key_value_heads` × `llm_config.head_dim`");
    let head = (d.head_width, "`llm_config.head_dim`");
    list.linear(&format!("{path}.q_proj.weight"), q, width);
    list.linear(&format!("{path}.k_proj.weight"), kv, width);
    list.linear(&format!("{path}.v_proj.weight"), kv, width);
    list.linear(&format!("{path}.o_proj.weight"), width, q);
    list.norm(&format!("{path}.q_norm.weight"), head);
    list.norm(&format!("{path}.k_norm.weight"), head);
}

fn gated(list: &mut List, path: &str, ff: Dim, width: Dim) {
    list.linear(&format!("{path}.gate_proj.weight"), ff, width);
    list.linear(&format!("{path}.up_proj.weight"), ff, width);
    list.linear(&format!("{path}.down_proj.weight"), width, ff);
}

fn adapter(list: &mut List, spec: &ModelSpec) {
    let a = &spec.adapter;
    let wide = (a.in_width, "4 × `vision_config.hidden_size`");
    let width = (a.out_width, "`llm_config.hidden_size`");
    list.norm("mlp1.0.weight", wide);
    list.add("mlp1.0.bias", &[wide], Draw::BIAS);
    list.linear("mlp1.1.weight", width, wide);
    list.add("mlp1.1.bias", &[width], Draw::BIAS);
    list.linear("mlp1.3.weight", width, width);
    list.add("mlp1.3.bias", &[width], Draw::BIAS);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::published;
    use crate::testing::spec_of;

    /// Sizes of the published 2B, and those its description gives for the two others.
    #[test]
    fn every_published_size_has_its_number_of_tensors_and_bytes() {
        for (size, count, bytes) in [
            ("2b", 490, 5_461_130_240),
            ("8b", 578, 17_829_460_992),
            ("30b-a3b", 19_046, 62_461_895_680),
        ] {
            let tensors = tensors(&spec_of(published(size).unwrap()));
            assert_eq!(tensors.len(), count, "{size}");
            assert_eq!(tensors.iter().map(Tensor::bytes).sum::<u64>(), bytes, "{size}");
        }
    }
}
