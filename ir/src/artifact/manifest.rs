//! What an artifact says about itself: everything the runtime knows of a model but its weights.
//!
//! Written as JSON with the fields in this order and no spaces, so equal values are equal bytes.
//! Readers refuse fields they do not know: a file of another format is named as such by its
//! header, never half understood.

use serde::{Deserialize, Serialize};

use super::Quality;
use crate::plan::Plan;
use crate::scheme::Scheme;
use crate::target::Target;

/// The whole manifest.
///
/// [`ArtifactWriter`](super::ArtifactWriter) fills in `sections`; leave it empty when writing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What the code is for.
    pub target: Target,
    /// How the weights of products are stored.
    pub scheme: Scheme,
    pub model: ModelCard,
    pub tiling: Tiling,
    pub prompt: PromptSpec,
    pub tokens: TokenIds,
    pub generation: Generation,
    pub built_with: BuiltWith,
    /// Options of the compile that changed the result, as `--name=value`: no paths, no times.
    pub options: Vec<String>,
    pub quality: Quality,
    /// What is known of the code of a CUDA target; absent of machine code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<CudaCode>,
    pub plan: Plan,
    /// In the order of the file.
    pub sections: Vec<Section>,
}

/// What kind of model this is, in numbers a person would ask for. Nothing is computed from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// Model family, a row of the compiler's table: `sail-vl2`.
    pub family: String,
    /// Values in all weights that are stored.
    pub parameters: u64,
    pub vision: VisionCard,
    pub decoder: DecoderCard,
}

/// Sizes of the vision tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionCard {
    /// Blocks that are run.
    pub layers: u64,
    pub width: u64,
    pub heads: u64,
    /// Width of the feed-forward.
    pub ff_width: u64,
    /// Pixels on a side of a patch.
    pub patch_size: u64,
    /// Patches of one image tile.
    pub patches: u64,
}

/// Sizes of the language model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderCard {
    pub layers: u64,
    pub width: u64,
    /// Query heads.
    pub heads: u64,
    pub kv_heads: u64,
    /// Values of one head.
    pub head_dim: u64,
    /// Width of the feed-forward of a layer without experts; 0 when every layer has them.
    pub ff_width: u64,
    pub experts: Option<ExpertsCard>,
    /// Values in a row of logits; more than there are tokens.
    pub vocabulary: u64,
}

/// Sizes of a mixture of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertsCard {
    pub count: u64,
    /// Experts that each token goes through.
    pub top_k: u64,
    /// Width of one expert's feed-forward.
    pub width: u64,
}

/// How a picture becomes image tiles, and which numbers normalise its pixels.
///
/// [`Tiling::default`] has the numbers of the released checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tiling {
    /// Pixels on a side of an image tile (`image_size`).
    pub tile_size: u32,
    /// Fewest cells of a grid (`min_dynamic_patch`).
    pub min_tiles: u32,
    /// Most cells of a grid (`max_dynamic_patch` of `preprocessor_config.json`); the thumbnail
    /// comes on top.
    pub max_tiles: u32,
    /// Whether a picture of several tiles gets a thumbnail (`use_thumbnail`).
    pub thumbnail: bool,
    /// Places of the prompt that one tile fills.
    pub tokens_per_tile: u32,
    /// Subtracted from each channel, in units of 1 (`image_mean`).
    pub mean: [f32; 3],
    /// Divides each channel afterwards (`image_std`).
    pub std: [f32; 3],
}

impl Default for Tiling {
    fn default() -> Self {
        Self {
            tile_size: 448,
            min_tiles: 1,
            max_tiles: 10,
            thumbnail: true,
            tokens_per_tile: 256,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }
}

/// The texts a conversation is put together from (`univl-chat` of the published code).
///
/// ```text
/// {system_start}{system}{turn_end}
///     {user_start}{image_line per picture}{text}{turn_end}{assistant_start}{answer}{turn_end}
///     {user_start}…
/// ```
///
/// `image_line` holds `{image}` once, which stands for [`image_start`](Self::image_start), as many
/// [`image_context`](Self::image_context) as the picture has places, and
/// [`image_end`](Self::image_end). Text of the user is never read as special tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSpec {
    /// What the model is told about itself when the user says nothing else.
    pub system: String,
    /// `<|im_start|>system\n`
    pub system_start: String,
    /// `<|im_start|>user\n`
    pub user_start: String,
    /// `<|im_start|>assistant\n`
    pub assistant_start: String,
    /// `<|im_end|>`; no line break follows.
    pub turn_end: String,
    /// One picture: `{image}\n`.
    pub image_line: String,
    /// `<img>`
    pub image_start: String,
    /// `<IMG_CONTEXT>`
    pub image_context: String,
    /// `</img>`
    pub image_end: String,
    /// Appended to the user's text when the model shall think first.
    pub thinking: String,
}

