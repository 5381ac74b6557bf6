//! `sail inspect`: what is in a `.sail` file.

use std::path::PathBuf;

use clap::Args;
use sail_ir::artifact::{Artifact, CudaCode, Manifest, SectionKind, check};
use sail_ir::output;
use serde_json::json;

use super::error::CommandError;
use super::{Failure, boxed};
use crate::RunError;
use crate::error::grouped;

/// Show what is in a `.sail` file; all but the weights is checked.
#[derive(Debug, Args)]
#[command(after_help = "Example: sail inspect model.sail --plan decode")]
pub struct Inspect {
    /// The compiled model.
    file: PathBuf,
    /// Show the steps of a function: `vision`, `prefill`, `decode`, …
    #[arg(long, value_name = "FUNCTION")]
    plan: Option<String>,
    /// Rows of the size class to show; the largest class unless said.
    #[arg(long, value_name = "N", requires = "plan")]
    class: Option<u32>,
    /// Show the quality sheet: what fewer bits cost, as it was measured when compiling.
    #[arg(long, conflicts_with = "plan")]
    quality: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Of a whole file, or of its quality sheet alone.
    #[must_use]
    pub fn new(file: PathBuf, quality: bool, json: bool) -> Self {
        Self { file, plan: None, class: None, quality, json }
    }

    pub fn run(&self) -> Result<(), Failure> {
        let file = self.file.display().to_string();
        let artifact = Artifact::open(&self.file)
            .map_err(|error| boxed(RunError::Artifact { file, error }))?;
        let manifest = artifact.manifest();
        if self.quality {
            return output::put(&sheet(manifest, self.json)).map_err(boxed);
        }
        if let Some(name) = &self.plan {
            return self.print_plan(manifest, name);
        }
        let text = match self.json {
            true => format!("{}\n", document(&artifact)),
            false => summary(&artifact),
        };
        output::put(&text).map_err(boxed)
    }

    fn print_plan(&self, manifest: &Manifest, name: &str) -> Result<(), Failure> {
        let plan = &manifest.plan;
        let Some(function) = plan.function(name) else {
            let known: Vec<String> =
                plan.functions.iter().map(|function| format!("`{}`", function.name)).collect();
            let what = format!("there is no function `{name}`");
            return Err(boxed(CommandError::Unknown { what, known: known.join(", ") }));
        };
        let class = match self.class {
            None => None,
            Some(rows) => {
                let held = function.classes.iter().find(|bound| **bound >= rows);
                Some(*held.ok_or_else(|| {
                    let what = format!("`{name}` has no class of {rows} rows");
                    boxed(CommandError::Unknown { what, known: format!("{:?}", function.classes) })
                })?)
            }
        };
        let text = match self.json {
            true => format!("{}\n", json!({"schema": "sail.plan/1", "function": function})),
            false => plan.listing(function, class).to_string(),
        };
        output::put(&text).map_err(boxed)
    }
}

fn sheet(manifest: &Manifest, json: bool) -> String {
    let Manifest { scheme, quality, .. } = manifest;
    match json {
        true => {
            let document = json!({
                "schema": "sail.quality/1",
                "scheme": scheme,
                "weights": quality.weights,
                "measured": quality.measured,
            });
            format!("{document}\n")
        }
        false => format!("quality of `{scheme}` against `bf16` of the same checkpoint\n{quality}"),
    }
}

fn document(artifact: &Artifact) -> serde_json::Value {
    let manifest = artifact.manifest();
    let functions = manifest.plan.functions.iter().map(|function| {
        json!({
            "name": function.name,
            "classes": function.classes,
            "steps": function.steps.len(),
            "launches": function.launches.len(),
            "arena_bytes": largest_arena(function),
            "workspace_bytes": function.workspace_bytes,
        })
    });
    let mut document = json!({
        "schema": "sail.inspect/1",
        "root": artifact.root_hash(),
        "bytes": artifact.file_bytes(),
        "target": manifest.target,
        "runs_here": check(manifest, &sail_ir::artifact::Machine::this()).is_ok(),
        "scheme": manifest.scheme,
        "model": manifest.model,
        "tiling": manifest.tiling,
        "prompt": manifest.prompt,
        "tokens": manifest.tokens,
        "generation": manifest.generation,
        "built_with": manifest.built_with,
        "options": manifest.options,
        "cache": manifest.plan.cache,
        "functions": functions.collect::<Vec<_>>(),
        "kernels": manifest.plan.kernels.len(),
        "sections": manifest.sections,
    });
    if let Some(code) = &manifest.cuda {
        document["cuda"] = cuda(manifest, code);
    }
    if let Some(recipe) = artifact.recipe() {
        document["made_weight_bytes"] = json!(recipe.bytes);
    }
    document
}

