//! The forward pass as it is told to a builder that writes down what it hears.

use std::collections::BTreeSet;
use std::fmt::Write;

use expect_test::expect;
use sail_ir::op::{Attribute, Attributes};

use super::*;
use crate::sail_vl2::names;
use crate::spec::{Head, VisionFeature};
use crate::synth::published;
use crate::testing::{config, spec_of};

/// Writes each verb on a line; values are numbered.
#[derive(Default)]
struct Scribe {
    text: String,
    values: usize,
    read: BTreeSet<String>,
}

impl Scribe {
    fn value(&mut self, line: &str) -> usize {
        self.values += 1;
        writeln!(self.text, "{}: {line}", self.values).unwrap();
        self.values
    }
}

impl GraphBuilder for Scribe {
    type Value = usize;

    fn weight(&mut self, path: &str) -> usize {
        self.read.insert(path.to_owned());
        self.value(path)
    }

    fn stacked_weights(&mut self, paths: &[String]) -> usize {
        self.read.extend(paths.iter().cloned());
        self.value(&format!("{} ... {} others", paths[0], paths.len() - 1))
    }

    fn emit(
        &mut self,
        name: &'static str,
        operands: &[usize],
        attributes: Attributes,
    ) -> Vec<usize> {
        let mut line = format!("{name} {operands:?}");
        for (key, value) in attributes {
            match value {
                Attribute::Int(value) => write!(line, " {key}={value}").unwrap(),
                Attribute::Float(value) => write!(line, " {key}={value:?}").unwrap(),
                Attribute::Bool(value) => write!(line, " {key}={value}").unwrap(),
                other => panic!("no verb has {other:?}"),
            }
        }
        let first = self.value(&line);
        let results = if name == "route" { 2 } else { 1 };
        self.values += results - 1;
        (first..first + results).collect()
    }

    fn tap(&mut self, name: &str, x: usize) {
        writeln!(self.text, "   tap {name} {x}").unwrap();
    }
}

fn whole(spec: &ModelSpec) -> Scribe {
    let mut g = Scribe::default();
    let features = vision(&mut g, spec, 0);
    prefill(&mut g, spec, &Prompt { ids: 0, rows: 0, image_rows: 0, features, outputs: 0 });
    g
}

