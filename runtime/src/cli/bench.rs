//! `sail bench`: speed, against what this machine can do in the same seconds.

mod report;
mod runs;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use sail_ir::output;

use super::experts::ExpertProfiler;
use super::measure::Probe;
use super::progress::Progress;
use super::{Failure, Machine, boxed};
use crate::device::signal;
use crate::{Options, Program, RunError};

/// Measure speed, against what this machine can do in the same seconds.
#[derive(Debug, Args)]
#[command(after_help = "\
Every repetition stands beside a measurement of the machine's own limits: bytes that all threads read
from memory in a second, and multiplications and additions they do in registers with the widest
instruction for bf16 that the artifact may use. Shares are of those.

Example: sail bench model.sail --json")]
pub struct Bench {
    /// The compiled model.
    file: PathBuf,
    /// Tokens of the prompt.
    #[arg(long, value_name = "N", default_value = "512", value_parser = clap::value_parser!(u32).range(1..))]
    prefill: u32,
    /// Tokens written after it.
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..))]
    decode: u32,
    /// Image tiles of one call of the vision tower; 0 leaves pictures out.
    #[arg(long, value_name = "N", default_value = "1")]
    tiles: u32,
    /// Repetitions of each; the median counts.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Count which experts tokens go through: JSON, and a heat map of the same name that ends in
    /// `.svg`. Counting is in the times.
    #[arg(long, value_name = "FILE")]
    profile_experts: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: Machine,
}

impl Bench {
    pub fn run(&self) -> Result<(), Failure> {
        signal::listen();
        let options = Options { times: true, ..self.machine.options() };
        let start = Instant::now();
        let program = Program::open(&self.file, &options).map_err(boxed)?;
        let load = start.elapsed().as_secs_f64();
        runs::first_touch(&program).map_err(boxed)?;
        let times = report::Opening { load, start: start.elapsed().as_secs_f64() };
        let mut progress = Progress::new();
        progress.verify(&program).map_err(boxed)?;
        let sizes = runs::Sizes {
            prefill: self.prefill,
            decode: self.decode,
            tiles: self.tiles,
            repeat: self.repeat,
        };
        let path = self.profile_experts.as_deref();
        let profiler = path.map(|path| ExpertProfiler::new(&program, path)).transpose()?;
        let probe = Probe::new(&program, options.threads);
        let probe = probe.map_err(|error| boxed(RunError::Device(error)))?;
        let watched =
            runs::Watched { program: &program, probe: &probe, profiler: profiler.as_ref() };
        let runs = runs::measure(&watched, sizes, &mut progress)?;
        if let Some(profiler) = &profiler {
            profiler.write()?;
        }
        progress.clear();
        let report = report::Report::new(&program, times, runs);
        let text = match self.json {
            true => format!("{}\n", report.document()),
            false => report.text(),
        };
        output::put(&text).map_err(boxed)
    }
}
