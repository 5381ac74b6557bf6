//! `sail bench`: speed, against what this machine can do in the same seconds.

mod report;
mod runs;
mod turns;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use sail_ir::output;

use super::experts::{self, ExpertProfiler};
use super::measure::{Operations, Probe};
use super::progress::Progress;
use super::{Failure, Machine, boxed};
use crate::device::signal;
use crate::{Options, RunError};

/// Positions that the question with a picture of one tile has room in.
const LEAST_CONTEXT: u32 = 512;

/// Measure speed, against what this machine can do in the same seconds.
#[derive(Debug, Args)]
#[command(after_help = "\
On a GPU, calls are measured as conversations make them, and again with a mark around each kernel
for the table of families; its memory is measured by a copy inside of it.

Every repetition stands beside a measurement of the machine's own limits: bytes that all threads
read from memory in a second, and multiplications and additions they do in registers with the
widest instruction for bf16 that the artifact may use. Shares are of those.

With `--turns`, tokens are written for each line that comes on standard input, and the seconds
they took go out as a line: for a program that lets several take turns.

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
    /// Conversations that write at once, each at that depth.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Image tiles of one call of the vision tower, or several such numbers: `1,2,4`; 0 leaves
    /// pictures out.
    #[arg(long, value_name = "N,…", default_value = "1", value_delimiter = ',')]
    tiles: Vec<u32>,
    /// Repetitions of each; the median counts.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Count which experts tokens go through: JSON, and a heat map of the same name that ends in
    /// `.svg`. Counting is in the times.
    #[arg(long, value_name = "FILE", value_parser = experts::path())]
    profile_experts: Option<PathBuf>,
    /// Operations in a second that shares are of, in floats and in 8-bit integers, where they were
    /// measured elsewhere: `650e12,1200e12`.
    #[arg(long, value_name = "F,B")]
    operations: Option<Operations>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Read the prompt once, and write after it for each line of standard input; print seconds.
    #[arg(long, conflicts_with_all = ["json", "tiles", "repeat", "profile_experts", "operations"])]
    turns: bool,
    #[command(flatten)]
    machine: Machine,
}

impl Bench {
    pub fn run(&self) -> Result<(), Failure> {
        signal::listen();
        let options = self.options();
        let start = Instant::now();
        let program = super::open(&self.file, &options)?;
        let load = start.elapsed().as_secs_f64();
        runs::first_touch(&program).map_err(boxed)?;
        let times = report::Opening { load, start: start.elapsed().as_secs_f64() };
        let mut progress = Progress::new();
        progress.verify(&program).map_err(boxed)?;
        let sizes = runs::Sizes {
            prefill: self.prefill,
            decode: self.decode,
            batch: self.batch,
            tiles: self.tiles.iter().copied().filter(|tiles| *tiles > 0).collect(),
            repeat: self.repeat,
        };
        if self.turns {
            progress.clear();
            return turns::take(&program, &sizes);
        }
        let path = self.profile_experts.as_deref();
        let profiler = path.map(|path| ExpertProfiler::new(&program, path)).transpose()?;
        let probe = Probe::new(&program, options.threads);
        let probe = probe.map_err(|error| boxed(RunError::Device(error)))?.with(self.operations);
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

    /// Room for all conversations. Of several, each has what is measured and no more unless asked:
    /// their cache would be most of the memory.
    fn options(&self) -> Options {
        let options = self.machine.options();
        let needed = self.prefill.saturating_add(self.decode).max(LEAST_CONTEXT);
        let several = (self.batch > 1).then_some(needed);
        Options { times: true, slots: self.batch, context: options.context.or(several), ..options }
    }
}
