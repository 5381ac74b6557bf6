//! A toy artifact with a few lines of C as its code: a "model" whose next token is the sum of all
//! ids so far (a picture's place counts as the bits of its first pixel).
//!
//! It has everything an executor must carry out right (arena, several launches, waits, pages,
//! image rows, chosen outputs, classes, taps) and a result that anybody can compute.

mod code;

use std::path::{Path, PathBuf};

use sail_ir::DType;
use sail_ir::artifact::{
    ArtifactWriter, BuiltWith, DecoderCard, Generation, Manifest, ModelCard, PromptSpec, Quality,
    SectionKind, Tiling, TokenIds, VisionCard,
};
use sail_ir::id::{BufferId, IdVec, KernelId, StepId};
use sail_ir::plan::{
    Affine, Buffer, CacheSpec, ControlField, Cost, Count, Function, Grid, Kernel, Launch, Place,
    Plan, Port, Step, Weight,
};
use sail_ir::{CacheScheme, Scheme, Target};

/// Values in a row of logits, as in `kernels.c`.
pub const VOCABULARY: u32 = 320;
/// Ids of the control tokens, behind the 256 bytes.
pub const TURN_START: u32 = 256;
pub const TURN_END: u32 = 257;
pub const IMAGE_START: u32 = 258;
pub const IMAGE_END: u32 = 259;
pub const IMAGE_PLACE: u32 = 260;
/// Longest conversation the plan allows.
pub const POSITIONS: u32 = 512;

/// Number and length of the weights: nothing reads them but the hash.
pub const WEIGHT_BYTES: usize = 3 << 20;

/// Write the toy to `folder/toy.sail`.
pub fn write(folder: &Path) -> PathBuf {
    write_plan(folder, plan())
}

pub fn write_plan(folder: &Path, plan: Plan) -> PathBuf {
    let code: Vec<u8> = code::KERNELS.iter().flat_map(|(_, bytes)| padded(bytes)).collect();
    write_file(&folder.join("toy.sail"), [&code, &[], &[0x5a; WEIGHT_BYTES]], manifest(plan))
}

/// Code, machine code for a GPU (none when empty), weights.
pub fn write_file(path: &Path, sections: [&[u8]; 3], manifest: Manifest) -> PathBuf {
    let [code, cubin, weights] = sections;
    let mut writer = ArtifactWriter::create(path).unwrap();
    writer.whole_section(SectionKind::Tokenizer, tokenizer().as_bytes()).unwrap();
    writer.whole_section(SectionKind::Code, code).unwrap();
    if !cubin.is_empty() {
        writer.whole_section(SectionKind::Cubin, cubin).unwrap();
    }
    writer.whole_section(SectionKind::Weights, weights).unwrap();
    writer.finish(manifest).unwrap();
    path.to_owned()
}

/// Functions start at multiples of 16.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(16), 0xcc);
    bytes
}

pub fn plan() -> Plan {
    let mut offset = 0;
    let kernels = code::KERNELS.iter().map(|(name, bytes)| {
        let arguments = match *name {
            "see" | "embed" | "shift" | "tap" | "slow" => 2,
            "splice" | "remember" | "recall" => 4,
            _ => 5,
        };
        let kernel = Kernel {
            symbol: format!("{name}.toy"),
            family: (*name).to_owned(),
            offset,
            arguments,
            writes: vec![arguments - 1],
            cuda: None,
        };
        offset += bytes.len().next_multiple_of(16) as u64;
        kernel
    });
    Plan {
        kernels: kernels.collect(),
        functions: vec![
            vision("vision"),
            prefill(),
            decode(),
            vision("vision.taps"),
            prefill_taps(),
        ],
        weights: [Weight {
            paths: vec!["nothing".to_owned()],
            shard: [0, 1],
            layout: "bytes".to_owned(),
            offset: 0,
            bytes: WEIGHT_BYTES as u64,
        }]
        .into_iter()
        .collect(),
        cache: CacheSpec {
            layers: 1,
            kv_heads: 1,
            head_dim: 16,
            scheme: CacheScheme::Bf16,
            block_bytes: 4096,
            max_positions: POSITIONS,
        },
    }
}

