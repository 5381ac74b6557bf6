//! All tests that are no unit tests, in one executable, because each one that links MLIR statically
//! costs seconds. `cargo test -p sail-tests -- PART_OF_A_NAME` runs some; `--list`, `--times`,
//! `--record-cases`.

mod assembled;
mod cli;
mod e2e;
mod filetests;
mod mutants;
mod numerics;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use sail_tests::{harness, places};

fn main() -> ExitCode {
    let modules = vec![
        ("harness", harness::tests()),
        ("tidy", tidy::tests()),
        ("filetests", filetests::tests()),
        ("numerics", numerics::tests()),
        ("cli", cli::tests()),
        ("e2e", e2e::tests()),
        ("assembled", assembled::tests()),
        ("mutants", mutants::tests()),
    ];
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|word| word == "--record-cases") {
        let Some(folder) = arguments.get(at + 1).map(PathBuf::from) else {
            eprintln!("--record-cases needs a folder");
            return ExitCode::from(2);
        };
        if let Err(error) = numerics::record_into(places::workspace().join(folder)) {
            eprintln!("cases cannot be recorded: {error}");
            return ExitCode::FAILURE;
        }
        arguments.drain(at..at + 2);
    }
    harness::main(modules, arguments.into_iter())
}
