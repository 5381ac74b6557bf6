//! A small, valid checkpoint for tests to break.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use expect_test::Expect;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::error::ModelError;
use crate::hf_config::{JsonObject, RawConfig, RawTokenizer};
use crate::sail_vl2::config::spec;
use crate::spec::ModelSpec;
use crate::synth::Synth;
use crate::weights::WeightSource;

/// `config.json` of a mixture of experts with no two equal widths, one dense layer among three.
pub fn config() -> String {
    let vision = json!({
        "model_type": "sailvit", "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 3, "num_channels": 3, "image_size": 56,
        "patch_size": 14, "rms_norm_eps": 1e-5, "qkv_bias": false, "use_bias": false,
    });
    let llm = json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 32,
        "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 10, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "rope_theta": 1000000, "rope_scaling": null, "max_position_embeddings": 4096,
        "use_sliding_window": false, "sliding_window": null, "attention_bias": false,
        "tie_word_embeddings": false, "vocab_size": 300, "eos_token_id": 260,
        "pad_token_id": 258, "do_sample": false, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 16, "norm_topk_prob": true, "decoder_sparse_step": 1,
        "mlp_only_layers": [1],
    });
    let config = json!({
        "architectures": ["SAILVLModel"], "model_type": "sailvl", "downsample_ratio": 0.5,
        "dynamic_image_size": true, "force_image_size": 56, "select_layer": -1,
        "ps_version": "v2", "pad2square": false, "template": "univl-chat", "use_thumbnail": true,
        "min_dynamic_patch": 1, "max_dynamic_patch": 12, "torch_dtype": "bfloat16",
        "vision_config": vision, "llm_config": llm,
    });
    format!("{config:#}")
}

/// `preprocessor_config.json` that goes with [`config`].
pub fn preprocessor() -> String {
    let file = json!({
        "max_dynamic_patch": 6, "patch_size": 14, "image_size": 56, "use_msac": false,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    });
    format!("{file:#}")
}

/// A checkpoint of [`config`] in a folder of its own, in `shards` files.
pub fn checkpoint(shards: u64) -> (TempDir, std::path::PathBuf) {
    checkpoint_of(&config(), shards)
}

/// A checkpoint of `config` in a folder of its own, in `shards` files.
pub fn checkpoint_of(config: &str, shards: u64) -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("checkpoint");
    let synth = Synth { config, seed: 1, shards: Some(shards), tokenizer: None };
    synth.write(&out, &mut |_, _| ControlFlow::Continue(())).unwrap();
    (folder, out)
}

/// The spec of a `config.json` with the tokens it names.
pub fn spec_of(config: &str) -> ModelSpec {
    raw_of(config, &preprocessor_of(config)).and_then(|raw| spec(&raw)).unwrap()
}

fn preprocessor_of(config: &str) -> String {
    let config: Value = serde_json::from_str(config).unwrap();
    let vision = &config["vision_config"];
    preprocessor()
        .replace("\"patch_size\": 14", &format!("\"patch_size\": {}", vision["patch_size"]))
        .replace("\"image_size\": 56", &format!("\"image_size\": {}", vision["image_size"]))
}

/// The raw config that these texts are, with a tokenizer whose ids are below 300.
pub fn raw_of(config: &str, preprocessor: &str) -> Result<RawConfig, ModelError> {
    let image = [("<img>", 284), ("</img>", 285), ("<IMG_CONTEXT>", 286), ("</box>", 292)];
    let added = [("<|im_start|>", 259), ("<|im_end|>", 260)].into_iter().chain(image);
    let added = added.map(|(token, id)| (token.to_owned(), id)).collect();
    Ok(RawConfig {
        config: JsonObject::parse("config.json", config)?,
        preprocessor: Some(JsonObject::parse("preprocessor_config.json", preprocessor)?),
        generation: None,
        tokenizer: RawTokenizer { added, largest_id: 292 },
        tokenizer_text: String::new(),
        chat_template: None,
    })
}

/// `text` with the JSON value at `pointer` replaced, or taken out.
pub fn edited(text: &str, pointer: &str, value: Option<Value>) -> String {
    let mut file: Value = serde_json::from_str(text).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let object = file.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => object.insert(key.to_owned(), value),
        None => object.remove(key),
    };
    file.to_string()
}

/// Replace the text of a file.
pub fn rewrite(path: &Path, change: impl FnOnce(String) -> String) {
    fs::write(path, change(fs::read_to_string(path).unwrap())).unwrap();
}

/// The whole message, with the folder's name left out.
pub fn message(error: &ModelError, dir: &Path) -> String {
    sail_ir::help::report(error).replace(dir.to_str().unwrap(), "DIR")
}

/// A way to break a checkpoint.
pub type Spoil<'a> = &'a dyn Fn(&Path);

/// The refusals of a checkpoint in `shards` files, each after one of `spoils`.
pub fn check_refusals(shards: u64, spoils: &[Spoil], expected: Expect) {
    let refusals = spoils.iter().map(|spoil| {
        let (_folder, dir) = checkpoint(shards);
        spoil(&dir);
        message(&crate::open(&dir, WeightSource::Checkpoint).unwrap_err(), &dir)
    });
    expected.assert_eq(&refusals.collect::<Vec<_>>().join("\n----\n"));
}

/// Write one file of the checkpoint.
pub fn put(name: &str, bytes: impl AsRef<[u8]>) -> impl Fn(&Path) {
    move |dir| fs::write(dir.join(name), &bytes).unwrap()
}

/// Remove one file of the checkpoint.
pub fn remove(name: &str) -> impl Fn(&Path) {
    move |dir| fs::remove_file(dir.join(name)).unwrap()
}

/// Put a folder in the place of one file.
pub fn folder(name: &str) -> impl Fn(&Path) {
    move |dir| {
        fs::remove_file(dir.join(name)).unwrap();
        fs::create_dir(dir.join(name)).unwrap();
    }
}