#[test]
fn vision_reads_like_the_paper() {
    let mut spec = spec_of(&config());
    spec.vision.layers = 1;
    let mut g = Scribe::default();
    vision(&mut g, &spec, 0);
    expect![[r#"
           tap pixels 0
        1: vision_model.preprocessor.patchifier.proj.weight
        2: vision_model.preprocessor.patchifier.proj.bias
        3: patches [0] patch=14
        4: linear_bias [3, 1, 2]
        5: vision_model.preprocessor.patchifier.norm.weight
        6: rms_norm [4, 5] eps=1e-5
        7: vision_model.preprocessor.pos_embed
        8: add_positions [6, 7]
           tap vit.0 8
        9: vision_model.trunk.blocks.0.norm_1.weight
        10: rms_norm [8, 9] eps=1e-5
        11: vision_model.trunk.blocks.0.attn.qkv.weight
        12: linear [10, 11]
        13: tile_attention [12] heads=3
        14: vision_model.trunk.blocks.0.attn.proj.weight
        15: linear [13, 14]
        16: add [8, 15]
        17: vision_model.trunk.blocks.0.norm_2.weight
        18: rms_norm [16, 17] eps=1e-5
        19: vision_model.trunk.blocks.0.mlp.fc1.weight
        20: vision_model.trunk.blocks.0.mlp.fc3.weight
        21: vision_model.trunk.blocks.0.mlp.fc2.weight
        22: linear [18, 19]
        23: silu [22]
        24: linear [18, 20]
        25: mul [23, 24]
        26: linear [25, 21]
        27: add [16, 26]
           tap vit.1 27
        28: vision_model.trunk.post_trunk_norm.weight
        29: rms_norm [27, 28] eps=1e-5
           tap vision 29
        30: pixel_shuffle [29]
        31: mlp1.0.weight
        32: mlp1.0.bias
        33: layer_norm [30, 31, 32] eps=1e-5
        34: mlp1.1.weight
        35: mlp1.1.bias
        36: linear_bias [33, 34, 35]
        37: gelu [36]
        38: mlp1.3.weight
        39: mlp1.3.bias
        40: linear_bias [37, 38, 39]
           tap image_features 40
    "#]]
    .assert_eq(&g.text);
}

#[test]
fn a_block_with_experts_and_a_dense_block_read_like_the_paper() {
    let mut spec = spec_of(&config());
    spec.decoder.feed_forward.truncate(2);
    let mut g = Scribe::default();
    prefill(&mut g, &spec, &Prompt { ids: 0, rows: 0, image_rows: 0, features: 0, outputs: 0 });
    expect![[r#"
        1: language_model.model.embed_tokens.weight
        2: embed [0, 1]
        3: splice [2, 0, 0]
           tap layers.0 3
        4: language_model.model.layers.0.input_layernorm.weight
        5: rms_norm [3, 4] eps=1e-6
        6: language_model.model.layers.0.self_attn.q_proj.weight
        7: language_model.model.layers.0.self_attn.k_proj.weight
        8: language_model.model.layers.0.self_attn.v_proj.weight
        9: linear [5, 6]
        10: linear [5, 7]
        11: linear [5, 8]
        12: language_model.model.layers.0.self_attn.q_norm.weight
        13: language_model.model.layers.0.self_attn.k_norm.weight
        14: head_norm [9, 12] eps=1e-6
        15: head_norm [10, 13] eps=1e-6
        16: rope [14, 0] head_dim=10 theta=1000000.0
        17: rope [15, 0] head_dim=10 theta=1000000.0
        18: cache [] head_dim=10 kv_heads=2 layer=0
        19: cache_write [18, 17, 11, 0]
        20: attention [16, 19, 0]
        21: language_model.model.layers.0.self_attn.o_proj.weight
        22: linear [20, 21]
        23: add [3, 22]
        24: language_model.model.layers.0.post_attention_layernorm.weight
        25: rms_norm [23, 24] eps=1e-6
        26: language_model.model.layers.0.mlp.gate.weight
        27: linear [25, 26]
           tap router.0 27
        28: route [27] renormalize=true top_k=2
        30: language_model.model.layers.0.mlp.experts.0.gate_proj.weight ... 3 others
        31: language_model.model.layers.0.mlp.experts.0.up_proj.weight ... 3 others
        32: language_model.model.layers.0.mlp.experts.0.down_proj.weight ... 3 others
        33: experts [25, 28, 29, 30, 31, 32]
        34: add [23, 33]
           tap layers.1 34
        35: language_model.model.layers.1.input_layernorm.weight
        36: rms_norm [34, 35] eps=1e-6
        37: language_model.model.layers.1.self_attn.q_proj.weight
        38: language_model.model.layers.1.self_attn.k_proj.weight
        39: language_model.model.layers.1.self_attn.v_proj.weight
        40: linear [36, 37]
        41: linear [36, 38]
        42: linear [36, 39]
        43: language_model.model.layers.1.self_attn.q_norm.weight
        44: language_model.model.layers.1.self_attn.k_norm.weight
        45: head_norm [40, 43] eps=1e-6
        46: head_norm [41, 44] eps=1e-6
        47: rope [45, 0] head_dim=10 theta=1000000.0
        48: rope [46, 0] head_dim=10 theta=1000000.0
        49: cache [] head_dim=10 kv_heads=2 layer=1
        50: cache_write [49, 48, 42, 0]
        51: attention [47, 50, 0]
        52: language_model.model.layers.1.self_attn.o_proj.weight
        53: linear [51, 52]
        54: add [34, 53]
        55: language_model.model.layers.1.post_attention_layernorm.weight
        56: rms_norm [54, 55] eps=1e-6
        57: language_model.model.layers.1.mlp.gate_proj.weight
        58: language_model.model.layers.1.mlp.up_proj.weight
        59: language_model.model.layers.1.mlp.down_proj.weight
        60: linear [56, 57]
        61: silu [60]
        62: linear [56, 58]
        63: mul [61, 62]
        64: linear [63, 59]
        65: add [54, 64]
           tap layers.2 65
        66: language_model.model.norm.weight
        67: rms_norm [65, 66] eps=1e-6
        68: language_model.lm_head.weight
        69: linear [67, 68]
        70: select_rows [69, 0]
           tap logits 70
    "#]]
    .assert_eq(&g.text);
}

#[test]
fn every_tensor_of_the_checkpoint_is_read_and_no_other() {
    for size in ["2b", "8b", "30b-a3b"] {
        let mut spec = spec_of(published(size).unwrap());
        for head in [Head::Stored, Head::Embedding] {
            spec.decoder.head = head;
            let names = names::tensors(&spec).into_iter().map(|tensor| tensor.name).collect();
            assert_eq!(whole(&spec).read, names, "{size} {head:?}");
        }
    }
}

#[test]
fn decode_reads_what_prefill_reads() {
    let spec = spec_of(&config());
    let (mut prompt, mut step) = (Scribe::default(), Scribe::default());
    prefill(
        &mut prompt,
        &spec,
        &Prompt { ids: 0, rows: 0, image_rows: 0, features: 0, outputs: 0 },
    );
    decode(&mut step, &spec, 0, 0);
    assert_eq!(prompt.read, step.read);
}

#[test]
fn an_inner_block_is_read_without_the_last_norm() {
    let mut spec = spec_of(&config());
    spec.vision.feature = VisionFeature::Block(0);
    let g = whole(&spec);
    assert!(g.read.contains("vision_model.trunk.blocks.0.mlp.fc2.weight"));
    assert!(!g.read.contains("vision_model.trunk.blocks.1.mlp.fc2.weight"));
    assert!(!g.read.contains("vision_model.trunk.post_trunk_norm.weight"));
    assert!(g.text.contains("tap vit.1") && !g.text.contains("tap vit.2"));
}
