//! The published sizes without their weights: enough to plan them and to generate their code.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sail_models::synth::{SIZES, Synth};
use serde_json::{Value, json};

use crate::harness::{Outcome, failed, told};

/// A checkpoint folder of a published size that lacks its weights: the files of one with tiny layers and
/// the same words, and the config of the size.
pub fn without_weights(size: &str, folder: &Path) -> Result<PathBuf, Outcome> {
    let (_, config) = SIZES.iter().find(|(name, _)| *name == size).expect("it is one of them");
    let mut tiny: Value = serde_json::from_str(config).map_err(failed)?;
    let sizes = |heads: &str| json!({"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, heads: 1});
    let shrink = |part: &mut Value, to: Value| {
        let to = to.as_object().expect("it is one").clone();
        part.as_object_mut().expect("a part of the config").extend(to);
    };
    shrink(&mut tiny["vision_config"], sizes("num_attention_heads"));
    shrink(&mut tiny["llm_config"], sizes("num_attention_heads"));
    shrink(&mut tiny["llm_config"], json!({"num_key_value_heads": 1, "head_dim": 8}));
    if tiny["llm_config"]["num_experts"].is_u64() {
        let experts =
            json!({"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8});
        shrink(&mut tiny["llm_config"], experts);
    }
    let folder = folder.join(size);
    Synth { config: &tiny.to_string(), seed: 1, shards: None, tokenizer: None }
        .write(&folder, &mut |_, _| ControlFlow::Continue(()))
        .map_err(told)?;
    fs::write(folder.join("config.json"), config).map_err(failed)?;
    Ok(folder)
}
