//! The commands of the house: `cargo full`, `long`, `quick`, `bless`, `tidy`, `ptxas`, `show`, `demo`.
//!
//! Each is an alias in `.cargo/config.toml` for this program, which has no dependencies, so that it
//! is built in a second on a machine that has nothing but Rust.

mod checks;
mod demo;
mod packages;
mod ptxas;
mod run;
mod show;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo COMMAND

  demo               install what is missing, build, compile the small model, ask three questions
  full               install what is missing, build, run every test
  long [FILTER]      tests that take minutes each: every mutant of every CUDA kernel, every published size
                     assembled, large fixtures on a simulated GPU
  quick              format, lints, house rules, unit and file tests, transcripts
  tidy               house rules alone
  ptxas              install NVIDIA's assembler for the tests of CUDA kernels
  bless [FILTER]     rewrite expectations, then list the changed files
  show FILE STAGE    print a module or a checkpoint folder at a stage of the compiler";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["full"] => checks::full(),
        ["quick"] => checks::quick(),
        ["long"] => checks::long(None),
        ["long", filter] => checks::long(Some(filter)),
        ["ptxas"] => ptxas::install(),
        ["tidy"] => checks::tidy(),
        ["bless"] => checks::bless(None),
        ["bless", filter] => checks::bless(Some(filter)),
        ["show", file, stage] => show::show(file, stage),
        ["demo"] => demo::demo(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            if !message.is_empty() {
                eprintln!("error: {message}");
            }
            ExitCode::FAILURE
        }
    }
}
