//! `sailc inspect`: what is in a checkpoint folder or in a `.sail` file.

use std::path::PathBuf;

use clap::Args;
use sail_ir::output;
use sail_models::Model;
use sail_models::spec::FeedForward;

use crate::error::{Failure, boxed};
use crate::quality::QualityError;

/// Show what is in a checkpoint folder, checked as `compile` would, or in a `.sail` file.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: sailc inspect SAIL-VL2-2B --tensors\nMore of a .sail file: sail inspect FILE"
)]
pub struct Inspect {
    /// Folder with config.json, tokenizer.json and the safetensors files, or a .sail file.
    checkpoint: PathBuf,
    /// Look at the configuration only, as if the weights were `random:SEED`.
    #[arg(long)]
    weights: Option<String>,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
    /// Show the quality sheet of a .sail file.
    #[arg(long, conflicts_with_all = ["weights", "tensors"])]
    quality: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub fn run(&self) -> Result<(), Failure> {
        if self.checkpoint.is_file() && !self.tensors && self.weights.is_none() {
            let path = self.checkpoint.clone();
            return sail_runtime::cli::inspect::Inspect::new(path, self.quality, self.json).run();
        }
        if self.quality {
            let path = self.checkpoint.display().to_string();
            return Err(boxed(QualityError::NoSheet { path }));
        }
        let source = super::weights(self.weights.as_deref())?;
        let model = sail_models::open(&self.checkpoint, source).map_err(boxed)?;
        let text = match self.json {
            true => format!("{}\n", self.document(&model)),
            false => self.text(&model),
        };
        output::put(&text).map_err(boxed)
    }

    fn text(&self, model: &Model) -> String {
        let spec = &model.spec;
        let (vision, decoder) = (&spec.vision, &spec.decoder);
        let mut lines = vec![spec.family.to_string()];
        lines.push(format!(
            "  vision   {} layers, width {}, {} heads of {}, feed-forward {}, {} patches of {} px a tile",
            vision.layers,
            vision.width,
            vision.heads,
            vision.head_width,
            vision.ff_width,
            vision.patches(),
            vision.patch_size
        ));
        lines.push(format!(
            "  adapter  {} to {}, {} positions a tile, at most {} tiles a picture",
            spec.adapter.in_width,
            spec.adapter.out_width,
            spec.adapter.tile_tokens,
            spec.tiles_per_picture()
        ));
        lines.push(format!(
            "  decoder  {} layers, width {}, {} query and {} kv heads of {}, {}",
            decoder.layers(),
            decoder.width,
            decoder.heads,
            decoder.kv_heads,
            decoder.head_width,
            feed_forward(decoder.feed_forward.first())
        ));
        lines.push(format!("  head     {:?}, vocabulary {}", decoder.head, decoder.vocab));
        lines.push(format!(
            "  weights  {} tensors, {} bytes",
            model.weights.tensors().len(),
            model.weights.bytes()
        ));
        if self.tensors {
            for tensor in model.weights.tensors() {
                lines.push(format!("  {:?} {}", tensor.shape(), tensor.name));
            }
        }
        lines.join("\n") + "\n"
    }

    fn document(&self, model: &Model) -> serde_json::Value {
        let spec = &model.spec;
        let mut value = serde_json::json!({
            "schema": "sailc.inspect/1",
            "family": spec.family,
            "vision": {"layers": spec.vision.layers, "width": spec.vision.width, "heads": spec.vision.heads,
                       "ff_width": spec.vision.ff_width, "patches": spec.vision.patches()},
            "decoder": {"layers": spec.decoder.layers(), "width": spec.decoder.width, "heads": spec.decoder.heads,
                        "kv_heads": spec.decoder.kv_heads, "head_width": spec.decoder.head_width,
                        "vocab": spec.decoder.vocab, "feed_forward": feed_forward(spec.decoder.feed_forward.first())},
            "tensors": model.weights.tensors().len(),
            "bytes": model.weights.bytes(),
        });
        if self.tensors {
            let tensors = model.weights.tensors().iter();
            value["tensor_list"] = tensors
                .map(|tensor| serde_json::json!({"name": tensor.name, "shape": tensor.shape()}))
                .collect();
        }
        value
    }
}

fn feed_forward(kind: Option<&FeedForward>) -> String {
    match kind {
        Some(FeedForward::Dense { width }) => format!("feed-forward {width}"),
        Some(FeedForward::Experts { count, top_k, width, .. }) => {
            format!("{top_k} of {count} experts of {width}")
        }
        None => "no layers".to_owned(),
    }
}