/// Puts a function together from kernel names and buffer names.
pub struct Draft {
    buffers: IdVec<BufferId, Buffer>,
    steps: IdVec<StepId, Step>,
    count: Count,
}

impl Draft {
    pub fn new(count: Count) -> Self {
        Self { buffers: IdVec::new(), steps: IdVec::new(), count }
    }

    pub fn buffer(&mut self, name: &str, place: Place, row: &[u64], count: Option<Count>) {
        let dtype = match place {
            Place::Port { .. } => DType::Bf16,
            Place::Tap { .. } => DType::F32,
            _ => DType::I32,
        };
        let bytes = row.iter().product::<u64>() * dtype.bytes();
        let bytes = match count {
            Some(count) if count == self.count => Affine { per_row: bytes, fixed: 0 },
            _ => Affine { per_row: 0, fixed: bytes },
        };
        let row_dims = row.to_vec();
        self.buffers.push(Buffer { name: name.to_owned(), place, dtype, bytes, row_dims, count });
    }

    /// 64 values of i32 for each token.
    pub fn arena(&mut self, name: &str, index: u64) {
        let offset = Affine { per_row: 256 * index, fixed: 0 };
        self.buffer(name, Place::Arena { offset }, &[64], Some(Count::Tokens));
    }

    pub fn step(&mut self, kernel: &str, arguments: &[&str], count: Count, waits: &[u32]) {
        let find = |name: &&str| {
            let found = self.buffers.iter().find(|(_, buffer)| buffer.name == *name);
            found.unwrap_or_else(|| panic!("no buffer {name}")).0
        };
        let index = code::KERNELS.iter().position(|(name, _)| *name == kernel).unwrap();
        self.steps.push(Step {
            label: kernel.to_owned(),
            kernel: KernelId(index as u32),
            arguments: arguments.iter().map(find).collect(),
            grid: Grid { count, per: 1, rows_per_block: 1, columns: 1, run: 1 },
            waits: waits.iter().copied().map(StepId).collect(),
            cost: Cost { row_bytes: 64, row_operations: 64, ..Cost::default() },
        });
    }

    pub fn function(self, name: &str, classes: &[u32], max_outputs: u32, cuts: &[u32]) -> Function {
        let steps = self.steps.len() as u32;
        let starts = [0].iter().chain(cuts).copied();
        let ends = cuts.iter().copied().chain([steps]);
        Function {
            name: name.to_owned(),
            count: self.count,
            classes: classes.to_vec(),
            max_outputs,
            arena_bytes: Affine { per_row: 512, fixed: 0 },
            workspace_bytes: 1000,
            buffers: self.buffers,
            launches: starts
                .zip(ends)
                .map(|(start, end)| Launch { rank: 0, steps: [StepId(start), StepId(end)] })
                .collect(),
            steps: self.steps,
        }
    }
}

fn vision(name: &str) -> Function {
    let images = Some(Count::Images);
    let mut draft = Draft::new(Count::Images);
    draft.buffer("pixels", Place::Port { port: Port::Pixels }, &[3, 2, 2], images);
    draft.buffer("features", Place::Port { port: Port::Features }, &[1, 16], images);
    draft.step("see", &["pixels", "features"], Count::Images, &[]);
    draft.function(name, &[1, 2, 4], 0, &[])
}

pub fn control(draft: &mut Draft) {
    let tokens = Some(Count::Tokens);
    let place = |field| Place::Control { field };
    draft.buffer("ids", place(ControlField::Ids), &[], tokens);
    draft.buffer("rows", place(ControlField::Rows), &[2], tokens);
    draft.buffer("image_rows", place(ControlField::ImageRows), &[], tokens);
    draft.buffer("outputs", place(ControlField::OutputRows), &[], Some(Count::Outputs));
    draft.buffer("pages", place(ControlField::PageTable), &[], None);
    draft.buffer("cache", Place::Cache { layer: 0 }, &[], None);
    draft.arena("x", 0);
    draft.arena("y", 1);
}

fn prefill() -> Function {
    let mut draft = Draft::new(Count::Tokens);
    prompt_steps(&mut draft);
    draft.function("prefill", &[1, 4, 16], 2, &[2])
}

