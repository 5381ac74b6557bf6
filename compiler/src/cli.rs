//! The command line of `sailc`: one file per command.

mod calibrate;
mod compile;
mod explain;
mod inspect;
mod progress;
mod synth;
mod tune;
mod verify;

use std::path::Path;

use clap::{Parser, Subcommand};
use sail_ir::artifact::Machine;
use sail_ir::{Scheme, Target};
use sail_models::WeightSource;

use crate::error::{CompileError, Failure, boxed};
use crate::recipe::{self, Rule};

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

/// The scheme that `--quant` names.
fn scheme(name: &str) -> Result<Scheme, Failure> {
    name.parse().map_err(|because| boxed(CompileError::Scheme { because }))
}

/// What `--quant-config` says, where it is given.
fn scheme_rules(path: Option<&Path>) -> Result<Vec<Rule>, Failure> {
    path.map_or(Ok(Vec::new()), |path| recipe::read(path).map_err(boxed))
}

/// What `--weights` names; those of the checkpoint's folder where it is not given.
fn weights(text: Option<&str>) -> Result<WeightSource, Failure> {
    text.map_or(Ok(WeightSource::Checkpoint), |text| text.parse().map_err(boxed))
}

/// What `--threads` says; as many as the system offers where it is not given.
fn threads(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}
