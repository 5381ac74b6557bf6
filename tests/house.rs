//! All tests that are no unit tests, in one executable, because each one that links MLIR statically
//! costs seconds. `cargo test -p sail-tests -- PART_OF_A_NAME` runs some; `--list`, `--times`.

mod cli;
mod e2e;
mod filetests;
mod numerics;
mod tidy;

use std::process::ExitCode;

use sail_tests::harness;

fn main() -> ExitCode {
    let modules = vec![
        ("harness", harness::tests()),
        ("tidy", tidy::tests()),
        ("filetests", filetests::tests()),
        ("numerics", numerics::tests()),
        ("cli", cli::tests()),
        ("e2e", e2e::tests()),
    ];
    harness::main(modules, std::env::args().skip(1))
}
