//! Mutants in launches of numerics: of what no model does while one conversation is read at a time.
//!
//! What numerics launch is recorded as for a real GPU and carried out by `gpucheck` on the simulated one, as
//! answers of models are by `sail`. Its comparisons mean nothing here: of a launch only some blocks are run,
//! and products are stirred.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sail_gpucheck::Case;
use sail_ir::Target;
use sail_tests::harness::{Outcome, failed};
use sail_tests::places::{binary, simulated_driver};

use super::run::{kept, want};
use super::score::{Entry, Key, Score, lines};
use crate::numerics::record;

/// What families begin with, and the test that launches such kernels as models do not.
const RECORDED: [(&str, &str); 1] =
    [("attention", "numerics: attention of GPUs holds for blocks of one conversation")];

/// Try those of `asked` that models have launched and nobody has missed.
pub fn run(target: &Target, gpu: &str, score: &mut Score, asked: &[Key]) -> Result<(), Outcome> {
    let is_open = |key: &&Key| !score.roles[*key].seen.is_empty() && !score.roles[*key].noticed();
    let keys: Vec<Key> = asked.iter().filter(is_open).cloned().collect();
    let has = |family: &str| keys.iter().any(|(kind, ..)| kind.starts_with(family));
    let names = RECORDED.into_iter().filter(|(family, _)| has(family)).map(|(_, name)| name);
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return Ok(());
    }
    let cases = tempfile::tempdir().map_err(failed)?;
    record(&names, cases.path())?;
    let mut open = BTreeSet::new();
    let files = wanted(cases.path(), target, |entry| {
        let numbers = score.join(entry, &keys);
        open.extend(numbers.iter().map(|number| (entry.name.clone(), *number)));
        !numbers.is_empty()
    })?;
    if open.is_empty() {
        return Ok(());
    }
    let mut known_by = vec![simulated_driver()?.join("libcuda.so.1"), binary("gpucheck")?];
    known_by.extend(files);
    let seen = kept(&known_by, &(gpu, &open), || carried_out(cases.path(), gpu, &open))?;
    score.note(&seen);
    Ok(())
}

/// Leave in `folder` those cases for `target` of whose kernel something is `asked`; their files.
fn wanted(
    folder: &Path,
    target: &Target,
    mut asked: impl FnMut(&Entry) -> bool,
) -> Result<Vec<PathBuf>, Outcome> {
    let entries = fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>();
    let mut paths: Vec<PathBuf> = entries.map_err(failed)?.iter().map(fs::DirEntry::path).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "case"));
    paths.sort();
    let mut files = Vec::new();
    // Whether a text is wanted, and whose it is: the driver knows mutants by the kernel's name.
    let mut texts: BTreeMap<String, bool> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for path in paths {
        let head = Case::read(&path).map_err(failed)?.head;
        let text = folder.join(&head.ptx);
        let is_wanted = match texts.get(&head.ptx) {
            _ if head.target != target.name => false,
            Some(known) => *known,
            None => {
                let name = head.cuda.entry;
                let has_one_text = names.insert(name.clone());
                assert!(has_one_text, "`{name}` is recorded with two texts");
                let read = fs::read_to_string(&text).map_err(failed)?;
                let entry = Entry::of(&read, (&head.family, &head.symbol), name).map_err(failed)?;
                let is_wanted = asked(&entry);
                if is_wanted {
                    files.push(text);
                }
                texts.insert(head.ptx, is_wanted);
                is_wanted
            }
        };
        match is_wanted {
            true => files.push(path),
            false => fs::remove_file(path).map_err(failed)?,
        }
    }
    Ok(files)
}

/// What becomes of mutants in the cases of a folder.
fn carried_out(
    cases: &Path,
    gpu: &str,
    open: &BTreeSet<(String, usize)>,
) -> Result<String, Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    want(open, folder.path())?;
    let mut check = Command::new(binary("gpucheck")?);
    check.arg("kernels").arg(cases);
    check.env_clear().env("LD_LIBRARY_PATH", simulated_driver()?);
    check.env("SAIL_FAKECUDA", format!("{gpu},mutants={}", folder.path().display()));
    let output = check.output().map_err(failed)?;
    let seen = fs::read_to_string(folder.path().join("seen")).unwrap_or_default();
    let tried: BTreeSet<_> = lines(&seen).map(|(entry, number, _)| (entry, number)).collect();
    let all = open.iter().all(|(entry, number)| tried.contains(&(entry.as_str(), *number)));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // Only results may be others: a rule that the kernel itself breaks is one too many.
    if output.status.success() && all && !said.contains("the driver refuses") {
        return Ok(seen);
    }
    Err(failed(format!("recorded launches of {tried:?}: {said}")))
}
