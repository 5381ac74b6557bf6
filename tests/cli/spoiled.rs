//! What `sailc verify` says of a golden whose values are not ours.
//!
//! No transcript: the distances in its table change with every kernel.

use std::process::Command;

use sail_tests::harness::{Outcome, Test, failed};
use sail_tests::places::binary;

use super::inputs;

pub fn tests() -> Vec<Test> {
    vec![Test::new("the first stage beyond its bound is named, with exit code 5", spoiled)]
}

fn spoiled() -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    inputs::prepare("$ model.sail golden.safetensors spoiled.safetensors", folder.path())?;
    let verify = |golden| {
        let mut command = Command::new(binary("sailc")?);
        command.args(["verify", "model.sail", "--golden", golden]).current_dir(folder.path());
        command.output().map_err(failed)
    };
    assert_eq!(verify("golden.safetensors")?.status.code(), Some(0));

    // `3.vision` comes before `3.layers.1`; the file names them the other way round.
    let output = verify("spoiled.safetensors")?;
    assert_eq!(output.status.code(), Some(5));
    let table = String::from_utf8_lossy(&output.stdout);
    let marked = |mark: &str| {
        let lines = table.lines().filter(|line| line.contains(mark));
        lines.map(|line| line.split_whitespace().next().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(marked("<- first beyond its bound"), ["vision"], "{table}");
    assert_eq!(marked("<- beyond"), ["layers.1"], "{table}");
    assert_eq!(table.lines().last(), Some("1 of 2 cases within their bounds"));
    let words =
        "error[SC0702]: case 3 lies beyond its bound: stage `vision` first\n  in `model.sail`\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), words);
    Ok(())
}
