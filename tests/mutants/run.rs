//! A model answers on the simulated GPU, where mutants of its kernels run beside them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use sail_tests::harness::{Outcome, failed};
use sail_tests::places::{binary, simulated_driver, workspace};

use super::models::Built;
use super::score::{self, Key, Score};

/// What a model is asked, the cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asks {
    /// Something short, whose answer is drawn in every way at once.
    Drawn,
    /// Something with all its values, about a picture if the model sees any.
    Looked,
    Long,
    /// What several conversations write at once.
    Several,
}

/// Letters of a short prompt.
const SHORT: usize = 84;

impl Asks {
    /// The arguments of `sail`, but for the file.
    fn arguments(self, sees: bool, taps: &Path) -> Vec<String> {
        let how = match self {
            Self::Drawn => {
                "run --system x --max-tokens 5 --temperature 2 --top-k 400 --top-p 0.8 --seed 2 \
                 --repetition-penalty 1.3 --prompt"
            }
            // Few positions: the run of the row itself is the first one of a warp.
            Self::Looked => {
                "run --system x --max-tokens 2 --temperature 0 --max-tiles 1 --tap * --prompt"
            }
            Self::Long => "run --system x --max-tokens 3 --temperature 0",
            Self::Several => "bench --turns --prefill 2 --decode 5 --batch 3",
        };
        let mut words: Vec<String> = how.split_whitespace().map(str::to_owned).collect();
        if matches!(self, Self::Drawn | Self::Looked) {
            words.push(letters(SHORT));
        }
        words.extend(["--context", "2048"].map(str::to_owned));
        if self == Self::Looked {
            words.extend(["--tap-out".to_owned(), taps.display().to_string()]);
            if sees {
                let picture = workspace().join("models/sail-vl2-tiny/samples/shapes-1.png");
                words.extend(["--image".to_owned(), picture.display().to_string()]);
            }
        }
        words
    }

    /// Standard input: questions, or turns.
    fn lines(self, sees: bool) -> String {
        match self {
            Self::Drawn | Self::Looked => String::new(),
            // An expert has enough rows of fewer. Then a short question after many positions.
            Self::Long => {
                format!("{}\n{}\n", letters(if sees { 700 } else { 400 }), letters(SHORT))
            }
            Self::Several => "\n".to_owned(),
        }
    }
}

/// So many letters, which are tokens.
fn letters(count: usize) -> String {
    ['w', 'h', 'a', 't', ' ', 'i', 's'].into_iter().cycle().take(count).collect()
}

/// What is asked of a case.
fn asks_of(one: &Built) -> &'static [Asks] {
    match one.case.model {
        "many" => &[Asks::Drawn, Asks::Several],
        "spread" => &[Asks::Drawn, Asks::Looked],
        "picture" => &[Asks::Looked],
        _ => &[Asks::Drawn, Asks::Looked, Asks::Long],
    }
}

/// Let the model answer, and try the mutants of `asked` that it has and no other model tried; of those
/// that were noticed in another kernel only if not `once`. An hour of such work is the same for the same
/// code, the same simulator and the same runtime: what was seen is kept.
pub fn run(
    one: &Built,
    gpu: &str,
    score: &mut Score,
    asked: &[Key],
    once: bool,
) -> Result<(), Outcome> {
    let names: BTreeSet<&str> = one.entries.iter().map(|entry| entry.name.as_str()).collect();
    let mut open: BTreeSet<(String, usize)> = BTreeSet::new();
    for role in asked.iter().map(|key| &score.roles[key]).filter(|it| !(once && it.noticed())) {
        let here = role
            .places
            .iter()
            .filter(|(entry, _)| names.contains(entry.as_str()) && !role.seen.contains_key(entry));
        open.extend(here.cloned());
    }
    if open.is_empty() {
        return Ok(());
    }
    let sees = one.case.sees();
    let asks = asks_of(one).iter();
    let asks = asks.map(|asks| (asks.arguments(sees, Path::new("taps")), asks.lines(sees)));
    let asks: Vec<_> = asks.collect();
    let files = [one.file.clone(), simulated_driver()?.join("libcuda.so.1"), binary("sail")?];
    let known = (gpu, asks, open.clone());
    score.note(&kept(&files, &known, || answer(one, gpu, open))?);
    Ok(())
}

fn answer(one: &Built, gpu: &str, mut open: BTreeSet<(String, usize)>) -> Result<String, Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let seen = folder.path().join("seen");
    for asks in asks_of(one) {
        if open.is_empty() {
            break;
        }
        want(&open, folder.path())?;
        let lines = folder.path().join("lines");
        fs::write(&lines, asks.lines(one.case.sees())).map_err(failed)?;
        let mut run = Command::new(binary("sail")?);
        let driver: &Path = simulated_driver()?;
        run.env_clear().env("LD_LIBRARY_PATH", driver);
        run.env("SAIL_FAKECUDA", format!("{gpu},mutants={}", folder.path().display()));
        run.args(asks.arguments(one.case.sees(), &folder.path().join("taps")));
        run.stdin(fs::File::open(lines).map_err(failed)?);
        let output = run.arg(&one.file).output().map_err(failed)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!("{}\n{said}", one.case.name())));
        }
        let seen = fs::read_to_string(&seen).unwrap_or_default();
        for (entry, number, how) in score::lines(&seen) {
            if how != score::MISSED {
                open.remove(&(entry.to_owned(), number));
            }
        }
    }
    Ok(fs::read_to_string(&seen).unwrap_or_default())
}

/// Ask the driver for mutants, of which it says in `folder` what becomes of them.
pub fn want(open: &BTreeSet<(String, usize)>, folder: &Path) -> Result<(), Outcome> {
    let mut wanted = String::new();
    for (entry, number) in open {
        let _ = writeln!(wanted, "{entry} {number}");
    }
    fs::write(folder.join("wanted"), wanted).map_err(failed)
}

/// What became of mutants: what was kept, or what `find` finds of the same `files` and what else is `known`.
pub fn kept(
    files: &[PathBuf],
    known: &impl Hash,
    find: impl FnOnce() -> Result<String, Outcome>,
) -> Result<String, Outcome> {
    let files = files.iter().map(fs::read).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let folder = workspace().join("target/mutants");
    fs::create_dir_all(&folder).map_err(failed)?;
    let path = folder.join(format!("{:016x}", hash(0, &(files, known))));
    if let Ok(seen) = fs::read_to_string(&path) {
        return Ok(seen);
    }
    let seen = find()?;
    // Whole or not at all.
    let partial = path.with_extension("partial");
    fs::write(&partial, &seen).and_then(|()| fs::rename(&partial, &path)).map_err(failed)?;
    Ok(seen)
}

pub fn hash(seed: u64, of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, of).hash(&mut hasher);
    hasher.finish()
}
