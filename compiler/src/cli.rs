//! The command line of `sailc`: one file per command.

mod calibrate;
mod compile;
mod explain;
mod inspect;
mod progress;
mod synth;
mod tune;
mod verify;

use clap::{Parser, Subcommand};
use sail_ir::Target;
use sail_ir::artifact::Machine;

use crate::error::{CompileError, Failure, boxed};

/// Compile SAIL-VL2 checkpoints ahead of time.
///
/// `sailc compile CHECKPOINT --target host -o model.sail`, then `sail run model.sail`.
#[derive(Debug, Parser)]
#[command(name = "sailc", version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile a checkpoint into one `.sail` file.
    Compile(compile::Compile),
    /// Run a checkpoint on this machine and keep what its products read.
    Calibrate(calibrate::Calibrate),
    /// Show what is in a checkpoint folder or in a `.sail` file.
    Inspect(inspect::Inspect),
    /// Say more about an error code, for example `sailc explain SC0204`.
    Explain(explain::Explain),
    /// Write a random checkpoint of a published size.
    Synth(synth::Synth),
    /// Find the fastest configs of a model's kernels on this machine, and pin them.
    Tune(tune::Tune),
    /// Compare a `.sail` file with recorded outputs of an independent reference.
    Verify(verify::Verify),
}

/// Carry out one command. What it prints on standard output is its result and nothing else.
pub fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Compile(command) => command.run(),
        Command::Calibrate(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Synth(command) => command.run(),
        Command::Tune(command) => command.run(),
        Command::Verify(command) => command.run(),
    }
}

/// The target that `--target` names.
///
/// Refuses an unknown one, and `host` where there is none for it.
fn target(name: &str) -> Result<Target, Failure> {
    match name {
        "host" => Machine::this().target().ok_or_else(|| boxed(CompileError::OldHost)),
        _ => Target::parse(name).map_err(boxed),
    }
}
