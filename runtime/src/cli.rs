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

use clap::{Args, Parser, Subcommand, ValueEnum};
use sail_ir::Help;

use crate::{DeviceKind, Options, WeightsMemory};

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
    /// What carries out the steps; `null` computes nothing and checks every call.
    #[arg(long, value_enum, default_value = "host")]
    device: Device,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Device {
    Host,
    Null,
}

impl Machine {
    fn options(&self) -> Options {
        Options {
            device: match self.device {
                Device::Host => DeviceKind::Host,
                Device::Null => DeviceKind::Null,
            },
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

fn boxed(error: impl Help + 'static) -> Failure {
    Box::new(error)
}