fn prefill_taps() -> Function {
    let mut draft = Draft::new(Count::Tokens);
    prompt_steps(&mut draft);
    let tap = Place::Tap { name: "layers.0".to_owned() };
    draft.buffer("layers.0", tap, &[4], Some(Count::Tokens));
    draft.step("tap", &["y", "layers.0"], Count::Tokens, &[]);
    draft.function("prefill.taps", &[1, 4, 16], 3, &[2])
}

fn prompt_steps(draft: &mut Draft) {
    control(draft);
    draft.buffer("features", Place::Port { port: Port::Features }, &[1, 16], Some(Count::Images));
    draft.buffer("logits", Place::Port { port: Port::Logits }, &[320], Some(Count::Outputs));
    draft.step("embed", &["ids", "x"], Count::Tokens, &[]);
    draft.step("splice", &["x", "features", "image_rows", "y"], Count::Tokens, &[0]);
    draft.step("remember", &["y", "rows", "pages", "cache"], Count::Tokens, &[]);
    let recall = ["cache", "rows", "pages", "outputs", "logits"];
    draft.step("recall_some", &recall, Count::Outputs, &[2]);
}

fn decode() -> Function {
    let mut draft = Draft::new(Count::Tokens);
    control(&mut draft);
    draft.buffer("logits", Place::Port { port: Port::Logits }, &[320], Some(Count::Tokens));
    draft.step("embed", &["ids", "x"], Count::Tokens, &[]);
    draft.step("remember", &["x", "rows", "pages", "cache"], Count::Tokens, &[0]);
    draft.step("recall", &["cache", "rows", "pages", "logits"], Count::Tokens, &[1]);
    draft.function("decode", &[1, 4], 4, &[])
}

pub fn manifest(plan: Plan) -> Manifest {
    Manifest {
        target: Target::parse("x86-64-v3").unwrap(),
        scheme: Scheme::Bf16,
        model: ModelCard {
            family: "toy".to_owned(),
            parameters: 0,
            vision: VisionCard {
                layers: 0,
                width: 16,
                heads: 1,
                ff_width: 0,
                patch_size: 1,
                patches: 4,
            },
            decoder: DecoderCard {
                layers: 1,
                width: 64,
                heads: 1,
                kv_heads: 1,
                head_dim: 16,
                ff_width: 0,
                experts: None,
                vocabulary: u64::from(VOCABULARY),
            },
        },
        tiling: Tiling { tile_size: 2, max_tiles: 6, tokens_per_tile: 1, ..Tiling::default() },
        prompt: PromptSpec::default(),
        tokens: TokenIds {
            eos: vec![TURN_END],
            pad: None,
            image_context: IMAGE_PLACE,
            image_start: IMAGE_START,
            image_end: IMAGE_END,
        },
        generation: Generation { max_tokens: 24, ..Generation::default() },
        built_with: BuiltWith { sailc: "toy".to_owned(), llvm: "none".to_owned() },
        options: Vec::new(),
        quality: Quality::default(),
        cuda: None,
        plan,
        sections: Vec::new(),
    }
}

/// A tokenizer with one token for each byte and the control tokens.
pub fn tokenizer() -> String {
    let vocab: Vec<String> = (0..=255_u8)
        .map(|byte| {
            let letter = serde_json::to_string(&letter(byte).to_string()).unwrap();
            format!("{letter}:{byte}")
        })
        .collect();
    let added: Vec<String> = ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
        .iter()
        .zip(TURN_START..)
        .map(|(text, id)| {
            format!(
                r#"{{"id":{id},"content":"{text}","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}"#
            )
        })
        .collect();
    format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{}],"normalizer":null,"pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false}},"post_processor":null,"decoder":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false}},"model":{{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":"","end_of_word_suffix":"","fuse_unk":false,"byte_fallback":false,"vocab":{{{}}},"merges":[]}}}}"#,
        added.join(","),
        vocab.join(",")
    )
}

/// The character that stands for a byte in byte-level tokenizers.
fn letter(byte: u8) -> char {
    let plain = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if plain(byte) {
        return char::from(byte);
    }
    let index = (0..byte).filter(|other| !plain(*other)).count() as u32;
    char::from_u32(256 + index).unwrap()
}
