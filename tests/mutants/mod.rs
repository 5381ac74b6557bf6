//! Kernels for GPUs with one ordering instruction less: does anybody miss it?
//!
//! Small models run on the simulated GPU (`../fakecuda`); where they launch a kernel, mutants of it run
//! beside it. A mutant is noticed when the simulator finds a broken rule or other bytes come out.

mod models;
mod published;
mod recorded;
mod redundant;
mod run;
mod score;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use sail_ir::{Scheme, Target};
use sail_kernels::KERNELS;
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::places::workspace;

use models::{Built, Case};
use redundant::redundant;
use run::{hash, run};
use score::{Key, Score};

/// Targets, and what `SAIL_FAKECUDA` makes of the GPU for each.
const TARGETS: [(&str, &str); 2] = [("sm_80", "capability=80"), ("sm_90", "capability=90")];

/// Instructions whose loss is tried in every run of all tests.
const SAMPLE: usize = 40;

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (target, gpu) in TARGETS {
        let name =
            format!("a barrier, fence or wait that goes from a kernel for {target} is missed");
        tests.push(Test::new(format!("{name} (some)"), move || some(target, gpu)));
        tests.push(Test::new(format!("{name} (all)"), move || all(target, gpu)).long());
    }
    tests
}

fn all(target: &str, gpu: &str) -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let target = Target::parse(target).map_err(told)?;
    let mut built = Vec::new();
    build(&target, folder.path(), Case::all(), &mut built)?;
    let mut missing = published::published(&target, folder.path())?;
    missing.retain(|kind, one| !kinds(&built).contains(kind.as_str()) || one.is_shared_out());
    let pinned = published::pinned(&target, folder.path(), missing.clone())?;
    build(&target, folder.path(), pinned, &mut built)?;
    missing.retain(|kind, _| !kinds(&built).contains(kind.as_str()));

    let mut score = Score::default();
    for entry in built.iter().flat_map(|one| &one.entries) {
        score.add(entry);
    }
    let asked: Vec<Key> = score.roles.keys().cloned().collect();
    for one in &built {
        let start = Instant::now();
        run(one, gpu, &mut score, &asked, false)?;
        eprintln!("{target}: {}: {:.0} s", one.case.name(), start.elapsed().as_secs_f64());
    }
    let start = Instant::now();
    recorded::run(&target, gpu, &mut score, &asked)?;
    eprintln!("{target}: recorded launches: {:.0} s", start.elapsed().as_secs_f64());
    let (text, mut broken) = score.judge(&asked, &redundant(&target), true);
    eprintln!("{target}: {text}");
    broken.extend(templates(&target, &built));
    let absent = missing.iter();
    broken.extend(absent.map(|(kind, one)| format!("no case has {kind}, which {} has", one.size)));
    told_all(&broken)
}

fn build(
    target: &Target,
    folder: &Path,
    cases: Vec<Case>,
    built: &mut Vec<Built>,
) -> Result<(), Outcome> {
    for case in cases {
        match case.built(target, folder)? {
            Some(one) => built.push(one),
            None => eprintln!("{target}: no kernels for {}", case.name()),
        }
    }
    Ok(())
}

fn kinds(built: &[Built]) -> BTreeSet<&str> {
    built.iter().flat_map(|one| &one.entries).map(|entry| entry.kind.as_str()).collect()
}

/// Templates of the table that no case has, and the like.
fn templates(target: &Target, built: &[Built]) -> Vec<String> {
    let entries = built.iter().flat_map(|one| &one.entries);
    let families: BTreeSet<&str> = entries.map(|entry| entry.family.as_str()).collect();
    let judged = KERNELS.iter().filter_map(|row| {
        let lacks = |scheme: &Scheme| {
            scheme.missing_on(target).is_some() && row.name.ends_with(&format!("_{scheme}"))
        };
        let on_gpus = row.targets.contains(&"nvptx") && !Scheme::ALL.iter().any(lacks);
        let excused = UNFUSED.contains(&row.name);
        match (on_gpus, families.contains(row.name), excused) {
            (true, false, false) => {
                Some(format!("no case has a kernel of the template `{}`", row.name))
            }
            (false, true, _) => {
                Some(format!("the row of `{}` does not say that GPUs have it", row.name))
            }
            (_, true, true) => Some(format!("`{}` is used after all", row.name)),
            _ => None,
        }
    });
    judged.collect()
}

