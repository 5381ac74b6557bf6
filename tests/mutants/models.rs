//! Small models whose kernels have work enough to go wrong: rings of stages that wrap, ragged tiles of
//! rows and of outputs, each shape of a tile that the published sizes get.

use std::ops::ControlFlow;
use std::path::Path;

use sail_ir::artifact::Artifact;
use sail_ir::help::report;
use sail_ir::{CacheScheme, Scheme, Target};
use sail_models::synth::Synth;
use sail_ptxsim::{alone, mutants};
use sail_tests::harness::{Outcome, failed, told};
use sailc::options::Options;
use serde_json::{Value, json};

use super::score::Entry;

/// A model, and how it is compiled.
#[derive(Debug, Clone)]
pub struct Case {
    pub model: &'static str,
    pub scheme: Scheme,
    pub cache: CacheScheme,
}

impl Case {
    /// Every model in every scheme, and in every form of the cache.
    pub fn all() -> Vec<Self> {
        let models = ["dense", "experts"];
        let schemes = Scheme::ALL.map(|scheme| (scheme, CacheScheme::Bf16)).into_iter();
        let caches = CacheScheme::ALL.into_iter().filter(|cache| *cache != CacheScheme::Bf16);
        let ways: Vec<_> = schemes.chain(caches.map(|cache| (Scheme::Bf16, cache))).collect();
        let of = |model| {
            let ways = ways.clone().into_iter();
            ways.map(move |(scheme, cache)| Self { model, scheme, cache })
        };
        models.into_iter().flat_map(of).collect()
    }

    pub fn name(&self) -> String {
        format!("{} {} with a {} cache", self.model, self.scheme, self.cache)
    }

    /// Compile it for `target` into `folder`, and take its kernels apart; nothing where the target lacks
    /// a kernel for it.
    pub fn built(&self, target: &Target, folder: &Path) -> Result<Option<Built>, Outcome> {
        let checkpoint = folder.join(self.model);
        if !checkpoint.exists() {
            let config = config(self.model).to_string();
            Synth { config: &config, seed: 7, shards: None, tokenizer: None }
                .write(&checkpoint, &mut |_, _| ControlFlow::Continue(()))
                .map_err(told)?;
        }
        let file = folder.join(format!("{}.{}.{}.sail", self.model, self.scheme, self.cache));
        let (scheme, cache) = (self.scheme, self.cache);
        let options = Options { scheme, cache, threads: 2, ..Options::new(target.clone()) };
        let go_on = &mut |_, _| ControlFlow::Continue(());
        match sailc::pipeline::compile(&checkpoint, &options, &file, go_on) {
            Err(error) if matches!(error.code(), "SC0307" | "SC0310") => return Ok(None),
            done => done.map_err(|error| failed(report(error.as_ref())))?,
        };
        let artifact = Artifact::open(&file).map_err(told)?;
        let text = String::from_utf8_lossy(artifact.code()).into_owned();
        let kernels = artifact.manifest().plan.kernels.iter();
        let entries = kernels.map(|(_, kernel)| {
            let entry = kernel.cuda.as_ref().expect("it is for a CUDA target").entry.clone();
            let text = alone(&text, &entry).map_err(failed)?;
            let gone = mutants(&text).map_err(failed)?;
            let gone = gone.into_iter().map(|it| (it.instruction, it.replacement)).collect();
            Ok(Entry::new(&kernel.family, &kernel.symbol, entry, gone))
        });
        let entries = entries.collect::<Result<Vec<_>, Outcome>>()?;
        Ok(Some(Built { case: self.clone(), file, entries }))
    }
}

/// A compiled case.
#[derive(Debug)]
pub struct Built {
    pub case: Case,
    pub file: std::path::PathBuf,
    pub entries: Vec<Entry>,
}

/// Widths are chosen so: seven steps of 128 bytes and more along every K in `int8`, none of them whole;
/// products of 4224 outputs and more, and of 8448 for few rows, which have wider tiles; 144 patches and
/// prompts that are no multiple of any tile. Most rows end in the first two of four stages of 64 bytes, in
/// bf16 and in `int8`, where sums are put that other warps may still be reading steps from.
fn config(model: &str) -> Value {
    let vision = json!({
        "model_type": "sailvit", "architectures": ["SAILViTModel"], "num_channels": 3,
        "image_size": 120, "patch_size": 10, "rms_norm_eps": 1e-5, "qkv_bias": false,
        "use_bias": false, "num_attention_heads": 14, "hidden_size": 784,
        "intermediate_size": if model == "dense" { 832 } else { 900 }, "num_hidden_layers": 1,
    });
    let mut decoder = json!({
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "rope_theta": 1_000_000, "rope_scaling": null,
        "max_position_embeddings": 4096, "attention_bias": false, "use_sliding_window": false,
        "sliding_window": null, "tie_word_embeddings": false, "eos_token_id": 270,
        "pad_token_id": 270, "do_sample": false, "vocab_size": 8704, "hidden_size": 808,
        "num_attention_heads": 24, "num_key_value_heads": 6, "head_dim": 128,
        "intermediate_size": 4352, "num_hidden_layers": 1,
    });
    if model == "experts" {
        let other = json!({
            "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"],
            "vocab_size": 900, "hidden_size": 824, "num_attention_heads": 7,
            "num_key_value_heads": 1, "intermediate_size": 900, "moe_intermediate_size": 808,
            "num_experts": 40, "num_experts_per_tok": 2, "norm_topk_prob": true,
            "decoder_sparse_step": 1, "mlp_only_layers": [], "tie_word_embeddings": true,
        });
        let other = other.as_object().expect("it is one").clone();
        decoder.as_object_mut().expect("it is one").extend(other);
    }
    json!({
        "architectures": ["SAILVLModel"], "model_type": "sailvl", "torch_dtype": "bfloat16",
        "downsample_ratio": 0.5, "dynamic_image_size": true, "force_image_size": 120,
        "select_layer": -1, "ps_version": "v2", "pad2square": false, "template": "univl-chat",
        "use_thumbnail": true, "min_dynamic_patch": 1, "max_dynamic_patch": 2,
        "vision_config": vision, "llm_config": decoder,
    })
}