impl Default for PromptSpec {
    /// The texts of the released checkpoints.
    fn default() -> Self {
        Self {
            system: "你是由抖音内容理解组开发的多模态大模型，英文名叫UniVL, 是一个有用无害的人工智能助手。"
                .to_owned(),
            system_start: "<|im_start|>system\n".to_owned(),
            user_start: "<|im_start|>user\n".to_owned(),
            assistant_start: "<|im_start|>assistant\n".to_owned(),
            turn_end: "<|im_end|>".to_owned(),
            image_line: "{image}\n".to_owned(),
            image_start: "<img>".to_owned(),
            image_context: "<IMG_CONTEXT>".to_owned(),
            image_end: "</img>".to_owned(),
            thinking: "You FIRST think about the reasoning process as an internal monologue and \
                       then provide the final answer. The reasoning process MUST BE enclosed within \
                       <think> </think> tags. The final answer MUST BE put in \\boxed{}."
                .to_owned(),
        }
    }
}

/// Token ids that mean something to the runtime, looked up by their texts in the tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenIds {
    /// Any of these ends the answer; ascending.
    pub eos: Vec<u32>,
    pub pad: Option<u32>,
    /// The place of one row of image features.
    pub image_context: u32,
    pub image_start: u32,
    pub image_end: u32,
}

/// How the next token is chosen when the user says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// 0 takes the most probable token.
    pub temperature: f32,
    /// 0 considers all tokens.
    pub top_k: u32,
    /// 1 considers all tokens.
    pub top_p: f32,
    /// 1 changes nothing.
    pub repetition_penalty: f32,
    /// Longest answer in tokens.
    pub max_tokens: u32,
}

impl Default for Generation {
    /// Greedy, 512 tokens: what the released checkpoints' page says.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, max_tokens: 512 }
    }
}

/// Which programs made the file; informative.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltWith {
    /// Version of `sailc`.
    pub sailc: String,
    /// Version of LLVM.
    pub llvm: String,
}

/// The code of a CUDA target: text for the driver, and machine code where an assembler was at hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaCode {
    /// `.version` of the text: `8.0`.
    pub ptx_version: String,
    /// `.target` of the text: `sm_90a`.
    pub architecture: String,
    /// Release of the assembler that made the machine code; none without.
    pub assembler: Option<String>,
    /// What the assembler says of each kernel, in the order of the plan; empty without machine code.
    pub usage: Vec<KernelUsage>,
}

/// What one kernel takes of a multiprocessor, as ptxas says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelUsage {
    /// Its name in the PTX text.
    pub entry: String,
    /// 32-bit registers of a thread.
    pub registers: u32,
    /// Bytes of a thread's stack, which is device memory.
    pub stack_bytes: u32,
    /// Bytes moved to the stack and back for want of registers.
    pub spill_bytes: u32,
    /// Barriers of a block.
    pub barriers: u32,
}

/// What a section holds; a file has each kind at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SectionKind {
    /// `tokenizer.json`, as published.
    Tokenizer,
    /// Machine code of all kernels and their constants: position independent, nothing to relocate.
    /// `Kernel::offset` of the plan counts from its start. Of a CUDA target, the PTX text of all
    /// kernels, for the driver to assemble.
    Code,
    /// Machine code made of the PTX text, for the one architecture that it names.
    Cubin,
    /// `chat_template.jinja`, as published; for people, the runtime follows `PromptSpec`.
    ChatTemplate,
    /// Packed weights and tables. `Weight::offset` of the plan counts from its start.
    Weights,
    /// Instead of them, how they are made: a [`Recipe`](super::Recipe) as JSON.
    Recipe,
}

impl SectionKind {
    /// For messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokenizer => "tokenizer",
            Self::Code => "code",
            Self::Cubin => "cubin",
            Self::ChatTemplate => "chat_template",
            Self::Weights => "weights",
            Self::Recipe => "recipe",
        }
    }
}

/// A run of bytes of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    pub kind: SectionKind,
    /// Byte in the file, a multiple of [`PAGE_BYTES`](super::PAGE_BYTES).
    pub offset: u64,
    pub bytes: u64,
    /// BLAKE3 of the bytes, in hexadecimal digits.
    pub blake3: String,
}

impl Manifest {
    #[must_use]
    pub fn section(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == kind)
    }
}
