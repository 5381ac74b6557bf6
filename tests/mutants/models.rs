//! Small models whose kernels have work enough to go wrong: rings of stages that wrap, ragged tiles of
//! rows and of outputs, each shape of a tile that the published sizes get.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sail_ir::artifact::Artifact;
use sail_ir::help::report;
use sail_ir::id::Id;
use sail_ir::{CacheScheme, Scheme, Target};
use sail_models::synth::Synth;
use sail_tests::harness::{Outcome, failed, told};
use sailc::options::Options;
use serde_json::{Value, json};

use super::score::{Entry, kind};

const MODELS: [&str; 5] = ["dense", "experts", "many", "spread", "picture"];

/// A model, and how it is compiled.
#[derive(Debug, Clone)]
pub struct Case {
    pub model: &'static str,
    pub scheme: Scheme,
    pub cache: CacheScheme,
    /// Configs that the rule would not choose.
    pub lock: Option<PathBuf>,
}

impl Case {
    /// Every model in every scheme that matters to it, and in every form of the cache.
    pub fn all() -> Vec<Self> {
        let of = |model| {
            Self::ways().map(move |(scheme, cache)| Self { model, scheme, cache, lock: None })
        };
        let mut all: Vec<_> = MODELS.into_iter().flat_map(of).collect();
        all.retain(|case| match case.model {
            "many" => case.scheme.quantizes_activations(),
            "spread" => case.cache == CacheScheme::Bf16,
            "picture" => (case.scheme, case.cache) == (Scheme::Bf16, CacheScheme::Bf16),
            _ => true,
        });
        all
    }

    /// How a model is compiled.
    pub fn ways() -> impl Iterator<Item = (Scheme, CacheScheme)> {
        let schemes = Scheme::ALL.map(|scheme| (scheme, CacheScheme::Bf16)).into_iter();
        let caches = CacheScheme::ALL.into_iter().filter(|cache| *cache != CacheScheme::Bf16);
        schemes.chain(caches.map(|cache| (Scheme::Bf16, cache)))
    }

    pub fn name(&self) -> String {
        let Self { model, scheme, cache, lock } = self;
        let pinned = if lock.is_some() { ", pinned" } else { "" };
        format!("{model} {scheme} with a {cache} cache{pinned}")
    }

    /// The model's files, in `folder`.
    pub fn checkpoint(&self, folder: &Path) -> Result<PathBuf, Outcome> {
        let checkpoint = folder.join(self.model);
        if !checkpoint.exists() {
            let config = config(self.model).to_string();
            Synth { config: &config, seed: 7, shards: None, tokenizer: None }
                .write(&checkpoint, &mut |_, _| ControlFlow::Continue(()))
                .map_err(told)?;
            if !self.sees() {
                tie(&checkpoint.join("model.safetensors")).map_err(failed)?;
            }
        }
        Ok(checkpoint)
    }

    /// Whether it is asked about a picture.
    pub fn sees(&self) -> bool {
        matches!(self.model, "dense" | "picture")
    }

    /// Whether it is asked everything, and not only what others do not answer.
    pub fn answers_all(&self) -> bool {
        matches!(self.model, "dense" | "experts")
    }

    /// Whether the kernels of a function are tried: one conversation makes no wide calls.
    fn calls(&self, function: &str) -> bool {
        match self.model {
            "many" => function == "decode",
            "spread" => matches!(function, "prefill.short" | "prefill.taps"),
            "picture" => function.starts_with("vision"),
            _ => function != "decode.wide" && (self.sees() || !function.starts_with("vision")),
        }
    }

    pub fn options(&self, target: &Target) -> Options {
        let Self { scheme, cache, lock, .. } = self.clone();
        Options { scheme, cache, lock, threads: 2, assemble: false, ..Options::new(target.clone()) }
    }

    /// The kinds of kernels that it has on `target`, without compiling any; none where the target lacks one.
    pub fn kinds(&self, target: &Target, folder: &Path) -> Result<BTreeSet<String>, Outcome> {
        let checkpoint = self.checkpoint(folder)?;
        let found = sailc::pipeline::kernels(&checkpoint, &self.options(target), |kernels| {
            Ok(kernels.iter().map(|one| kind(one.family(), &one.symbol())).collect())
        });
        match found {
            Err(error) if matches!(error.code(), "SC0307" | "SC0310") => Ok(BTreeSet::new()),
            found => found.map_err(|error| failed(report(error.as_ref()))),
        }
    }

