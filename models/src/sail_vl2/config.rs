//! From the JSON files of a SAIL-VL2 checkpoint to a [`ModelSpec`]: one line per fact.
//!
//! Each line names the key, and what of it is supported. What changes the arithmetic and is not
//! supported is refused; what only training or other code reads is not looked at.
//!
//! Source: `configuration_sailvl.py`, `configuration_sailvit.py`, `configuration_qwen3.py` and
//! `image_processing_sailvl.py` of the published checkpoint.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use sail_ir::artifact::{Generation, Tiling, TokenIds};

use super::FAMILY;
use super::prompt::prompt;
use crate::error::{ModelError, quoted};
use crate::hf_config::{JsonObject, RawConfig, RawTokenizer};
use crate::spec::{
    AdapterSpec, DecoderSpec, FeedForward, Head, ModelSpec, VisionFeature, VisionSpec,
};

/// `nn.LayerNorm`'s own, which no file mentions.
const ADAPTER_NORM_EPS: f64 = 1e-5;

/// Bounds that no model of the family comes near; with them no size overflows 64 bits.
const WIDTH: RangeInclusive<u64> = 1..=65_536;
const FF_WIDTH: RangeInclusive<u64> = 1..=1_048_576;
const LAYERS: RangeInclusive<u64> = 1..=1_024;
const HEADS: RangeInclusive<u64> = 1..=1_024;
const EXPERTS: RangeInclusive<u64> = 1..=4_096;
const VOCAB: RangeInclusive<u64> = 1..=16_777_216;
const POSITIONS: RangeInclusive<u64> = 1..=4_194_304;
const TILES: RangeInclusive<u64> = 1..=256;
const GRID: u64 = 128;
const EPS: RangeInclusive<f64> = 1e-30..=1.0;
/// Largest number of tensors; 30B-A3B has 19,046.
const TENSORS: u64 = 1_048_576;

/// The checked description of `raw`. [`Head`] is what the config alone says: a head of its own.
///
/// Refuses a missing key, a value of another type or beyond all bounds, a value whose meaning is
/// not supported, and values that do not fit together.
pub fn spec(raw: &RawConfig) -> Result<ModelSpec, ModelError> {
    let config = &raw.config;
    whole(config)?;
    let vision = vision(config)?;
    let decoder = decoder(&config.object("llm_config")?)?;
    let adapter = AdapterSpec {
        in_width: 4 * vision.width,
        out_width: decoder.width,
        norm_eps: ADAPTER_NORM_EPS,
        tile_tokens: vision.patches() / 4,
    };
    Ok(ModelSpec {
        family: FAMILY.name,
        tiling: tiling(config, raw.preprocessor.as_ref(), &vision)?,
        tokens: tokens(raw, decoder.vocab)?,
        prompt: prompt(&raw.tokenizer)?,
        generation: generation(raw)?,
        vision,
        adapter,
        decoder,
    })
}

/// Facts about the whole: what this is, and how its parts are put together.
fn whole(config: &JsonObject) -> Result<(), ModelError> {
    let architectures = config.texts("architectures")?;
    if architectures != ["SAILVLModel"] {
        return Err(ModelError::UnknownModel {
            key: "architectures",
            found: format!("class {}", quoted(&architectures.join(", "))),
            known: "`SAILVLModel`".to_owned(),
        });
    }
    config.only_text("torch_dtype", "bfloat16")?;
    config.only_text("ps_version", "v2")?;
    config.only_text("template", "univl-chat")?;
    config.only_real("downsample_ratio", 0.5)?;
    config.only_null("quantization_config", true)
}

