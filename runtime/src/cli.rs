//! The command line of `sail`: one file per command.

mod ask;
mod bench;
mod error;
mod eval;
mod experts;
pub mod inspect;
mod measure;
mod progress;
mod run;
mod trace;

use std::path::Path;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sail_ir::{Help, output};

use crate::{DeviceKind, Options, Program, WeightsMemory};

/// Why a command ends without its result.
pub type Failure = Box<dyn Help>;

/// Answer questions about pictures with a compiled model.
///
/// `sail run model.sail --image cat.jpg --prompt "What is this?"`
#[derive(Debug, Parser)]
#[command(name = "sail", version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask, once or in a conversation.
    Run(Box<run::Run>),
    /// Show what is in a `.sail` file.
    Inspect(inspect::Inspect),
    /// Ask questions with known answers and count those that are answered exactly.
    Eval(eval::Eval),
    /// Measure speed, against what this machine can do in the same seconds.
    Bench(bench::Bench),
}

/// Carry out one command. What it prints on standard output is its result and nothing else.
pub fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Run(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Eval(command) => command.run(),
        Command::Bench(command) => command.run(),
    }
}

/// Where and how much; the same for all commands that compute.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Device")]
pub(crate) struct Machine {
    /// What carries out the steps: `auto` (what the artifact was compiled for), `host`, `cuda:N`, or
    /// `null`, which computes nothing and checks every call.
    #[arg(long, value_name = "D", value_parser = device, default_value = "auto")]
    device: DeviceKind,
    /// Threads that compute; all processors this process may use, unless said.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Positions of the conversation, pictures included.
    #[arg(long, value_name = "N")]
    context: Option<u32>,
    /// Where weights are: in the file's pages, or copied to large ones, which are read faster.
    #[arg(long, value_enum, value_name = "M", default_value = "map")]
    weights_memory: Weights,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Weights {
    Map,
    Huge,
}

/// A device as it is written on the command line.
///
/// Refuses other words.
pub fn device(text: &str) -> Result<DeviceKind, String> {
    let ordinal = |text: &str| text.parse().ok();
    let kind = match text {
        "auto" => Some(DeviceKind::Auto),
        "host" => Some(DeviceKind::Host),
        "null" => Some(DeviceKind::Null),
        "cuda" => Some(DeviceKind::Cuda { ordinal: 0 }),
        _ => {
            text.strip_prefix("cuda:").and_then(ordinal).map(|ordinal| DeviceKind::Cuda { ordinal })
        }
    };
    kind.ok_or_else(|| {
        "devices are `auto`, `host`, `cuda:0`, `cuda:1` and so on, and `null`".to_owned()
    })
}

impl Machine {
    fn options(&self) -> Options {
        Options {
            device: self.device,
            threads: self.threads.map(usize::from),
            context: self.context,
            weights: match self.weights_memory {
                Weights::Map => WeightsMemory::Map,
                Weights::Huge => WeightsMemory::Huge,
            },
            slots: 1,
            ..Options::default()
        }
    }
}

/// Open a model; what works, but not as it was meant to, is said on standard error.
///
/// Refuses what [`Program::open`] refuses.
pub fn open(file: &Path, options: &Options) -> Result<Program, Failure> {
    let program = Program::open(file, options).map_err(boxed)?;
    if let Some(remark) = program.remark() {
        output::tell(&format!("warning: {remark}\n"));
    }
    Ok(program)
}

fn boxed(error: impl Help + 'static) -> Failure {
    Box::new(error)
}
