//! The dialect as text: each rule and pass on small modules, each message on its line.

mod format;
mod kinds;

use std::fs;
use std::path::{Path, PathBuf};

use sail_tests::expectation::file_holds;
use sail_tests::harness::{Outcome, Test, failed};
use sail_tests::places::workspace;
use sailc::passes::fuse::RULES;

use format::FileTest;

/// One test for every `.mlir` file in a folder here, and one about all of them.
pub fn tests() -> Vec<Test> {
    let root = workspace().join("tests/filetests");
    let mut files = files_below(&root);
    files.sort();
    let file_tests = files.into_iter().map(|path| {
        let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        Test::new(format!("{name} says what happens"), move || holds(&path)).independent()
    });
    let rules = Test::new("every rule has a file in which it fires and declines twice", || {
        RULES.iter().try_for_each(|rule| fires_and_declines_twice(rule.name))
    });
    file_tests.chain([rules.independent()]).collect()
}

fn files_below(root: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries(root).map(|entry| entry.path()).filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| entries(&folder).collect::<Vec<_>>());
    let is_mlir = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "mlir");
    files.map(|entry| entry.path()).filter(is_mlir).collect()
}

fn holds(path: &Path) -> Result<(), Outcome> {
    let text = fs::read_to_string(path).map_err(failed)?;
    let test = FileTest::parse(&text).map_err(failed)?;
    let actual = kinds::run(&test).map_err(failed)?;
    match file_holds(path, &actual) {
        Outcome::Passed => Ok(()),
        other => Err(other),
    }
}

fn fires_and_declines_twice(rule: &str) -> Result<(), Outcome> {
    let path = workspace().join(format!("tests/filetests/fuse/{rule}.mlir"));
    let text = fs::read_to_string(&path).map_err(|error| failed(format!("{rule}: {error}")))?;
    let count = |what: &str| {
        let line = |line: &&str| {
            line.starts_with(&format!("// {rule} ")) && line.contains(&format!(": {what}"))
        };
        text.lines().filter(line).count()
    };
    let (fired, declined) = (count("fired"), count("declined: "));
    if fired == 0 || declined < 2 {
        return Err(failed(format!("`{rule}` fires {fired} times and declines {declined} times")));
    }
    Ok(())
}