fn vision(config: &JsonObject) -> Result<VisionSpec, ModelError> {
    let tower = config.object("vision_config")?;
    tower.only_text("model_type", "sailvit")?;
    tower.only_flag("qkv_bias", false)?;
    tower.only_flag("use_bias", false)?;
    let layers = tower.size("num_hidden_layers", LAYERS)?;
    let width = tower.size("hidden_size", WIDTH)?;
    let heads = tower.size("num_attention_heads", HEADS)?;
    divides(&tower, ("hidden_size", width), ("num_attention_heads", heads))?;
    if !(width / heads).is_multiple_of(2) {
        return Err(ModelError::Disagree {
            file: tower.file(),
            what: format!("a head of the vision tower has {} values, an odd number", width / heads),
            because: format!(
                "`vision_config.hidden_size` is {width}, `vision_config.num_attention_heads` {heads}, and kernels read values in pairs"
            ),
        });
    }
    let patch_size = tower.size("patch_size", 1..=256)?;
    let tile_size = tower.size("image_size", 1..=GRID * patch_size)?;
    if !tile_size.is_multiple_of(2 * patch_size) {
        return Err(ModelError::Disagree {
            file: tower.file(),
            what: format!(
                "`vision_config.image_size` {tile_size} is not a multiple of {}",
                2 * patch_size
            ),
            because: format!(
                "`vision_config.patch_size` is {patch_size} and the adapter joins 2 × 2 patches"
            ),
        });
    }
    equal(
        config,
        ("force_image_size", config.size("force_image_size", 1..=1 << 20)?),
        ("vision_config.image_size", tile_size),
    )?;
    Ok(VisionSpec {
        width,
        layers,
        heads,
        head_width: width / heads,
        ff_width: tower.size("intermediate_size", FF_WIDTH)?,
        tile_size,
        patch_size,
        channels: tower.size("num_channels", 3..=3)?,
        norm_eps: tower.real("rms_norm_eps", EPS)?,
        feature: feature(config, layers)?,
    })
}

/// The published code keeps each block's output, the embedding not among them, and reads
/// `hidden_states[select_layer]` as Python would, except that -1 is the normalized last one.
fn feature(config: &JsonObject, layers: u64) -> Result<VisionFeature, ModelError> {
    let count = layers as i64;
    match config.index("select_layer", -count..=count - 1)? {
        -1 => Ok(VisionFeature::Final),
        from_end if from_end < 0 => Ok(VisionFeature::Block((count + from_end) as u64)),
        block => Ok(VisionFeature::Block(block as u64)),
    }
}

fn decoder(llm: &JsonObject) -> Result<DecoderSpec, ModelError> {
    let experts = has_experts(llm)?;
    llm.only_text("hidden_act", "silu")?;
    llm.only_flag("attention_bias", false)?;
    llm.only_null("rope_scaling", false)?;
    llm.only_null("rope_parameters", true)?;
    llm.only_null("quantization_config", true)?;
    llm.only_flag("use_sliding_window", false)?;
    llm.only_null("sliding_window", true)?;
    let heads = llm.size("num_attention_heads", HEADS)?;
    let kv_heads = llm.size("num_key_value_heads", HEADS)?;
    divides(llm, ("num_attention_heads", heads), ("num_key_value_heads", kv_heads))?;
    let head_width = llm.size("head_dim", 2..=1_024)?;
    if !head_width.is_multiple_of(2) {
        return Err(ModelError::Disagree {
            file: llm.file(),
            what: format!("`llm_config.head_dim` {head_width} is odd"),
            because: "rotary positions turn the values of a head in pairs".to_owned(),
        });
    }
    let layers = llm.size("num_hidden_layers", LAYERS)?;
    let feed_forward =
        if experts { mixed_layers(llm, layers)? } else { vec![dense(llm)?; layers as usize] };
    Ok(DecoderSpec {
        width: llm.size("hidden_size", WIDTH)?,
        heads,
        kv_heads,
        head_width,
        norm_eps: llm.real("rms_norm_eps", EPS)?,
        rope_theta: llm.real("rope_theta", 1.0..=1e15)?,
        vocab: llm.size("vocab_size", VOCAB)?,
        max_positions: llm.size("max_position_embeddings", POSITIONS)?,
        feed_forward,
        head: Head::Stored,
        tied: llm.flag("tie_word_embeddings")?,
    })
}

