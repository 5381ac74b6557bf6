//! `sailc synth`: write a random checkpoint, to try and time things with.

use std::path::PathBuf;

use clap::{Args, value_parser};
use sail_ir::output;
use sail_models::synth;

use super::progress;
use crate::error::{CompileError, Failure, boxed, plain};

/// Write a random checkpoint of a published size in the published layout.
#[derive(Debug, Args)]
#[command(after_help = "Example: sailc synth 2b -o /tmp/random-2b")]
pub struct Synth {
    /// `2b`, `8b`, `30b-a3b`, `a3b-l6`, or the path of a `config.json`.
    size: String,
    /// The folder to write; it must be empty or absent.
    #[arg(short, long)]
    output: PathBuf,
    /// The weights are a pure function of it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of weight files; by default as many as files of 5 GB take.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    shards: Option<u64>,
    /// A `tokenizer.json` to copy; by default one is made that knows single bytes.
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Synth {
    pub fn run(&self) -> Result<(), Failure> {
        let given;
        let config = if self.size.ends_with(".json") {
            given = std::fs::read_to_string(&self.size).map_err(|error| {
                boxed(CompileError::Read { path: self.size.clone(), because: plain(&error) })
            })?;
            given.as_str()
        } else {
            synth::published(&self.size).map_err(boxed)?
        };
        let request = synth::Synth {
            config,
            seed: self.seed,
            shards: self.shards,
            tokenizer: self.tokenizer.as_deref(),
        };
        let written =
            progress::writing("writing", |progress| request.write(&self.output, progress))
                .map_err(boxed)?;
        let text = if self.json {
            format!(
                "{}\n",
                serde_json::json!({"schema": "sailc.synth/1", "shards": written.shards, "tensors": written.tensors, "bytes": written.bytes})
            )
        } else {
            format!(
                "wrote {} tensors, {} bytes, {} files to `{}`\n",
                written.tensors,
                written.bytes,
                written.shards.len(),
                self.output.display()
            )
        };
        output::put(&text).map_err(boxed)
    }
}
