//! What a person sees: commands, whole outputs and exit codes as transcripts.
//!
//! Each `.txt` file beside this one is a test; its first line says what it shows. `$ ` begins a
//! command, what follows is all it printed, then `$ echo $?` and its exit code when that is not 0.
//! Commands are `sailc` and `sail`, and the few of [`shell`] that look at files. Each transcript runs
//! in a folder of its own that holds those [`inputs`] whose names it mentions. `BLESS=1` rewrites
//! everything but the commands.

mod bench;
mod inputs;
mod shell;
mod spoiled;
mod streams;
mod tensors;

use std::fs;
use std::path::Path;

use sail_tests::expectation::file_holds;
use sail_tests::harness::{Outcome, Test, failed};
use sail_tests::places::workspace;

use shell::Shell;

pub fn tests() -> Vec<Test> {
    let folder = workspace().join("tests/cli");
    let entries = fs::read_dir(&folder).expect("the folder of this module is there");
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let transcripts = paths.into_iter().map(|path| {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let title = text.lines().next().unwrap_or_default().trim_start_matches("# ").to_owned();
        Test::new(title, move || transcript(&path)).independent()
    });
    shell::tests()
        .into_iter()
        .chain(spoiled::tests())
        .chain(streams::tests())
        .chain(bench::tests())
        .chain(transcripts)
        .collect()
}

fn transcript(path: &Path) -> Result<(), Outcome> {
    let text = fs::read_to_string(path).map_err(failed)?;
    let folder = tempfile::tempdir().map_err(failed)?;
    inputs::prepare(&text, folder.path())?;
    let shell = Shell::new(folder.path());
    let mut actual = String::new();
    for line in text.lines().take_while(|line| line.starts_with('#')) {
        actual.push_str(line);
        actual.push('\n');
    }
    for command in text.lines().filter_map(|line| line.strip_prefix("$ ")) {
        if command == "echo $?" {
            continue;
        }
        let (output, code) = shell.run(command)?;
        actual.push_str(&format!("$ {command}\n{output}"));
        if code != 0 {
            actual.push_str(&format!("$ echo $?\n{code}\n"));
        }
    }
    match file_holds(path, &actual) {
        Outcome::Passed => Ok(()),
        other => Err(other),
    }
}
