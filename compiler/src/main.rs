//! `sailc`: compile a SAIL-VL2 checkpoint into one `.sail` file, and look into either.

use std::process::ExitCode;

use clap::Parser;
use sailc::cli::{Cli, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let report = sail_ir::help::report(error.as_ref());
            sail_ir::output::tell(&format!("{report}\n"));
            ExitCode::from(error.exit_code())
        }
    }
}