/// What is known of the code of a CUDA target, kernel by kernel.
fn cuda(manifest: &Manifest, code: &CudaCode) -> serde_json::Value {
    let kernels = manifest.plan.kernels.iter().filter_map(|(_, kernel)| {
        let launch = kernel.cuda.as_ref()?;
        let usage = code.usage.iter().find(|usage| usage.entry == launch.entry);
        Some(json!({
            "name": kernel.symbol,
            "entry": launch.entry,
            "target": code.architecture,
            "ptx_version": code.ptx_version,
            "cubin": usage.is_some(),
            "threads": launch.threads,
            "shared_bytes": launch.shared_bytes,
            "cluster": launch.cluster,
            "tensor_maps": launch.tensor_maps.len(),
            "registers": usage.map(|usage| usage.registers),
            "stack_bytes": usage.map(|usage| usage.stack_bytes),
            "spill_bytes": usage.map(|usage| usage.spill_bytes),
        }))
    });
    json!({
        "ptx_version": code.ptx_version,
        "architecture": code.architecture,
        "assembler": code.assembler,
        "cubin": manifest.section(SectionKind::Cubin).is_some(),
        "kernels": kernels.collect::<Vec<_>>(),
    })
}

fn largest_arena(function: &sail_ir::plan::Function) -> u64 {
    let bound = function.classes.last().copied().unwrap_or_default();
    function.arena_bytes.at(bound).unwrap_or(u64::MAX)
}

fn summary(artifact: &Artifact) -> String {
    let manifest = artifact.manifest();
    let model = &manifest.model;
    let (vision, decoder, tiling) = (&model.vision, &model.decoder, &manifest.tiling);
    let feed_forward = match decoder.experts {
        Some(experts) => {
            format!("{} of {} experts of {}", experts.top_k, experts.count, experts.width)
        }
        None => format!("feed-forward {}", decoder.ff_width),
    };
    let mut lines = vec![
        format!("{}, {} parameters, {}", model.family, grouped(model.parameters), manifest.scheme),
        format!(
            "  vision    {} layers, width {}, {} heads, feed-forward {}, {} patches of {} px a tile",
            vision.layers,
            vision.width,
            vision.heads,
            vision.ff_width,
            vision.patches,
            vision.patch_size
        ),
        format!(
            "  decoder   {} layers, width {}, {} query and {} kv heads of {}, {feed_forward}, vocabulary {}",
            decoder.layers,
            decoder.width,
            decoder.heads,
            decoder.kv_heads,
            decoder.head_dim,
            decoder.vocabulary
        ),
        format!(
            "  pictures  tiles of {} px, at most {} and a thumbnail, {} positions each",
            tiling.tile_size, tiling.max_tiles, tiling.tokens_per_tile
        ),
        format!(
            "  context   {} positions, {} bytes of cache each",
            grouped(u64::from(manifest.plan.cache.max_positions)),
            grouped(position_bytes(manifest))
        ),
        format!("  target    {}, {}", manifest.target, runs_here(manifest)),
        format!(
            "  made by   sailc {}, LLVM {}",
            manifest.built_with.sailc, manifest.built_with.llvm
        ),
        format!("  from      {}", manifest.options.join(" ")),
    ];
    for function in &manifest.plan.functions {
        lines.push(format!(
            "  {:<13} {} steps in {} launches, classes {:?}, arena {} bytes",
            function.name,
            function.steps.len(),
            function.launches.len(),
            function.classes,
            grouped(largest_arena(function)),
        ));
    }
    for section in &manifest.sections {
        let name = section.kind.name();
        let kernels = match section.kind {
            SectionKind::Code => format!(", {} kernels", manifest.plan.kernels.len()),
            _ => String::new(),
        };
        lines.push(format!("  {name:<13} {} bytes{kernels}", grouped(section.bytes)));
    }
    if let Some(code) = &manifest.cuda {
        lines.push(match &code.assembler {
            Some(ptxas) => format!("  machine code  for `{}`, by ptxas {ptxas}", code.architecture),
            None => format!(
                "  machine code  none: the driver assembles the PTX {} when it is loaded",
                code.ptx_version
            ),
        });
    }
    if let Some(recipe) = artifact.recipe() {
        lines.push(format!(
            "  weights       none: {} bytes are made when it is loaded",
            grouped(recipe.bytes)
        ));
    }
    lines.push(format!("  root      {}", artifact.root_hash()));
    lines.join("\n") + "\n"
}

fn position_bytes(manifest: &Manifest) -> u64 {
    let cache = &manifest.plan.cache;
    let page = cache.block_bytes * u64::from(cache.kv_heads) * u64::from(cache.layers);
    page / u64::from(sail_ir::plan::PAGE_POSITIONS)
}

fn runs_here(manifest: &Manifest) -> String {
    match check(manifest, &sail_ir::artifact::Machine::this()) {
        Ok(()) => "which this machine runs".to_owned(),
        Err(error) if error.gpu => "which a GPU runs".to_owned(),
        Err(error) => {
            format!("which this machine does not run: it lacks {}", error.missing.join(", "))
        }
    }
}
