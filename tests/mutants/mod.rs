//! Kernels for GPUs with one ordering instruction less: does anybody miss it?
//!
//! Small models run on the simulated GPU (`../fakecuda`); where they launch a kernel, mutants of it run
//! beside it. A mutant is noticed when the simulator finds a broken rule or other bytes come out.

mod models;
mod score;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use sail_ir::help::report;
use sail_ir::{Scheme, Target};
use sail_kernels::{KERNELS, Kernel};
use sail_models::WeightSource;
use sail_models::synth::SIZES;
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::places::{binary, simulated_driver, workspace};
use sail_tests::published::without_weights;
use sailc::options::Options;
use sailc::pipeline;

use models::{Built, Case};
use score::{Key, Redundant, Score};

/// Targets, and what `SAIL_FAKECUDA` makes of the GPU for each.
const TARGETS: [(&str, &str); 2] = [("sm_80", "capability=80"), ("sm_90", "capability=90")];

/// Instructions whose loss is tried in every run of all tests.
const SAMPLE: usize = 40;

/// What no kernel of a kind needs.
const REDUNDANT: &[Redundant] = &[
    Redundant { kind: "gate_up_silu*.rows*", opcode: "griddepcontrol.wait", nth: 1, reason: PAST },
    Redundant { kind: "qk_norm_rope_write*", opcode: "griddepcontrol.wait", nth: 1, reason: PAST },
    Redundant {
        kind: "attention.together",
        opcode: "cp.async.commit_group",
        nth: 0,
        reason: QUERIES,
    },
    Redundant { kind: "tile_attention", opcode: "cp.async.commit_group", nth: 0, reason: QUERIES },
];

/// What `attention.alone` does not need on `sm_90`; on `sm_80` its instructions stand in another order.
const ALONE_ON_SM_90: &[Redundant] = &[
    Redundant { kind: "attention.alone*", opcode: "cp.async.commit_group", nth: 0, reason: OLD },
    Redundant { kind: "attention.alone*", opcode: "cp.async.commit_group", nth: 1, reason: OLD },
    Redundant {
        kind: "attention.alone*",
        opcode: "cp.async.commit_group",
        nth: 4,
        reason: "of a warp without pages: it is there so that both ways count alike",
    },
    Redundant {
        kind: "attention.alone*",
        opcode: "cp.async.commit_group",
        nth: 9,
        reason: "of a warp that has no further page: it is there so that both ways count alike",
    },
    Redundant { kind: "attention.alone*", opcode: "griddepcontrol.wait", nth: 1, reason: PAST },
    Redundant { kind: "attention.alone64x1", opcode: "bar.sync", nth: 0, reason: ONE_WARP },
    Redundant { kind: "attention.alone64x1", opcode: "bar.sync", nth: 1, reason: ONE_WARP },
];

const OLD: &str =
    "of a warp whose run ended before this call and that has none: there is no such warp";

const ONE_WARP: &str = "its block has one warp, which meets itself at the barriers of the warp";

const PAST: &str = "of blocks past the counts, needed where a call counts nothing: outputs may be none, and tokens \
                    are not";

const QUERIES: &str =
    "the queries are waited for together with the first page, whatever their group";

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (target, gpu) in TARGETS {
        let name =
            format!("a barrier, fence or wait that goes from a kernel for {target} is missed");
        tests.push(Test::new(format!("{name} (some)"), move || some(target, gpu)).long());
        tests.push(Test::new(format!("{name} (all)"), move || all(target, gpu)).long());
    }
    tests
}

