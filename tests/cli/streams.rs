//! What commands do when nobody takes what they print.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use sail_tests::harness::{Outcome, Test, failed};
use sail_tests::places::binary;

use super::inputs;

/// Programs and arguments that print a result.
const COMMANDS: [(&str, &str); 6] = [
    ("sailc", "explain"),
    ("sailc", "inspect checkpoint --tensors"),
    ("sailc", "compile checkpoint --emit graph"),
    ("sail", "inspect model.sail"),
    ("sail", "run model.sail --device null --prompt a --max-tokens 4"),
    ("sail", "run model.sail --device null --prompt a --max-tokens 4 --json"),
];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("a reader that has gone away makes no command fail", gone_away).independent(),
        Test::new("a result that a full disk does not take is a failure", full).independent(),
        Test::new("words that nobody takes change no exit code", deaf).independent(),
    ]
}

fn gone_away() -> Result<(), Outcome> {
    let closed = || {
        let (reader, writer) = io::pipe().map_err(failed)?;
        drop(reader);
        Ok(writer.into())
    };
    each(closed, 0, "")
}

/// Linux has a file that is always full.
fn full() -> Result<(), Outcome> {
    let sentence = "error[SC0114]: cannot write the result\n  in standard output\n  because of: no space left on device\n";
    each(|| Ok(File::options().write(true).open("/dev/full").map_err(failed)?.into()), 7, sentence)
}

fn each(
    stdout: impl Fn() -> Result<Stdio, Outcome>,
    code: i32,
    words: &str,
) -> Result<(), Outcome> {
    let folder = prepared()?;
    for (program, arguments) in COMMANDS {
        let mut command = command(folder.path(), program, arguments)?;
        let output = command.stdout(stdout()?).output().map_err(failed)?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), text.as_str()), (Some(code), words), "{arguments}");
    }
    Ok(())
}

fn deaf() -> Result<(), Outcome> {
    let folder = prepared()?;
    let mut command = command(folder.path(), "sail", "inspect absent.sail")?;
    let full = File::options().write(true).open("/dev/full").map_err(failed)?;
    assert_eq!(command.stderr(full).status().map_err(failed)?.code(), Some(1));
    Ok(())
}

fn prepared() -> Result<tempfile::TempDir, Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    inputs::prepare("$ checkpoint model.sail", folder.path())?;
    Ok(folder)
}

fn command(folder: &Path, program: &str, arguments: &str) -> Result<Command, Outcome> {
    let mut command = Command::new(binary(program)?);
    command.args(arguments.split_whitespace()).current_dir(folder).stdin(Stdio::null());
    Ok(command)
}
