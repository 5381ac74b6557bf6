//! Folders and files that transcripts begin with, most of them broken in one way.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use sail_ir::Target;
use sail_ir::expert_profile::{ExpertProfile, TokenKind};
use sail_models::WeightSource;
use sail_tests::compiled;
use sail_tests::harness::{Outcome, failed, told};
use sail_tests::places::{copy_folder, workspace};
use sail_tests::recorded::RECORDED;

use super::tensors;

/// A checkpoint small enough to be committed.
const CHECKPOINT: &str = "tests/goldens/odd-dense";

/// Its table of tokens, and a product of `[88, 99]`.
const TABLE: &str = "language_model.model.embed_tokens.weight";
const DOWN: &str = "language_model.model.layers.2.mlp.down_proj.weight";

/// A router of the checkpoint with experts.
const ROUTER: &str = "language_model.model.layers.0.mlp.gate";

/// The checkpoint that was trained, and a product of it.
const TINY: &str = "models/sail-vl2-tiny";
const UP_OF_EXPERT: &str = "language_model.model.layers.0.mlp.experts.3.up_proj.weight";

/// One of its kernels, and a config that fits it.
const LINEAR: &str = "linear.bf16.tokens.n88.k100.residual rows=4 block=128 run=64 foresee=1";

/// A recipe of layers and their schemes.
fn rules(to: &Path, rules: &[(&str, &str)]) -> Result<(), Outcome> {
    let rules = rules.iter().map(|(layers, scheme)| {
        format!("[[rule]]\nlayers = \"{layers}\"\nscheme = \"{scheme}\"\n")
    });
    fs::write(to, rules.collect::<String>()).map_err(failed)
}

/// Something a transcript may mention by name.
struct Input {
    name: &'static str,
    make: fn(&Path) -> Result<(), Outcome>,
}