/// Whether the decoder is a mixture of experts, said twice in the config.
fn has_experts(llm: &JsonObject) -> Result<bool, ModelError> {
    let model_type = llm.text("model_type")?;
    let (experts, class) = match model_type.as_str() {
        "qwen3" => (false, "Qwen3ForCausalLM"),
        "qwen3_moe" => (true, "Qwen3MoeForCausalLM"),
        other => {
            return Err(ModelError::UnknownModel {
                key: "llm_config.model_type",
                found: format!("type {}", quoted(other)),
                known: "`qwen3` and `qwen3_moe` as decoders of `sailvl`".to_owned(),
            });
        }
    };
    let architectures = llm.texts("architectures")?;
    if architectures != [class] {
        return Err(ModelError::UnknownModel {
            key: "llm_config.architectures",
            found: format!("class {}", quoted(&architectures.join(", "))),
            known: format!("`{class}` as the class of `{model_type}`"),
        });
    }
    Ok(experts)
}

fn dense(llm: &JsonObject) -> Result<FeedForward, ModelError> {
    Ok(FeedForward::Dense { width: llm.size("intermediate_size", FF_WIDTH)? })
}

/// One entry per layer: experts where `decoder_sparse_step` says so and `mlp_only_layers` does not
/// take it back. `intermediate_size` is read only when a layer is dense.
fn mixed_layers(llm: &JsonObject, layers: u64) -> Result<Vec<FeedForward>, ModelError> {
    let count = llm.size("num_experts", EXPERTS)?;
    let experts = FeedForward::Experts {
        count,
        top_k: llm.size("num_experts_per_tok", 1..=count)?,
        width: llm.size("moe_intermediate_size", FF_WIDTH)?,
        renormalize: llm.flag("norm_topk_prob")?,
    };
    let step = llm.size("decoder_sparse_step", LAYERS)?;
    let dense_layers: BTreeSet<u64> =
        llm.sizes("mlp_only_layers", 0..=layers - 1)?.into_iter().collect();
    let is_dense = |layer| dense_layers.contains(&layer) || !(layer + 1).is_multiple_of(step);
    let sparse = (0..layers).filter(|&layer| !is_dense(layer)).count() as u64;
    if sparse * count * 3 > TENSORS {
        return Err(ModelError::TooLarge {
            because: format!(
                "`llm_config.num_experts` {count} in {sparse} layers makes more than {TENSORS} tensors"
            ),
        });
    }
    (0..layers).map(|layer| if is_dense(layer) { dense(llm) } else { Ok(experts) }).collect()
}

/// `max_dynamic_patch` of `config.json` is not read, here as in the published code: the picture
/// processor has its own. A folder without that file can only be compiled with random weights;
/// it gets what the released checkpoints have.
fn tiling(
    config: &JsonObject,
    preprocessor: Option<&JsonObject>,
    vision: &VisionSpec,
) -> Result<Tiling, ModelError> {
    config.only_flag("dynamic_image_size", true)?;
    config.only_flag("use_thumbnail", true)?;
    config.only_flag("pad2square", false)?;
    config.size("min_dynamic_patch", 1..=1)?;
    let sizes = Tiling {
        tile_size: vision.tile_size as u32,
        tokens_per_tile: (vision.patches() / 4) as u32,
        ..Tiling::default()
    };
    let Some(file) = preprocessor else {
        return Ok(sizes);
    };
    file.only_flag("use_msac", false)?;
    let image_size = file.size("image_size", 1..=1 << 20)?;
    let patch_size = file.size("patch_size", 1..=1 << 20)?;
    equal(file, ("image_size", image_size), ("vision_config.image_size", vision.tile_size))?;
    equal(file, ("patch_size", patch_size), ("vision_config.patch_size", vision.patch_size))?;
    Ok(Tiling {
        max_tiles: file.size("max_dynamic_patch", TILES)? as u32,
        mean: file.colour("image_mean", -1e3..=1e3)?.map(|value| value as f32),
        std: file.colour("image_std", 1e-6..=1e3)?.map(|value| value as f32),
        ..sizes
    })
}

