//! Draws models of sizes that no kernel block fits, and prompts for them, each from a seed.

use std::ops::ControlFlow;
use std::path::Path;

use sail_models::synth::Synth;
use sail_models::{Model, ModelError, ModelSpec, WeightSource};
use serde_json::{Value, json};

use crate::oracle::Prompt;

/// The id of `<|im_end|>`; bytes come before, 33 more added tokens behind.
const END_ID: u64 = 270;

/// A stream of numbers that only its seed decides (splitmix64).
#[derive(Debug)]
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn within(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        range.start() + self.next() % (range.end() - range.start() + 1)
    }
}

/// Write the checkpoint of `seed` into `folder` and open it.
///
/// Widths, heads, experts, patches and vocabulary are drawn; most are multiples of nothing.
pub fn model(seed: u64, folder: &Path) -> Result<Model, ModelError> {
    let config = config(seed).to_string();
    Synth { config: &config, seed, shards: Some(1 + seed % 3), tokenizer: None }
        .write(folder, &mut |_, _| ControlFlow::Continue(()))?;
    sail_models::open(folder, WeightSource::Checkpoint)
}

fn config(seed: u64) -> Value {
    let mut draw = Draw(seed);
    let patch = draw.within(2..=9);
    let tile = patch * 2 * draw.within(1..=3);
    json!({
        "architectures": ["SAILVLModel"], "model_type": "sailvl", "torch_dtype": "bfloat16",
        "downsample_ratio": 0.5, "dynamic_image_size": true, "force_image_size": tile,
        "select_layer": -1, "ps_version": "v2", "pad2square": false, "template": "univl-chat",
        "use_thumbnail": true, "min_dynamic_patch": 1, "max_dynamic_patch": 12,
        "vision_config": vision(&mut draw, tile, patch),
        "llm_config": language_model(&mut draw),
    })
}

fn vision(draw: &mut Draw, tile: u64, patch: u64) -> Value {
    let heads = draw.within(1..=4);
    let head_width = 2 * draw.within(3..=18); // pairs, as everywhere
    json!({
        "model_type": "sailvit", "architectures": ["SAILViTModel"], "num_channels": 3,
        "image_size": tile, "patch_size": patch, "rms_norm_eps": 1e-5,
        "qkv_bias": false, "use_bias": false,
        "num_attention_heads": heads, "hidden_size": heads * head_width,
        "intermediate_size": draw.within(17..=131), "num_hidden_layers": draw.within(1..=2),
    })
}

fn language_model(draw: &mut Draw) -> Value {
    let kv_heads = draw.within(1..=3);
    let experts = draw.within(3..=9);
    let with_experts = draw.within(0..=1) == 1;
    let (model_type, class) = match with_experts {
        true => ("qwen3_moe", "Qwen3MoeForCausalLM"),
        false => ("qwen3", "Qwen3ForCausalLM"),
    };
    let mut config = json!({
        "model_type": model_type, "architectures": [class], "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "rope_theta": 1_000_000, "rope_scaling": null,
        "max_position_embeddings": 4096, "attention_bias": false, "use_sliding_window": false,
        "sliding_window": null, "tie_word_embeddings": draw.within(0..=1) == 1,
        "eos_token_id": END_ID, "pad_token_id": END_ID, "do_sample": false,
        "vocab_size": END_ID + 33 + draw.within(0..=40), "hidden_size": draw.within(24..=150),
        "num_key_value_heads": kv_heads, "num_attention_heads": kv_heads * draw.within(1..=4),
        "head_dim": 2 * draw.within(3..=20), "intermediate_size": draw.within(11..=170),
        "num_hidden_layers": draw.within(1..=3),
    });
    if with_experts {
        config["num_experts"] = json!(experts);
        config["num_experts_per_tok"] = json!(draw.within(1..=experts - 1));
        config["moe_intermediate_size"] = json!(draw.within(5..=60));
        config["norm_topk_prob"] = json!(draw.within(0..=1) == 1);
        config["decoder_sparse_step"] = json!(draw.within(1..=2));
        config["mlp_only_layers"] = json!([]);
    }
    config
}

/// A prompt of `seed`: some bytes, the places of up to three image tiles, more bytes.
#[must_use]
pub fn prompt(spec: &ModelSpec, seed: u64) -> Prompt {
    let mut draw = Draw(!seed);
    let tiles = draw.within(0..=3);
    let side = spec.vision.tile_size as usize;
    let image_places = tiles * spec.adapter.tile_tokens;
    let (before, after) = (draw.within(1..=20), draw.within(1..=90));
    let mut ids: Vec<u32> = (0..before).map(|_| draw.within(0..=255) as u32).collect();
    ids.extend((0..image_places).map(|_| spec.tokens.image_context));
    ids.extend((0..after).map(|_| draw.within(0..=255) as u32));
    let bytes = tiles as usize * side * side * 3;
    Prompt { ids, tiles: (0..bytes).map(|_| draw.next() as u8).collect() }
}