/// Templates that no artifact has, unless fusion is told to leave something out: none of them orders
/// anything.
const UNFUSED: &[&str] = &[
    "add",
    "cache_write",
    "cache_write_int8",
    "columns",
    "combine",
    "gelu",
    "mul",
    "rope",
    "silu",
];

/// A sample of one case, drawn by the code of all kernels: other code, another sample. Where the case does
/// not miss an instruction that is no row of [`redundant`], the others are asked, too, then those whose
/// configs are pinned, and at last what numerics launch.
fn some(target: &str, gpu: &str) -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let target = Target::parse(target).map_err(told)?;
    let mut sources = Vec::new();
    read(&workspace().join("kernels/src"), &mut sources).map_err(failed)?;
    let seed = hash(0, &(&sources, &target.name));
    let mut sample = Sample { seed, score: Score::default(), asked: Vec::new() };
    let mut cases = Case::all();
    cases.sort_by_key(|case| hash(seed, &case.name()));
    if sample.is_noticed(cases, (&target, gpu), folder.path())? {
        return Ok(());
    }
    let mut wanted = published::published(&target, folder.path())?;
    wanted.retain(|kind, _| sample.open().contains(kind));
    let pinned = published::pinned(&target, folder.path(), wanted)?;
    if sample.is_noticed(pinned, (&target, gpu), folder.path())? {
        return Ok(());
    }
    recorded::run(&target, gpu, &mut sample.score, &sample.asked)?;
    let (text, broken) = sample.score.judge(&sample.asked, &[], false);
    eprintln!("{target}: with recorded launches: {text}");
    told_all(&broken)
}

/// Instructions of the first case that a target has.
struct Sample {
    seed: u64,
    score: Score,
    asked: Vec<Key>,
}

impl Sample {
    /// Ask one case after the other until everything that was asked for is noticed.
    fn is_noticed(
        &mut self,
        cases: Vec<Case>,
        (target, gpu): (&Target, &str),
        folder: &Path,
    ) -> Result<bool, Outcome> {
        for case in cases {
            if !self.asked.is_empty() && case.kinds(target, folder)?.is_disjoint(&self.open()) {
                continue;
            }
            let Some(one) = case.built(target, folder)? else { continue };
            one.entries.iter().for_each(|entry| self.score.add(entry));
            if self.asked.is_empty() {
                self.draw(target);
                let (all, seed, name) = (self.score.roles.len(), self.seed, case.name());
                eprintln!("{target}: seed {seed:016x}: {} of {all} of {name}", self.asked.len());
            }
            run(&one, gpu, &mut self.score, &self.asked, true)?;
            fs::remove_file(&one.file).map_err(failed)?;
            let (text, broken) = self.score.judge(&self.asked, &[], false);
            if broken.is_empty() {
                eprintln!("{target}: {text}");
                return Ok(true);
            }
            eprintln!("{target}: {} are missed in {}", broken.len(), case.name());
        }
        Ok(false)
    }

    /// Kinds of kernels of what was asked for and not noticed.
    fn open(&self) -> BTreeSet<String> {
        let open = self.asked.iter().filter(|key| !self.score.roles[*key].noticed());
        open.map(|(kind, ..)| kind.clone()).collect()
    }

    fn draw(&mut self, target: &Target) {
        let (seed, roles, redundant) = (self.seed, &self.score.roles, redundant(target));
        let mut asked: Vec<Key> = roles.keys().cloned().collect();
        asked.retain(|key| !redundant.iter().any(|row| row.is(&key.0, &roles[key])));
        asked.sort_by_key(|key| hash(seed, key));
        asked.truncate(SAMPLE);
        self.asked = asked;
    }
}

/// What stands in the files of a folder, in the order of their names.
fn read(folder: &Path, found: &mut Vec<Vec<u8>>) -> std::io::Result<()> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut paths: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    for path in paths {
        match path.is_dir() {
            true => read(&path, found)?,
            false => found.push(fs::read(&path)?),
        }
    }
    Ok(())
}

fn told_all(broken: &[String]) -> Result<(), Outcome> {
    if broken.is_empty() { Ok(()) } else { Err(failed(broken.join("\n"))) }
}