    /// Compile it for `target` into `folder`, and take its kernels apart; nothing where the target lacks
    /// a kernel for it.
    pub fn built(&self, target: &Target, folder: &Path) -> Result<Option<Built>, Outcome> {
        let checkpoint = self.checkpoint(folder)?;
        let options = self.options(target);
        let name = self.lock.as_ref().and_then(|lock| lock.file_stem()).unwrap_or_default();
        let name = name.to_string_lossy();
        let file =
            folder.join(format!("{}.{}.{}.{name}.sail", self.model, self.scheme, self.cache));
        let go_on = &mut |_, _| ControlFlow::Continue(());
        match sailc::pipeline::compile(&checkpoint, &options, &file, go_on) {
            Err(error) if matches!(error.code(), "SC0307" | "SC0310") => return Ok(None),
            done => done.map_err(|error| failed(report(error.as_ref())))?,
        };
        let artifact = Artifact::open(&file).map_err(told)?;
        let text = String::from_utf8_lossy(artifact.code()).into_owned();
        let plan = &artifact.manifest().plan;
        let functions = plan.functions.iter().filter(|it| self.calls(&it.name));
        let launched = functions.flat_map(|function| function.steps.iter());
        let launched: BTreeSet<usize> = launched.map(|(_, step)| step.kernel.index()).collect();
        let kernels = plan.kernels.iter().filter(|(id, kernel)| {
            let is_tried = match self.model {
                // Of few patches no ring comes round: `picture` has more.
                "dense" => kernel.family != "tile_attention",
                // With few rows an expert, what is made for many of them has next to nothing to do.
                "spread" => kernel.family.contains("group") && !kernel.symbol.contains("mixed"),
                _ => true,
            };
            launched.contains(&id.index()) && is_tried
        });
        let entries = kernels.map(|(_, kernel)| {
            let entry = kernel.cuda.as_ref().expect("it is for a CUDA target").entry.clone();
            Entry::of(&text, (&kernel.family, &kernel.symbol), entry).map_err(failed)
        });
        let entries = entries.collect::<Result<Vec<_>, Outcome>>()?;
        Ok(Some(Built { case: self.clone(), file, entries }))
    }
}

/// Make the head of a checkpoint its table, which is then stored once.
fn tie(path: &Path) -> std::io::Result<()> {
    const NAMES: [&str; 2] =
        ["language_model.model.embed_tokens.weight", "language_model.lm_head.weight"];
    let mut bytes = fs::read(path)?;
    let (length, rest) = bytes.split_first_chunk().expect("a checkpoint begins with a length");
    let length = u64::from_le_bytes(*length) as usize;
    let header: Value = serde_json::from_slice(&rest[..length])?;
    let [table, head] = NAMES.map(|name| {
        let place = |end: usize| {
            let offset = header[name]["data_offsets"][end].as_u64();
            8 + length + offset.expect("a tensor has its place") as usize
        };
        place(0)..place(1)
    });
    assert_eq!(table.len(), head.len(), "both are a row for each token");
    bytes.copy_within(table, head.start);
    fs::write(path, bytes)
}

/// A compiled case.
#[derive(Debug)]
pub struct Built {
    pub case: Case,
    pub file: PathBuf,
    pub entries: Vec<Entry>,
}

/// Widths are chosen so: seven steps of 128 bytes and more along K in `int8`. Most rows end in the first
/// two of four stages, of 64 bytes in bf16 and in `int8` and of a group in `int4`, where sums are put that
/// other warps may still be reading steps from. There are products of 9248 outputs, of which blocks that
/// take few rows have several turns each; 144 patches and prompts that are no multiple of any tile. In
/// `many` a token has so many experts that such a block comes from one to the next; that matters where
/// what they multiply is not what rows hold. In `spread` there are so many that one has few rows of a short
/// prompt, and a token has so many of them that a warp which sorts pairs has several turns. `picture` has the 1,024 patches of published sizes, so that the rings of their attention come round.
fn config(model: &str) -> Value {
    let (image, heads, width) = match model {
        "dense" => (120, 7, 896),
        "picture" => (320, 2, 256),
        _ => (120, 14, 784),
    };
    let vision = json!({
        "model_type": "sailvit", "architectures": ["SAILViTModel"], "num_channels": 3,
        "image_size": image, "patch_size": 10, "rms_norm_eps": 1e-5, "qkv_bias": false,
        "use_bias": false, "num_attention_heads": heads, "hidden_size": width,
        "intermediate_size": 1040, "num_hidden_layers": 1,
    });
    let mut decoder = json!({
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "rope_theta": 1_000_000, "rope_scaling": null,
        "max_position_embeddings": 4096, "attention_bias": false, "use_sliding_window": false,
        "sliding_window": null, "tie_word_embeddings": false, "eos_token_id": 270,
        "pad_token_id": 270, "do_sample": false, "vocab_size": 8704, "hidden_size": 1056,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "intermediate_size": 4624, "num_hidden_layers": 1,
    });
    let other = match model {
        "dense" => json!({}),
        "picture" => json!({
            "vocab_size": 512, "hidden_size": 256, "num_attention_heads": 2,
            "num_key_value_heads": 1, "intermediate_size": 256,
        }),
        _ => json!({
            "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"],
            "vocab_size": 900, "hidden_size": 1040, "num_attention_heads": 12,
            "num_key_value_heads": 4, "intermediate_size": 900, "moe_intermediate_size": 1040,
            "num_experts": 34, "num_experts_per_tok": if model == "many" { 20 } else { 4 },
            "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [],
            "tie_word_embeddings": true,
        }),
    };
    let decoder_fields = decoder.as_object_mut().expect("it is one");
    decoder_fields.extend(other.as_object().expect("it is one").clone());
    if model == "spread" {
        let sizes = [
            ("hidden_size", 528),
            ("moe_intermediate_size", 528),
            ("num_experts", 128),
            ("num_experts_per_tok", 8),
        ];
        decoder_fields.extend(sizes.map(|(name, value)| (name.to_owned(), value.into())));
    }
    json!({
        "architectures": ["SAILVLModel"], "model_type": "sailvl", "torch_dtype": "bfloat16",
        "downsample_ratio": 0.5, "dynamic_image_size": true, "force_image_size": image,
        "select_layer": -1, "ps_version": "v2", "pad2square": false, "template": "univl-chat",
        "use_thumbnail": true, "min_dynamic_patch": 1, "max_dynamic_patch": 2,
        "vision_config": vision, "llm_config": decoder,
    })
}
