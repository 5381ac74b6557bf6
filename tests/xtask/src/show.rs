//! Prints a module or a checkpoint at a stage, to look at IR without writing a command line.

use std::path::Path;

use crate::run::{Result, binaries, command, succeeds};

/// Print `file`, a checkpoint folder (weights are not needed), at `stage`.
pub fn show(file: &str, stage: &str) -> Result<()> {
    let sailc = binaries()?.join("sailc");
    if !Path::new(file).is_dir() {
        return Err(format!("`{file}` is not a checkpoint folder"));
    }
    let arguments =
        ["compile", file, "--target", "x86-64-v3", "--weights", "random:0", "--emit", stage];
    if succeeds(&mut command(sailc, &arguments))? { Ok(()) } else { Err(String::new()) }
}
