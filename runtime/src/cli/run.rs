//! `sail run`: ask, once or in a conversation.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::ask::Asker;
use super::experts::{self, ExpertProfiler};
use super::{Failure, Machine, boxed, progress::Progress, trace};
use crate::device::signal;
use crate::{Options, Session};

/// Ask, once or in a conversation.
#[derive(Debug, Args)]
#[command(after_help = "\
Without --prompt it reads questions line by line: from a terminal a conversation, from a pipe too.
A line `/image FILE` adds a picture to the next question, `/clear` begins anew.

Example: sail run model.sail --image cat.jpg --prompt 'What is this?' --max-tokens 64")]
pub struct Run {
    /// The compiled model.
    pub(super) file: PathBuf,
    /// A picture (JPEG, PNG, WebP); may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(super) image: Vec<PathBuf>,
    /// The question; `<image>` in it stands for a picture, without any the pictures come first.
    #[arg(long, value_name = "TEXT")]
    pub(super) prompt: Option<String>,
    /// Longest answer.
    #[arg(long, value_name = "N")]
    pub(super) max_tokens: Option<u32>,
    /// What the model is told about itself.
    #[arg(long, value_name = "TEXT")]
    pub(super) system: Option<String>,
    /// Ask the model to think first.
    #[arg(long)]
    pub(super) thinking: bool,
    /// Text that ends an answer; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub(super) stop: Vec<String>,
    /// Most cells of a picture's grid of image tiles.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_tiles: Option<u32>,
    /// Print JSON, one document for each answer.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) sampling: SamplingArgs,
    #[command(flatten)]
    pub(super) machine: Machine,
    #[command(flatten)]
    pub(super) inside: InsideArgs,
}

/// How the next token is chosen; the artifact's own numbers unless said.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingArgs {
    /// 0 takes the most probable token.
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// Only the K most probable tokens; 0 keeps all.
    #[arg(long, value_name = "K")]
    pub top_k: Option<u32>,
    /// Only the most probable tokens with this share together.
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Only tokens at least this times as probable as the most probable one.
    #[arg(long, value_name = "P")]
    pub min_p: Option<f32>,
    /// More than 1 makes repetition rarer.
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f32>,
    /// The same seed draws the same tokens.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// Looking inside.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Looking inside")]
pub(super) struct InsideArgs {
    /// Hash all weights before the first work instead of beside it.
    #[arg(long)]
    pub verify_first: bool,
    /// Write bytes, time and share of the limit of every step: JSON lines, or `-` for a table on
    /// standard error.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Count which experts tokens go through, by layer and kind of token: JSON, and a heat map of
    /// the same name that ends in `.svg`.
    #[arg(long, value_name = "FILE", value_parser = experts::path())]
    pub profile_experts: Option<PathBuf>,
    /// Values to write, such as `layers.*,logits`; the prompt's are written before it is answered.
    #[arg(long, value_name = "PATTERN", requires = "tap_out")]
    pub tap: Option<String>,
    /// Folder for the values (`NAME.npy`) and `tokens.json`.
    #[arg(long, value_name = "DIR", requires = "tap")]
    pub tap_out: Option<PathBuf>,
    /// The prompt as token ids instead of text: a JSON list, or a document with `prompt`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "system", "thinking"])]
    pub ids_json: Option<PathBuf>,
}

impl Run {
    pub fn run(&self) -> Result<(), Failure> {
        let mut asker = Asker::new(self)?;
        let options = Options {
            taps: self.inside.tap.is_some(),
            times: self.inside.trace.is_some(),
            ..self.machine.options()
        };
        let program = super::open(&self.file, &options)?;
        let mut progress = Progress::new();
        if self.inside.verify_first {
            progress.verify(&program).map_err(boxed)?;
        }
        let path = self.inside.trace.as_deref();
        let mut trace =
            path.map(|path| trace::writer(&program, path, options.threads)).transpose()?;
        let path = self.inside.profile_experts.as_deref();
        let profiler = path.map(|path| ExpertProfiler::new(&program, path)).transpose()?;
        asker.profiler = profiler.clone();
        if trace.is_some() || profiler.is_some() {
            program.watch(Some(Box::new(move |plan, done| {
                if let Some(trace) = &mut trace {
                    trace(plan, done);
                }
                if let Some(profiler) = &profiler {
                    profiler.hear(done);
                }
            })));
        }
        let mut session = Session::new(&program).map_err(boxed)?;
        session.set_system(self.system.clone());
        if self.prompt.is_some() || self.inside.ids_json.is_some() {
            signal::listen();
            return asker.once(&program, &mut session, &mut progress);
        }
        asker.converse(&program, &mut session, &mut progress)
    }
}

/// Rates for people: `302 tokens read in 1.20 s (251/s), 12 written at 9.1/s`.
pub(super) fn rates(timings: &crate::session::Timings) -> String {
    let mut text = String::new();
    if timings.tiles > 0 {
        let seconds = Duration::from_secs_f64(timings.vision).as_secs_f64();
        text.push_str(&format!("{} image tiles seen in {seconds:.2} s, ", timings.tiles));
    }
    text.push_str(&format!(
        "{} tokens read in {:.2} s ({:.1}/s), {} written at {:.1}/s",
        timings.prompt_tokens,
        timings.prefill,
        timings.prefill_rate(),
        timings.generated,
        timings.decode_rate(),
    ));
    text
}