fn all(target: &str, gpu: &str) -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let target = Target::parse(target).map_err(told)?;
    let mut score = Score::default();
    let mut built = Vec::new();
    for case in Case::all() {
        match case.built(&target, folder.path())? {
            Some(one) => built.push(one),
            None => eprintln!("{target}: no kernels for {}", case.name()),
        }
    }
    for entry in built.iter().flat_map(|one| &one.entries) {
        score.add(entry);
    }
    let families: BTreeSet<&str> =
        built.iter().flat_map(|one| &one.entries).map(|entry| entry.family.as_str()).collect();
    let asked: Vec<Key> = score.roles.keys().cloned().collect();
    for one in &built {
        let start = Instant::now();
        let kept = kept(one, gpu)?;
        match fs::read_to_string(&kept) {
            Ok(seen) => score.note(&seen),
            Err(_) => {
                let seen = run(one, gpu, &mut score, &asked, false)?;
                keep(&kept, &seen)?;
            }
        }
        eprintln!("{target}: {}: {:.0} s", one.case.name(), start.elapsed().as_secs_f64());
    }
    let (text, mut broken) = score.judge(&asked, &redundant(&target), true);
    eprintln!("{target}: {text}");
    for row in KERNELS {
        let on_gpus = row.targets.contains(&"nvptx");
        let excused = UNFUSED.contains(&row.name);
        match (on_gpus, families.contains(row.name), excused) {
            (true, false, false) => {
                broken.push(format!("no case has a kernel of the template `{}`", row.name));
            }
            (false, true, _) => {
                broken.push(format!("the row of `{}` does not say that GPUs have it", row.name));
            }
            (_, true, true) => broken.push(format!("`{}` is used after all", row.name)),
            _ => {}
        }
    }
    let kinds: BTreeSet<&str> =
        built.iter().flat_map(|one| &one.entries).map(|entry| entry.kind.as_str()).collect();
    let absent = published_kinds(&target, folder.path())?.into_iter();
    let absent = absent.filter(|(kind, _)| !kinds.contains(kind.as_str()));
    broken.extend(absent.map(|(kind, size)| format!("no case has {kind}, which {size} has")));
    told_all(&broken)
}

/// What no kernel of a kind needs on `target`.
fn redundant(target: &Target) -> Vec<&'static Redundant> {
    let own = if target.name == "sm_90" { ALONE_ON_SM_90 } else { &[] };
    REDUNDANT.iter().chain(own).collect()
}

/// Where it is kept what became of a case's mutants: an hour of work that is the same for the same code, the
/// same simulator and the same runtime. A lane that was cut short goes on from there.
fn kept(one: &Built, gpu: &str) -> Result<PathBuf, Outcome> {
    let driver = simulated_driver()?.join("libcuda.so.1");
    let files = [&one.file, &driver, &binary("sail")?].map(fs::read);
    let files = files.into_iter().collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let folder = workspace().join("target/mutants");
    fs::create_dir_all(&folder).map_err(failed)?;
    Ok(folder.join(format!("{:016x}", hash(0, &(files, gpu, long_prompt())))))
}

/// Whole or not at all.
fn keep(path: &Path, seen: &str) -> Result<(), Outcome> {
    let partial = path.with_extension("partial");
    fs::write(&partial, seen).and_then(|()| fs::rename(&partial, path)).map_err(failed)
}

/// Kinds of kernels that the published sizes have, and one of those that have it.
fn published_kinds(
    target: &Target,
    folder: &Path,
) -> Result<BTreeMap<String, &'static str>, Outcome> {
    let mut kinds = BTreeMap::new();
    for (size, _) in SIZES {
        let checkpoint = without_weights(size, folder)?;
        for scheme in Scheme::ALL {
            let weights = WeightSource::Random { seed: 1 };
            let options = Options { scheme, weights, ..Options::new(target.clone()) };
            let of = pipeline::kernels(&checkpoint, &options, |kernels| {
                let kind = |it: &&dyn Kernel| score::kind(it.family(), &it.symbol());
                Ok(kernels.iter().map(kind).collect::<Vec<_>>())
            });
            match of {
                Ok(of) => kinds.extend(of.into_iter().map(|kind| (kind, *size))),
                Err(error) if matches!(error.code(), "SC0307" | "SC0310") => {}
                Err(error) => return Err(failed(report(error.as_ref()))),
            }
        }
    }
    Ok(kinds)
}

/// Templates that no artifact has, unless fusion is told to leave something out: none of them orders
/// anything.
const UNFUSED: &[&str] =
    &["add", "cache_write", "columns", "combine", "gelu", "mul", "rope", "silu"];

