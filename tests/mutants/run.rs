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
#[derive(Debug, Clone, Copy, Hash)]
enum Asks {
    /// Something short, whose answer is drawn in every way at once.
    Drawn,
    /// Something with all its values, about a picture if the model sees any.
    Looked,
    Long,
}

/// Letters of the long prompt.
const LONG: [char; 7] = ['w', 'h', 'a', 't', ' ', 'i', 's'];

/// As many tokens as letters.
fn long_prompt() -> String {
    LONG.iter().copied().cycle().take(700).collect()
}

impl Asks {
    const ALL: [Self; 3] = [Self::Drawn, Self::Looked, Self::Long];

    fn arguments(self, sees: bool, taps: &Path) -> Vec<String> {
        let long = long_prompt();
        let short = &long[..84];
        let words = match self {
            Self::Drawn => vec![
                "--temperature 2 --top-k 400 --top-p 0.8 --seed 2 --repetition-penalty 1.3",
                "--max-tokens 5 --prompt",
            ],
            // Few positions: the run of the row itself is the first one of a warp.
            Self::Looked => vec!["--max-tokens 2 --max-tiles 1 --tap * --temperature 0"],
            Self::Long => vec!["--temperature 0 --max-tokens 3 --prompt"],
        };
        let mut words: Vec<String> =
            words.iter().flat_map(|words| words.split(' ')).map(str::to_owned).collect();
        match self {
            Self::Drawn => words.push(short.to_owned()),
            Self::Looked => {
                let picture = workspace().join("models/sail-vl2-tiny/samples/shapes-1.png");
                let [taps, picture] = [taps, &picture].map(|path| path.display().to_string());
                words.extend(["--tap-out", &taps, "--prompt", short].map(str::to_owned));
                if sees {
                    words.extend(["--image", &picture].map(str::to_owned));
                }
            }
            // An expert has enough rows of fewer.
            Self::Long => words.push(long[..if sees { 700 } else { 400 }].to_owned()),
        }
        words
    }
}

/// What is asked of a case.
fn asks_of(one: &Built) -> &'static [Asks] {
    if one.case.answers_all() { &Asks::ALL } else { &Asks::ALL[..1] }
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
    let kept = kept(one, gpu, &open)?;
    let seen = match fs::read_to_string(&kept) {
        Ok(seen) => seen,
        Err(_) => {
            let seen = answer(one, gpu, open)?;
            keep(&kept, &seen)?;
            seen
        }
    };
    score.note(&seen);
    Ok(())
}

fn answer(one: &Built, gpu: &str, mut open: BTreeSet<(String, usize)>) -> Result<String, Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let seen = folder.path().join("seen");
    for asks in asks_of(one) {
        let mut wanted = String::new();
        for (entry, number) in &open {
            let _ = writeln!(wanted, "{entry} {number}");
        }
        if wanted.is_empty() {
            break;
        }
        fs::write(folder.path().join("wanted"), wanted).map_err(failed)?;
        let mut run = Command::new(binary("sail")?);
        let driver: &Path = simulated_driver()?;
        run.env_clear().env("LD_LIBRARY_PATH", driver);
        run.env("SAIL_FAKECUDA", format!("{gpu},mutants={}", folder.path().display()));
        run.args(["run", "--context", "2048", "--system", "x"]);
        run.args(asks.arguments(one.case.sees(), &folder.path().join("taps")));
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

/// Where it is kept what became of mutants of a case.
fn kept(one: &Built, gpu: &str, open: &BTreeSet<(String, usize)>) -> Result<PathBuf, Outcome> {
    let driver = simulated_driver()?.join("libcuda.so.1");
    let files = [&one.file, &driver, &binary("sail")?].map(fs::read);
    let files = files.into_iter().collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let asks = asks_of(one).iter().map(|asks| asks.arguments(one.case.sees(), Path::new("taps")));
    let asks: Vec<_> = asks.collect();
    let folder = workspace().join("target/mutants");
    fs::create_dir_all(&folder).map_err(failed)?;
    Ok(folder.join(format!("{:016x}", hash(0, &(files, gpu, asks, open)))))
}

/// Whole or not at all.
fn keep(path: &Path, seen: &str) -> Result<(), Outcome> {
    let partial = path.with_extension("partial");
    fs::write(&partial, seen).and_then(|()| fs::rename(&partial, path)).map_err(failed)
}

pub fn hash(seed: u64, of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, of).hash(&mut hasher);
    hasher.finish()
}
