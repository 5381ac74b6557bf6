//! Folders and files that transcripts begin with, most of them broken in one way.

use std::fs;
use std::path::Path;

use sail_tests::harness::{Outcome, failed};
use sail_tests::places::workspace;

/// A checkpoint small enough to be committed.
const CHECKPOINT: &str = "tests/goldens/odd-dense";

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
        name: "bad-json",
        make: |to| edited(to, "config.json", |bytes| bytes.truncate(bytes.len() / 2)),
    },
    Input {
        name: "unknown-model",
        make: |to| replaced(to, "config.json", "\"sailvl\"", "\"internvl_chat\""),
    },
    Input {
        name: "missing-tensor",
        make: |to| {
            replaced(
                to,
                "model.safetensors",
                "layers.0.mlp.up_proj.weight",
                "layers.0.mlp.up_prok.weight",
            )
        },
    },
    Input {
        name: "wrong-dtype",
        make: |to| {
            edited(to, "model.safetensors", |bytes| {
                // The first BF16 of the header; F16 has the same size.
                let at = find(bytes, b"\"BF16\"").expect("checkpoints are bf16");
                bytes[at..at + 6].copy_from_slice(b"\"F16\" ");
            })
        },
    },
    Input {
        name: "wrong-shape",
        make: |to| {
            replaced(to, "config.json", "\"intermediate_size\": 99", "\"intermediate_size\": 97")
        },
    },
    Input { name: "empty.png", make: |to| fs::write(to, b"").map_err(failed) },
];

/// Make every input that `transcript` mentions inside `folder`.
pub fn prepare(transcript: &str, folder: &Path) -> Result<(), Outcome> {
    let mentioned = |name: &str| {
        let commands = transcript.lines().filter(|line| line.starts_with("$ "));
        commands.flat_map(str::split_whitespace).any(|word| word == name)
    };
    for input in INPUTS.iter().filter(|input| mentioned(input.name)) {
        (input.make)(&folder.join(input.name))?;
    }
    Ok(())
}

fn checkpoint(to: &Path) -> Result<(), Outcome> {
    fs::create_dir(to).map_err(failed)?;
    for entry in fs::read_dir(workspace().join(CHECKPOINT)).map_err(failed)? {
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