const INPUTS: &[Input] = &[
    Input { name: "checkpoint", make: checkpoint },
    Input {
        name: "truncated",
        make: |to| edited(to, "model.safetensors", |bytes| bytes.truncate(bytes.len() / 2)),
    },
    Input {
        name: "missing-tensor",
        make: |to| {
            let [old, new] = ["layers.0.mlp.up_proj.weight", "layers.0.mlp.upp_roj.weight"];
            replaced(to, "model.safetensors", old, new)
        },
    },
    Input {
        name: "wrong-shape",
        make: |to| {
            let [old, new] = ["\"intermediate_size\": 99", "\"intermediate_size\": 97"];
            replaced(to, "config.json", old, new)
        },
    },
    // F16 has the size of BF16, so that nothing else is wrong.
    Input {
        name: "wrong-dtype",
        make: |to| replaced(to, "model.safetensors", "\"BF16\"", "\"F16\" "),
    },
    Input {
        name: "no-weights",
        make: |to| {
            checkpoint(to)?;
            fs::remove_file(to.join("model.safetensors")).map_err(failed)
        },
    },
    Input {
        name: "nan-router",
        make: |to| {
            experts(to)?;
            let router = "language_model.model.layers.1.mlp.gate.weight";
            tensors::set(to, router, 2 * 76 + 3..2 * 76 + 4, tensors::NAN)
        },
    },
    Input { name: "infinite-norm", make: |to| one(to, "mlp1.0.weight", 7, tensors::INFINITE) },
    Input { name: "nan-product", make: |to| one(to, DOWN, 5 * 99, tensors::NAN) },
    Input {
        name: "infinite-pixels",
        make: |to| {
            let pixels = "vision_model.preprocessor.patchifier.proj.weight";
            one(to, pixels, 71 * 588 + 587, tensors::INFINITE)
        },
    },
    Input {
        name: "nan-positions",
        make: |to| one(to, "vision_model.preprocessor.pos_embed", 72, tensors::NAN),
    },
    // In its second row: a calibration of the checkpoint is one of it, too.
    Input {
        name: "huge-product",
        make: |to| one(to, "vision_model.trunk.blocks.1.mlp.fc2.weight", 100, tensors::HUGE),
    },
    Input { name: "infinite-token", make: |to| one(to, TABLE, 895 * 88 + 1, tensors::INFINITE) },
    Input { name: "tiny", make: tiny },
    Input {
        name: "shapes-1.png",
        make: |to| {
            let from = workspace().join(TINY).join("samples/shapes-1.png");
            fs::copy(from, to).map(drop).map_err(failed)
        },
    },
    Input {
        name: "zero-row",
        make: |to| {
            tiny(to)?;
            tensors::set(to, UP_OF_EXPERT, 192..2 * 192, tensors::ZERO)
        },
    },
    Input {
        name: "zero-tensor",
        make: |to| {
            tiny(to)?;
            tensors::set(to, UP_OF_EXPERT, tensors::ALL, tensors::ZERO)
        },
    },
    // What its first norm makes is finite, its square is not.
    Input {
        name: "large-norm",
        make: |to| {
            checkpoint(to)?;
            let norm = "language_model.model.layers.0.input_layernorm.weight";
            tensors::set(to, norm, tensors::ALL, tensors::LARGE)
        },
    },
    // Its logits are finite but where it reads a question mark.
    Input {
        name: "large-logits",
        make: |to| {
            const MARK: usize = 30;
            checkpoint(to)?;
            tensors::set(to, TABLE, MARK * 88..(MARK + 1) * 88, tensors::FAR)?;
            tensors::set(to, "language_model.model.norm.weight", tensors::ALL, tensors::LARGER)
        },
    },
    Input {
        name: "bad-json",
        make: |to| edited(to, "config.json", |bytes| bytes.truncate(bytes.len() / 2)),
    },
    Input {
        name: "unknown-model",
        make: |to| replaced(to, "config.json", "\"sailvl\"", "\"internvl_chat\""),
    },
    Input {
        name: "missing-key",
        make: |to| replaced(to, "config.json", "\"select_layer\": -1,", ""),
    },
    Input {
        name: "recipe.toml",
        make: |to| rules(to, &[("*.blocks.0.*", "int8-weight"), ("*.trunk.*", "int4")]),
    },
    Input { name: "typo.toml", make: |to| rules(to, &[("*.trunk.block.*", "int4")]) },
    Input { name: "wide-first.toml", make: |to| rules(to, &[("*", "int8"), ("*.fc2", "int4")]) },
    Input { name: "mixed.toml", make: |to| rules(to, &[("*.k_proj", "bf16")]) },
    Input { name: "unknown.toml", make: |to| rules(to, &[("*", "int3")]) },
    Input { name: "head.toml", make: |to| rules(to, &[("*.lm_head", "int8")]) },
    Input { name: "pixels.toml", make: |to| rules(to, &[("*patchifier*", "int8")]) },
    Input {
        name: "pixels-too.toml",
        make: |to| rules(to, &[("*.trunk.*", "int8"), ("vision_model.*", "int8")]),
    },
    Input { name: "wide.toml", make: |to| rules(to, &[("vision_model.*", "int8")]) },
    Input { name: "routers.toml", make: |to| rules(to, &[("*.mlp.gate", "int4")]) },
    Input { name: "router.toml", make: |to| rules(to, &[(ROUTER, "int8")]) },
    Input { name: "expert.toml", make: |to| rules(to, &[("*.experts.0.*", "int8")]) },
    Input { name: "gates.toml", make: |to| rules(to, &[("*.gate_proj", "int8")]) },
    Input { name: "downs.toml", make: |to| rules(to, &[("*.experts.*.down_proj", "int8")]) },
    Input { name: "no-rules.toml", make: |to| rules(to, &[]) },
    Input { name: "model.sail", make: artifact },
    Input { name: "weights.sail", make: artifact },
    Input { name: "header.sail", make: artifact },
    Input { name: "tokenizer.sail", make: artifact },
    Input { name: "cut.sail", make: artifact },
    Input { name: "golden.safetensors", make: |to| golden(to, |_| {}) },
    Input { name: "cut.safetensors", make: |to| golden(to, |_| {}) },
    Input {
        name: "other.safetensors",
        make: |to| fs::copy(RECORDED[1].paths()?.1, to).map(drop).map_err(failed),
    },
    Input {
        name: "lacking.safetensors",
        make: |to| golden(to, |bytes| swap(bytes, "\"3.vit.1\"", "\"3.vit.9\"")),
    },
    Input {
        name: "unlike.safetensors",
        make: |to| {
            golden(to, |bytes| {
                let at = find(bytes, b"\"0.layers.1_bf16\"").expect("the golden records it");
                swap(&mut bytes[at..], "[26,88]", "[88,26]");
            })
        },
    },
    // Both runs of the reference alike, so that the bound stays as it is.
    Input {
        name: "spoiled.safetensors",
        make: |to| {
            golden(to, |bytes| ["3.layers.1", "3.vision"].iter().for_each(|it| negate(bytes, it)))
        },
    },
    Input { name: "empty.png", make: |to| fs::write(to, b"").map_err(failed) },
    Input { name: "noise.png", make: |to| fs::write(to, b"not a picture at all").map_err(failed) },
    Input { name: "one-pixel.png", make: |to| picture(to, 1, 1) },
    Input { name: "square.png", make: |to| picture(to, 84, 84) },
    Input { name: "wide.png", make: |to| picture(to, 30_000, 1) },
    Input { name: "good.lock", make: |to| lock(to, LINEAR) },
    Input { name: "foreign.lock", make: |to| lock(to, "attention.h7 rows=4") },
    Input { name: "malformed.lock", make: |to| lock(to, "linear.bf16") },
    Input { name: "unfit.lock", make: |to| lock(to, &LINEAR.replace("rows=4", "rows=5")) },
    Input {
        name: "stale.lock",
        make: |to| fs::write(to, "sailc.lock 1 space 0123456789abcdef\n").map_err(failed),
    },
    Input { name: "prompts.json", make: prompts },
    Input {
        name: "why.json",
        make: |to| {
            let set = "{\"name\": \"why\", \"prompts\": [{\"prompt\": \"Why?\"}]}";
            fs::write(to, set).map_err(failed)
        },
    },
    Input { name: "wide.stats", make: |to| tensors::wide(to, &committed()) },
    Input { name: "narrow.stats", make: |to| tensors::narrow(to, &committed()) },
    Input { name: "oblong.stats", make: |to| tensors::oblong(to, &committed()) },
    Input { name: "negative.stats", make: |to| tensors::moments(to, &committed(), -1.0) },
    Input { name: "large.stats", make: |to| tensors::moments(to, &committed(), 3e38) },
    Input { name: "nan.stats", make: |to| tensors::moments(to, &committed(), f32::NAN) },
    Input { name: "overflowing.stats", make: |to| tensors::overflowing(to, &committed()) },
    Input { name: "experts", make: experts },
    Input { name: "profile.json", make: |to| profile(to, |_, expert| 3 * expert % 7) },
    Input { name: "zeros.json", make: |to| profile(to, |_, _| 0) },
    Input {
        name: "fewer.json",
        make: |to| {
            profile(to, |_, _| 1)?;
            let text = fs::read_to_string(to).map_err(failed)?;
            fs::write(to, text.replace("\"layers\":3,", "\"layers\":2,")).map_err(failed)
        },
    },
    Input { name: "scenes", make: scenes },
    Input {
        name: "bad-scenes",
        make: |to| {
            fs::create_dir(to).map_err(failed)?;
            fs::write(to.join("scenes.jsonl"), "{\"kind\": 1}\n").map_err(failed)
        },
    },
    Input { name: "empty.sail", make: |to| fs::write(to, b"").map_err(failed) },
    Input { name: "foreign.sail", make: |to| fs::write(to, [7; 10_000]).map_err(failed) },
    Input { name: "newer.sail", make: newer_format },
    Input { name: "other-cpu.sail", make: other_cpu },
];