fn tokens(raw: &RawConfig, vocab: u64) -> Result<TokenIds, ModelError> {
    let llm = raw.config.object("llm_config")?;
    let tokenizer = &raw.tokenizer;
    if tokenizer.largest_id >= vocab {
        return Err(ModelError::TokenBeyondVocabulary {
            file: "tokenizer.json",
            token: "the last token".to_owned(),
            id: tokenizer.largest_id,
            rows: vocab,
        });
    }
    // A list or a number here counts before the language model's own.
    let eos = match &raw.generation {
        Some(file) if file.has("eos_token_id") => file,
        _ => &llm,
    };
    let key = "eos_token_id";
    let mut ids = eos.size_or_sizes(key, 0..=vocab - 1)?;
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Err(eos.unsupported(key, "`[]`", "one id or a list of them".to_owned()));
    }
    let pad =
        llm.has("pad_token_id").then(|| llm.size("pad_token_id", 0..=vocab - 1)).transpose()?;
    Ok(TokenIds {
        eos: ids.into_iter().map(|id| id as u32).collect(),
        pad: pad.map(|id| id as u32),
        image_context: added(tokenizer, "<IMG_CONTEXT>")?,
        image_start: added(tokenizer, "<img>")?,
        image_end: added(tokenizer, "</img>")?,
    })
}

/// The id of an added token, by its text: ids differ from one tokenizer to the next.
pub(super) fn added(tokenizer: &RawTokenizer, token: &'static str) -> Result<u32, ModelError> {
    let id = tokenizer.added.get(token).ok_or(ModelError::MissingToken { token })?;
    Ok(u32::try_from(*id).expect("ids were checked against the vocabulary"))
}

/// `generation_config.json` counts before the language model's own keys.
fn generation(raw: &RawConfig) -> Result<Generation, ModelError> {
    let llm = raw.config.object("llm_config")?;
    let place = |key: &str| match &raw.generation {
        Some(file) if file.has(key) => file.clone(),
        _ => llm.clone(),
    };
    let penalty = "repetition_penalty";
    let repetition_penalty = match place(penalty) {
        file if file.has(penalty) => file.real(penalty, 0.01..=100.0)? as f32,
        _ => 1.0,
    };
    let greedy = Generation { repetition_penalty, ..Generation::default() };
    if !place("do_sample").flag("do_sample")? {
        return Ok(greedy);
    }
    Ok(Generation {
        temperature: place("temperature").real("temperature", 0.01..=100.0)? as f32,
        top_k: place("top_k").size("top_k", 0..=1 << 24)? as u32,
        top_p: place("top_p").real("top_p", 1e-6..=1.0)? as f32,
        ..greedy
    })
}

fn divides(
    section: &JsonObject,
    (key, value): (&str, u64),
    (part_key, part): (&str, u64),
) -> Result<(), ModelError> {
    if value.is_multiple_of(part) {
        return Ok(());
    }
    let (key, part_key) = (section.full(key), section.full(part_key));
    Err(ModelError::Disagree {
        file: section.file(),
        what: format!("`{key}` {value} is not a multiple of `{part_key}` {part}"),
        because: "every head takes an equal share".to_owned(),
    })
}

fn equal(
    section: &JsonObject,
    (key, value): (&str, u64),
    (other_key, other): (&str, u64),
) -> Result<(), ModelError> {
    if value == other {
        return Ok(());
    }
    Err(ModelError::Disagree {
        file: section.file(),
        what: format!("`{key}` is {value}, expected {other}"),
        because: format!("`{other_key}` is {other}"),
    })
}

#[cfg(test)]
mod tests;
