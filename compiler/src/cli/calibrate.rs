//! `sailc calibrate`: what the products of a model read when it is at work.

use std::path::PathBuf;

use clap::Args;
use sail_ir::output;

use super::progress;
use crate::error::{Failure, boxed};
use crate::options::Options;
use crate::pipeline;
use crate::quality::PromptSet;

/// Run a checkpoint on this machine and keep what its products read.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: sailc calibrate SAIL-VL2-2B --prompts prompts.json -o stats.safetensors
         sailc compile SAIL-VL2-2B --quant int4 --calibration stats.safetensors -o sail2b.sail")]
pub struct Calibrate {
    /// Folder with config.json, tokenizer.json and the safetensors files.
    checkpoint: PathBuf,
    /// A prompt set (JSON), as `sailc compile --quality` takes it.
    #[arg(long, value_name = "PROMPTS")]
    prompts: PathBuf,
    /// Ask every prompt that has no picture of its own about this one, too (repeatable).
    #[arg(long, value_name = "FILE")]
    images: Vec<PathBuf>,
    /// The file to write.
    #[arg(short, long)]
    output: PathBuf,
    /// `random:SEED` instead of the folder's weights.
    #[arg(long)]
    weights: Option<String>,
    /// What to run it with: a target of this machine, or `host`.
    #[arg(long, default_value = "host")]
    target: String,
    /// Longest sequence, pictures included; at most what the model was made for.
    #[arg(long)]
    context: Option<u32>,
    /// Threads that compile and run.
    #[arg(long)]
    threads: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Calibrate {
    pub fn run(&self) -> Result<(), Failure> {
        let target = super::target(&self.target)?;
        let prompts = PromptSet::open(&self.prompts).map_err(boxed)?;
        let prompts = prompts.with_pictures(&self.images).map_err(boxed)?;
        let weights = super::weights(self.weights.as_deref())?;
        let threads = super::threads(self.threads);
        let options = Options { weights, context: self.context, threads, ..Options::new(target) };
        let found = progress::writing("weights", |progress| {
            pipeline::calibrate(&self.checkpoint, &options, &prompts, &self.output, progress)
        })?;
        found.write(&self.output).map_err(boxed)?;
        let (inputs, rows) = found.counts();
        let (widest, at) = found.widest().unwrap_or((1.0, "none"));
        let path = self.output.display().to_string();
        let text = if self.json {
            format!(
                "{}\n",
                serde_json::json!({
                    "schema": "sailc.calibrate/1", "file": path, "set": prompts.name,
                    "prompts": prompts.prompts.len(), "inputs": inputs, "rows": rows,
                    "widest": {"ratio": widest, "input": at},
                })
            )
        } else {
            format!(
                "wrote `{path}`: what products read at {inputs} places, up to {rows} rows each, on {} prompts of `{}`\nthe widest channel is {widest:.1} times the median one, at `{at}`\n",
                prompts.prompts.len(),
                prompts.name
            )
        };
        output::put(&text).map_err(boxed)
    }
}