/// Make every input that `transcript` mentions inside `folder`.
pub fn prepare(transcript: &str, folder: &Path) -> Result<(), Outcome> {
    let mentioned = |name: &str| {
        let commands = transcript.lines().filter(|line| line.starts_with("$ "));
        let mut words = commands.flat_map(str::split_whitespace);
        words.any(|word| word.split('/').next() == Some(name))
    };
    for input in INPUTS.iter().filter(|input| mentioned(input.name)) {
        (input.make)(&folder.join(input.name))?;
    }
    Ok(())
}

fn committed() -> PathBuf {
    workspace().join(CHECKPOINT)
}

fn checkpoint(to: &Path) -> Result<(), Outcome> {
    copied(&committed(), to)
}

fn tiny(to: &Path) -> Result<(), Outcome> {
    copy_folder(&workspace().join(TINY), to).map(drop)
}

/// The checkpoint with one element of a tensor changed.
fn one(to: &Path, tensor: &str, element: usize, value: u16) -> Result<(), Outcome> {
    checkpoint(to)?;
    tensors::set(to, tensor, element..element + 1, value)
}

/// The same with experts.
fn experts(to: &Path) -> Result<(), Outcome> {
    copied(&RECORDED[1].paths()?.0, to)
}

/// What was counted of the checkpoint with experts: of each layer and expert.
fn profile(to: &Path, count: fn(u32, u32) -> u32) -> Result<(), Outcome> {
    let model = RECORDED[1].paths()?.0;
    let model = sail_models::open(&model, WeightSource::Checkpoint).map_err(told)?;
    let card = model.spec.card(1);
    let experts = card.decoder.experts.expect("the model has experts").count as u32;
    let layers = (0..card.decoder.layers as u32).map(|layer| (layer, experts));
    let mut profile = ExpertProfile::new(card, layers);
    for row in &mut profile.layers {
        let counts = (0..experts).map(|expert| count(row.layer, expert).into());
        *row.counts.of_mut(TokenKind::Prompt) = counts.collect();
    }
    fs::write(to, serde_json::to_vec(&profile).map_err(failed)?).map_err(failed)
}

