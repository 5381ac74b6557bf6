//! The scripts of `benches` pass their own tests.

use std::process::Command;

use sail_tests::harness::{Outcome, Test, failed};
use sail_tests::places::workspace;

/// Folders with files `test_*.py`.
const FOLDERS: [&str; 2] = ["benches/gpu", "benches/peers"];

pub fn tests() -> Vec<Test> {
    vec![Test::new("the scripts of benches pass their own tests", pass)]
}

fn pass() -> Result<(), Outcome> {
    for folder in FOLDERS {
        let mut python = Command::new("python3");
        python.args(["-B", "-m", "unittest", "discover", folder]).current_dir(workspace());
        let said = python.output().map_err(|_| Outcome::Skipped("no python3 here".to_owned()))?;
        let text = String::from_utf8_lossy(&said.stderr);
        let some = text.lines().any(|line| line.starts_with("Ran ") && !line.starts_with("Ran 0 "));
        if !(said.status.success() && some) {
            return Err(failed(format!("{folder}: {text}")));
        }
    }
    Ok(())
}
