//! `sailc compile`: from a checkpoint folder to a `.sail` file, or to the text of a stage.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum, value_parser};
use sail_ir::{CacheScheme, output};

use super::progress;
use crate::error::{CompileError, Failure, boxed};
use crate::options::Options;
use crate::pipeline::{self, Report};
use crate::quality::{Goal, PromptSet, Wanted};

/// Compile a checkpoint into one `.sail` file.
#[derive(Debug, Args)]
#[command(after_help = "Example: sailc compile SAIL-VL2-2B --target host -o sail2b.sail")]
pub struct Compile {
    /// Folder with config.json, tokenizer.json and the safetensors files.
    checkpoint: PathBuf,
    /// `host`, `x86-64-v3`, `x86-64-v4`, `znver4`, … with `+feature`s; `sm_80`, `sm_90`.
    #[arg(long, default_value = "host")]
    target: String,
    /// How the weights of products are stored: `bf16`, `int8`, `int8-weight`, `int4`, or from `sm_90` on
    /// `fp8`.
    #[arg(long, default_value = "bf16")]
    quant: String,
    /// Recipe file (TOML): other schemes for some layers, `[[rule]]` with `layers` and `scheme`.
    #[arg(long, value_name = "RECIPE")]
    quant_config: Option<PathBuf>,
    /// How keys and values are kept in the cache: `bf16`, or `int8` with a scale for each head.
    #[arg(long, value_name = "CACHE", default_value = "bf16")]
    kv: String,
    /// The file to write.
    #[arg(short, long, required_unless_present_any = ["emit", "explain"])]
    output: Option<PathBuf>,
    /// `random:SEED` instead of the folder's weights.
    #[arg(long)]
    weights: Option<String>,
    /// Store no weights: the runtime makes them of the seed when it loads the file, of a few megabytes.
    /// For timing shapes.
    #[arg(long, requires = "weights", conflicts_with_all = ["calibration", "expert_profile", "quality"])]
    code_only: bool,
    /// What `sailc calibrate` wrote of this checkpoint; schemes of fewer bits round by it.
    #[arg(long, value_name = "STATS")]
    calibration: Option<PathBuf>,
    /// Move outliers of activations into weights by this share of their width, 0 to 1, where a norm or
    /// a feed-forward makes them (SmoothQuant's alpha); 0.5 is usual.
    #[arg(long, value_name = "ALPHA", requires = "calibration", value_parser = alpha)]
    smooth: Option<f32>,
    /// What `sail run --profile-experts` wrote of this model; its experts are stored by it.
    #[arg(long, value_name = "PROFILE")]
    expert_profile: Option<PathBuf>,
    /// Configs of kernels that `sailc tune` pinned, instead of those that rules choose.
    #[arg(long, value_name = "LOCK")]
    lock: Option<PathBuf>,
    /// Run the artifact beside `bf16` on this prompt set (JSON), and store how near it is.
    #[arg(long, value_name = "PROMPTS")]
    quality: Option<PathBuf>,
    /// What must be reached there, else nothing is written: `kl<=0.01`, `top1>=0.99` (repeatable).
    #[arg(long, requires = "quality")]
    goal: Vec<String>,
    /// Longest sequence, pictures included; at most what the model was made for.
    #[arg(long)]
    context: Option<u32>,
    /// Threads that pack weights and generate code.
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print a stage and stop.
    #[arg(long, value_enum)]
    emit: Option<Emit>,
    /// Say what a pass did and why, and stop: `fuse`, `quantize`, `smooth`; or how kernels are shaped, why, and what
    /// those of a CUDA target should take: `kernels`.
    #[arg(long, value_name = "PASS")]
    explain: Option<String>,
    /// Do not apply this fusion rule (repeatable).
    #[arg(long, value_name = "RULE")]
    disable_rule: Vec<String>,
    /// Print the module after this pass on standard error (repeatable).
    #[arg(long, value_name = "PASS")]
    print_ir_after: Vec<String>,
    /// Print the time of each pass and phase on standard error.
    #[arg(long)]
    timings: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What can be printed instead of compiling to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    Graph,
    Fused,
    Packed,
    Kernels,
    Plan,
    /// LLVM IR of every kernel.
    Llvm,
    /// Assembly of every kernel.
    Asm,
    /// The PTX text of all kernels of a CUDA target.
    Ptx,
}