/// A lock of one line, for the lowest target.
fn lock(to: &Path, line: &str) -> Result<(), Outcome> {
    let head = format!("sailc.lock 1 space {}", sailc::lock::space());
    fs::write(to, format!("{head}\nx86-64-v3 {line}\n")).map_err(failed)
}

fn copied(from: &Path, to: &Path) -> Result<(), Outcome> {
    fs::create_dir(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().expect("entries have names");
        if !name.to_string_lossy().starts_with("golden") {
            fs::copy(&path, to.join(name)).map_err(failed)?;
        }
    }
    Ok(())
}

/// The checkpoint with one file changed.
fn edited(to: &Path, file: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Result<(), Outcome> {
    checkpoint(to)?;
    let path = to.join(file);
    let mut bytes = fs::read(&path).map_err(failed)?;
    edit(&mut bytes);
    fs::write(&path, bytes).map_err(failed)
}

/// The checkpoint with the first `old` in `file` replaced by `new`.
fn replaced(to: &Path, file: &str, old: &str, new: &str) -> Result<(), Outcome> {
    edited(to, file, |bytes| {
        let at = find(bytes, old.as_bytes()).unwrap_or_else(|| panic!("`{file}` has no `{old}`"));
        bytes.splice(at..at + old.len(), new.bytes());
    })
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// The golden of the checkpoint, changed.
fn golden(to: &Path, edit: impl FnOnce(&mut Vec<u8>)) -> Result<(), Outcome> {
    let mut bytes = fs::read(RECORDED[0].paths()?.1).map_err(failed)?;
    edit(&mut bytes);
    fs::write(to, bytes).map_err(failed)
}

/// The first `old` becomes `new`, of the same length.
fn swap(bytes: &mut [u8], old: &str, new: &str) {
    let at = find(bytes, old.as_bytes()).unwrap_or_else(|| panic!("the golden has no `{old}`"));
    bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
}

/// Turn the sign of every value of a stage over, of the reference's run in f32 and of that in bf16.
fn negate(bytes: &mut [u8], stage: &str) {
    let (header, metadata) = SafeTensors::read_metadata(bytes).expect("the golden is sound");
    let ranges = [(stage.to_owned(), 4), (format!("{stage}_bf16"), 2)].map(|(name, width)| {
        let (start, end) = metadata.info(&name).expect("the golden records it").data_offsets;
        (header + 8 + start..header + 8 + end, width)
    });
    for (range, width) in ranges {
        bytes[range].chunks_mut(width).for_each(|value| value[width - 1] ^= 0x80);
    }
}

/// A grey picture.
fn picture(to: &Path, width: u32, height: u32) -> Result<(), Outcome> {
    let pixels = image::RgbImage::from_pixel(width, height, image::Rgb([128, 128, 128]));
    pixels.save(to).map_err(failed)
}

/// Two questions, one of them about a picture, which is put beside them.
fn prompts(to: &Path) -> Result<(), Outcome> {
    picture(&to.with_file_name("grey.png"), 84, 84)?;
    let set = r#"{"name": "two", "prompts": [
        {"prompt": "What is this?", "images": ["grey.png"]}, {"prompt": "Why?"}
    ]}"#;
    fs::write(to, set).map_err(failed)
}

/// Two questions with answers, one of them about a picture.
fn scenes(to: &Path) -> Result<(), Outcome> {
    fs::create_dir(to).map_err(failed)?;
    picture(&to.join("grey.png"), 84, 84)?;
    let lines = [
        r#"{"picture": "grey.png", "kind": "what", "question": "What is this?", "answer": "grey"}"#,
        r#"{"picture": null, "kind": "why", "question": "Why?", "answer": "so"}"#,
    ];
    fs::write(to.join("scenes.jsonl"), lines.join("\n")).map_err(failed)
}

/// The checkpoint, compiled for the lowest target.
fn artifact(to: &Path) -> Result<(), Outcome> {
    let target = Target::parse("x86-64-v3").map_err(told)?;
    let from = compiled::artifact(&RECORDED[0], &target)?;
    fs::copy(from, to).map(drop).map_err(failed)
}

/// A file of a format that only a later program knows.
fn newer_format(to: &Path) -> Result<(), Outcome> {
    let mut page = vec![0; 4096];
    page[..8].copy_from_slice(b"SAILFILE");
    page[8] = 99;
    fs::write(to, page).map_err(failed)
}

/// The artifact of the checkpoint, for a CPU that has more than any known one.
fn other_cpu(to: &Path) -> Result<(), Outcome> {
    let target = Target::parse("x86-64-v3").map_err(told)?;
    compiled::rewrite(&compiled::artifact(&RECORDED[0], &target)?, to, |manifest, _| {
        manifest.target.name = "x86-64-v9".to_owned();
        manifest.target.features.push("avx2048".to_owned());
    })
}