/// A sample of one case; where it does not miss an instruction, the others are asked, too.
fn some(target: &str, gpu: &str) -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let target = Target::parse(target).map_err(told)?;
    let mut score = Score::default();
    let mut asked: Vec<Key> = Vec::new();
    let mut cases = Case::all();
    // Other code, another sample.
    let seed = target.name.bytes().fold(0, |seed, byte| seed * 31 + u64::from(byte));
    cases.sort_by_key(|case| hash(seed, &case.name()));
    for case in cases {
        let Some(one) = case.built(&target, folder.path())? else { continue };
        one.entries.iter().for_each(|entry| score.add(entry));
        if asked.is_empty() {
            asked = score.roles.keys().cloned().collect();
            asked.sort_by_key(|key| hash(seed, key));
            asked.truncate(SAMPLE);
            eprintln!("{target}: {SAMPLE} of {} of {}", score.roles.len(), case.name());
        }
        run(&one, gpu, &mut score, &asked, true)?;
        fs::remove_file(&one.file).map_err(failed)?;
        let (text, broken) = score.judge(&asked, &redundant(&target), false);
        if broken.is_empty() {
            eprintln!("{target}: {text}");
            return Ok(());
        }
    }
    told_all(&score.judge(&asked, &redundant(&target), false).1)
}

fn hash(seed: u64, of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, of).hash(&mut hasher);
    hasher.finish()
}

fn told_all(broken: &[String]) -> Result<(), Outcome> {
    if broken.is_empty() { Ok(()) } else { Err(failed(broken.join("\n"))) }
}

/// Let the model answer, and try the mutants of `asked` that it has; of those that were noticed already
/// only if not `once`. Gives what was seen.
fn run(
    one: &Built,
    gpu: &str,
    score: &mut Score,
    asked: &[Key],
    once: bool,
) -> Result<String, Outcome> {
    let names: BTreeSet<&str> = one.entries.iter().map(|entry| entry.name.as_str()).collect();
    let long = long_prompt();
    let folder = tempfile::tempdir().map_err(failed)?;
    let seen = folder.path().join("seen");
    let picture = workspace().join("models/sail-vl2-tiny/samples/shapes-1.png");
    let taps = folder.path().join("taps");
    for asks in [Asks::Picture, Asks::Long, Asks::Drawn] {
        let mut wanted = String::new();
        for key in asked {
            let role = &score.roles[key];
            let here = role.places.iter().filter(|(entry, _)| names.contains(entry.as_str()));
            let open = here.filter(|(entry, _)| {
                let noticed = role.seen.get(entry).is_some_and(|how| how != score::MISSED);
                !(noticed || once && role.noticed())
            });
            open.for_each(|(entry, number)| {
                let _ = writeln!(wanted, "{entry} {number}");
            });
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
        match asks {
            Asks::Picture => {
                run.args(["--temperature", "0", "--prompt", &long[..84]]);
                // Few positions: the run of the row itself is the first one of a warp.
                run.args(["--max-tokens", "2", "--max-tiles", "1", "--tap", "*", "--tap-out"]);
                run.arg(&taps).arg("--image").arg(&picture)
            }
            Asks::Long => run.args(["--temperature", "0", "--max-tokens", "3", "--prompt", &long]),
            Asks::Drawn => {
                run.args(["--temperature", "2", "--top-k", "400", "--top-p", "0.8", "--seed", "2"]);
                run.args(["--repetition-penalty", "1.3", "--max-tokens", "5"]);
                run.args(["--prompt", &long[..84]])
            }
        };
        let output = run.arg(&one.file).output().map_err(failed)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!("{}\n{said}", one.case.name())));
        }
        score.note(&fs::read_to_string(&seen).unwrap_or_default());
    }
    Ok(fs::read_to_string(&seen).unwrap_or_default())
}

/// As many tokens as letters.
fn long_prompt() -> String {
    LONG.iter().copied().cycle().take(1700).collect()
}

/// What a model is asked.
#[derive(Debug, Clone, Copy)]
enum Asks {
    /// Something about a picture, with all its values.
    Picture,
    Long,
    /// Something short, whose answer is drawn in every way at once.
    Drawn,
}

/// Letters of the long prompt.
const LONG: [char; 7] = ['w', 'h', 'a', 't', ' ', 'i', 's'];