impl Emit {
    fn stage(self) -> pipeline::Emit {
        match self {
            Self::Graph => pipeline::Emit::Graph,
            Self::Fused => pipeline::Emit::Fused,
            Self::Packed => pipeline::Emit::Packed,
            Self::Kernels => pipeline::Emit::Kernels,
            Self::Plan => pipeline::Emit::Plan,
            Self::Llvm => pipeline::Emit::Llvm,
            Self::Asm => pipeline::Emit::Assembly,
            Self::Ptx => pipeline::Emit::Ptx,
        }
    }
}

impl Compile {
    pub fn run(&self) -> Result<(), Failure> {
        let start = Instant::now();
        let options = self.options()?;
        if let Some(emit) = self.emit {
            let stage = emit.stage();
            let text = pipeline::emit(&self.checkpoint, &options, stage)?;
            return output::put(&text).map_err(boxed);
        }
        if let Some(pass) = &self.explain {
            let text = pipeline::emit(&self.checkpoint, &options, explanation(pass)?)?;
            return output::put(&text).map_err(boxed);
        }
        let artifact = self.output.as_ref().expect("clap requires it here");
        let report = progress::writing("weights", |progress| {
            pipeline::compile(&self.checkpoint, &options, artifact, progress)
        })?;
        let text = self.text(&options, &report, start.elapsed().as_secs_f64());
        output::put(&text).map_err(boxed)
    }

    fn options(&self) -> Result<Options, Failure> {
        let target = super::target(&self.target)?;
        let scheme = super::scheme(&self.quant)?;
        let cache = self
            .kv
            .parse::<CacheScheme>()
            .map_err(|because| boxed(CompileError::Cache { because }))?;
        let weights = super::weights(self.weights.as_deref())?;
        if let Some(pass) = &self.explain {
            explanation(pass)?;
        }
        let threads = super::threads(self.threads.map(usize::from));
        Ok(Options {
            target,
            scheme,
            scheme_rules: super::scheme_rules(self.quant_config.as_deref())?,
            cache,
            weights,
            code_only: self.code_only,
            context: self.context,
            threads,
            quality: self.wanted()?,
            calibration: self.calibration.clone(),
            smooth: self.smooth,
            expert_profile: self.expert_profile.clone(),
            assemble: true,
            lock: self.lock.clone(),
            tap_inputs: false,
            disabled_rules: self.disable_rule.clone(),
            print_ir_after: self.print_ir_after.clone(),
            timings: self.timings,
        })
    }

    /// What is asked of the quality sheet, its files read.
    fn wanted(&self) -> Result<Option<Wanted>, Failure> {
        let Some(path) = &self.quality else { return Ok(None) };
        let goals = self.goal.iter().map(|text| text.parse::<Goal>().map_err(boxed));
        let goals = goals.collect::<Result<_, _>>()?;
        let prompts = PromptSet::open(path).map_err(boxed)?;
        Ok(Some(Wanted { prompts, goals }))
    }

    fn text(&self, options: &Options, report: &Report, seconds: f64) -> String {
        let Report { bytes, kernels, code_bytes, weight_bytes } = report;
        let Options { target, scheme, .. } = options;
        let made = if options.code_only { "to be made when it is loaded, " } else { "" };
        let path = self.output.as_deref().unwrap_or_else(|| std::path::Path::new("-")).display();
        if self.json {
            format!(
                "{}\n",
                serde_json::json!({
                    "schema": "sailc.compile/1", "file": path.to_string(), "bytes": bytes,
                    "target": target, "scheme": scheme, "kernels": kernels,
                    "code_bytes": code_bytes, "weight_bytes": weight_bytes, "seconds": seconds,
                    "weights_stored": !options.code_only,
                })
            )
        } else {
            format!(
                "wrote `{path}`: {bytes} bytes for `{target}`, {kernels} kernels ({code_bytes} bytes of code), {weight_bytes} bytes of `{scheme}` weights, {made}{seconds:.1} s\n"
            )
        }
    }
}

/// What `--explain PASS` asks for.
fn explanation(pass: &str) -> Result<pipeline::Emit, Failure> {
    match pass {
        "fuse" => Ok(pipeline::Emit::WhyFused),
        "quantize" => Ok(pipeline::Emit::WhyQuantized),
        "smooth" => Ok(pipeline::Emit::WhySmoothed),
        "kernels" => Ok(pipeline::Emit::WhyKernels),
        other => Err(boxed(CompileError::NoExplanation { pass: other.to_owned() })),
    }
}

/// The share of `--smooth`.
fn alpha(text: &str) -> Result<f32, String> {
    let alpha = text.parse().ok().filter(|alpha| (0.0..=1.0).contains(alpha));
    alpha.ok_or_else(|| "a share is a number from 0 to 1".to_owned())
}
