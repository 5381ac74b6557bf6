//! Compiled models on a simulated GPU: the real commands, through the CUDA driver's entry points of
//! `tests/fakecuda`, against recorded reference outputs.

use std::fs;
use std::path::Path;
use std::process::Command;

use sail_ir::{Scheme, Target};
use sail_tests::compiled::{artifact, compile};
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::places::{binary, simulated_driver, workspace};
use sail_tests::recorded::{RECORDED, Recorded};
use sailc::golden::Golden;
use sailc::golden::judge::{FACTOR, SLACK};
use sailc::options::Options;
use serde_json::Value;

/// Targets, and what `SAIL_FAKECUDA` makes of the GPU for each.
pub const TARGETS: [(&str, &str); 2] = [("sm_80", "capability=80"), ("sm_90", "capability=90")];

/// What is kept otherwise than for the recorded outputs, and how that is asked for.
const OTHERWISE: [(&str, [&str; 2]); 5] = [
    ("int8", ["--quant", "int8"]),
    ("int8-weight", ["--quant", "int8-weight"]),
    ("int4", ["--quant", "int4"]),
    ("fp8", ["--quant", "fp8"]),
    ("a cache of int8", ["--kv", "int8"]),
];

/// How tokens are drawn on each target.
const DRAWS: [&str; 2] = [
    "--temperature 1 --top-p 0.9 --seed 4",
    "--temperature 3 --min-p 0.01 --repetition-penalty 1.4 --top-k 60 --top-p 0.95 --seed 6",
];

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for one in RECORDED {
        for (target, gpu) in TARGETS {
            let within = format!("{} on a simulated {target} lies within the bounds", one.name);
            let test = Test::new(within, move || lies_within(&one, target, gpu));
            tests.push(if one.is_committed() { test } else { test.long() });
        }
    }
    for one in RECORDED {
        // Weights of experts are multiplied by kernels of their own.
        let schemes = match one.name.contains("moe") {
            true => &[Scheme::Int8, Scheme::Int8Weight, Scheme::Int4][..],
            false => &[Scheme::Int8],
        };
        for (scheme, on) in schemes.iter().flat_map(|scheme| TARGETS.map(|on| (*scheme, on))) {
            let near = format!(
                "{} in {scheme} on a simulated {} is as near the golden as on x86-64",
                one.name, on.0
            );
            let test = Test::new(near, move || is_as_near(&one, scheme, on));
            tests.push(if one.name == "odd-dense" { test } else { test.long() });
        }
    }
    for (target, gpu) in TARGETS {
        for (what, options) in OTHERWISE {
            let scheme: Option<Scheme> = what.parse().ok();
            let target_of_ours = Target::parse(target).expect("a target of ours");
            if scheme.is_some_and(|scheme| scheme.missing_on(&target_of_ours).is_some()) {
                continue;
            }
            let same =
                format!("{what} on a simulated {target} answers the first sample's questions");
            tests.push(Test::new(same, move || answers(options, target, gpu)));
        }
    }
    let [first, ..] = RECORDED;
    tests.push(Test::new(
        "`sail run` on a simulated GPU writes the reference's tokens",
        move || writes_the_golden(&first),
    ));
    for (target, way) in TARGETS.into_iter().zip(DRAWS) {
        let name = target.0;
        let same = format!("tokens that a simulated {name} draws ahead are those the caller draws");
        tests.push(Test::new(same, move || draws_alike(&first, target, way)));
    }
    tests
}

/// `sailc verify` is green for every case; with experts, by our own routes and by the golden's.
fn lies_within(recorded: &Recorded, target: &str, gpu: &str) -> Result<(), Outcome> {
    let file = compiled(recorded, target)?;
    let golden = recorded.paths()?.1;
    let ways: &[&[&str]] = match recorded.name.contains("moe") {
        true => &[&[], &["--route-from-golden"]],
        false => &[&[]],
    };
    for options in ways {
        let mut verify = on_gpu("sailc", gpu)?;
        verify.args(["verify", "--device", "cuda:0"]).args(*options).arg("--golden").arg(&golden);
        let text = succeeds(verify.arg(&file))?;
        if !text.ends_with(" cases within their bounds\n") {
            return Err(failed(text));
        }
    }
    Ok(())
}

/// Integers lie farther from the golden than a run in bf16, on every target. No stage may lie farther on a
/// GPU than on the lowest x86-64, by the measure for two runs that differ in roundings.
fn is_as_near(
    recorded: &Recorded,
    scheme: Scheme,
    (target, gpu): (&str, &str),
) -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let [ours, theirs] = [Some((target, gpu)), None].map(|device| -> Result<Value, Outcome> {
        let (name, mut verify) = match device {
            Some((target, gpu)) => (target, on_gpu("sailc", gpu)?),
            None => ("x86-64-v3", Command::new(binary("sailc")?)),
        };
        let file = folder.path().join(format!("{name}.sail"));
        let target = Target::parse(name).map_err(told)?;
        let options = Options { scheme, threads: 2, ..Options::new(target) };
        let (checkpoint, golden) = recorded.paths()?;
        compile(&checkpoint, &options, &file)?;
        // Stages beyond the bound for bf16 make it fail, and are printed all the same.
        let output = verify.args(["verify", "--json", "--golden"]).arg(golden).arg(&file).output();
        let output = output.map_err(failed)?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_slice(&output.stdout).map_err(|_| failed(errors))
    });
    let [ours, theirs] = [stages(&ours?), stages(&theirs?)];
    assert!(ours.len() > 3 && ours.len() == theirs.len(), "the same stages on both");
    let beyond = ours.iter().zip(&theirs).filter(|((_, ours), (_, theirs))| {
        // What is no number is beyond, too.
        ours.is_nan() || *ours > FACTOR * theirs + SLACK
    });
    let lines: Vec<_> = beyond
        .map(|((name, ours), (_, theirs))| format!("{name}: {ours}, on x86-64 {theirs}"))
        .collect();
    if lines.is_empty() { Ok(()) } else { Err(failed(lines.join("\n"))) }
}

/// Stages with their distances from the golden.
fn stages(document: &Value) -> Vec<(String, f64)> {
    let cases = document["cases"].as_array().into_iter().flatten();
    let stages = cases.flat_map(|case| {
        let stages = case["stages"].as_array().into_iter().flatten();
        stages.map(|stage| {
            let name = format!("case {}, {}", case["case"], stage["name"]);
            (name, stage["distance"].as_f64().unwrap_or(f64::NAN))
        })
    });
    stages.collect()
}

/// The model of this repository, compiled with `options`, answers what is asked of its first sample as
/// it should.
fn answers(options: [&str; 2], target: &str, gpu: &str) -> Result<(), Outcome> {
    const MODEL: &str = "models/sail-vl2-tiny";
    const PICTURE: &str = "shapes-1.png";
    let model = workspace().join(MODEL);
    let folder = tempfile::tempdir().map_err(failed)?;
    let file = folder.path().join("model.sail");
    let mut compile = Command::new(binary("sailc")?);
    compile.arg("compile").args(options).args(["--target", target]).arg(&model);
    succeeds(compile.arg("-o").arg(&file))?;
    let samples = model.join("samples");
    let questions = fs::read_to_string(samples.join("questions.json")).map_err(failed)?;
    let questions: Vec<Value> = serde_json::from_str(&questions).map_err(failed)?;
    let questions = questions.iter().filter(|question| question["picture"] == PICTURE);
    let mut seen = 0;
    for question in questions {
        let mut run = on_gpu("sail", gpu)?;
        let asked = question["question"].as_str().unwrap_or_default();
        run.args(["run", "--prompt", asked, "--image"]).arg(samples.join(PICTURE)).arg(&file);
        let (answer, want) = (succeeds(&mut run)?, question["answer"].as_str().unwrap_or_default());
        if answer.trim() != want {
            return Err(failed(format!("`{asked}`: {}, not {want}", answer.trim())));
        }
        seen += 1;
    }
    if seen == 0 { Err(failed("no question is about the picture")) } else { Ok(()) }
}

/// The ids of every case without pictures, answered by `sail` as the golden has it.
fn writes_the_golden(recorded: &Recorded) -> Result<(), Outcome> {
    let (target, gpu) = TARGETS[0];
    let file = compiled(recorded, target)?;
    let golden = Golden::open(&recorded.paths()?.1).map_err(told)?;
    let folder = tempfile::tempdir().map_err(failed)?;
    let ids = folder.path().join("ids.json");
    let mut seen = 0;
    for case in golden.cases() {
        if case.tiles().map_err(told)?.is_some() {
            continue;
        }
        fs::write(&ids, format!("{:?}", case.ids().map_err(told)?)).map_err(failed)?;
        let greedy = case.greedy().map_err(told)?;
        let mut run = on_gpu("sail", gpu)?;
        run.args(["run", "--json", "--temperature", "0", "--context", "256", "--max-tokens"]);
        run.arg(greedy.len().to_string()).arg("--ids-json").arg(&ids).arg(&file);
        let document: Value = serde_json::from_str(&succeeds(&mut run)?).map_err(failed)?;
        let written: Option<Vec<u32>> = serde_json::from_value(document["ids"].clone()).ok();
        let written = written.ok_or_else(|| failed(format!("no ids in {document:#}")))?;
        if written.is_empty() || !greedy.starts_with(&written) {
            return Err(failed(format!("{written:?}, the golden has {greedy:?}")));
        }
        seen += 1;
    }
    if seen == 0 { Err(failed("the golden has no case without pictures")) } else { Ok(()) }
}

/// `sail run` draws the same tokens whether the device draws several in a row or, because every call is
/// watched, the caller draws each from the same logits.
fn draws_alike(recorded: &Recorded, (target, gpu): (&str, &str), way: &str) -> Result<(), Outcome> {
    let file = compiled(recorded, target)?;
    let folder = tempfile::tempdir().map_err(failed)?;
    let trace = folder.path().join("trace.jsonl");
    let prompt = folder.path().join("ids.json");
    let golden = Golden::open(&recorded.paths()?.1).map_err(told)?;
    let case = golden.cases().into_iter().next().ok_or_else(|| failed("no case"))?;
    let start: Vec<_> = case.ids().map_err(told)?.into_iter().take(5).collect();
    fs::write(&prompt, format!("{start:?}")).map_err(failed)?;
    let [ahead, one_by_one] = [false, true].map(|traced| -> Result<Vec<u32>, Outcome> {
        let mut run = on_gpu("sail", gpu)?;
        run.args(["run", "--json", "--context", "256", "--max-tokens", "8"]);
        run.args(way.split(' ')).arg("--ids-json").arg(&prompt);
        if traced {
            run.arg("--trace").arg(&trace);
        }
        let document: Value = serde_json::from_str(&succeeds(run.arg(&file))?).map_err(failed)?;
        let written = serde_json::from_value(document["ids"].clone());
        written.map_err(|_| failed(format!("no ids in {document:#}")))
    });
    let (ahead, one_by_one) = (ahead?, one_by_one?);
    // The fifth token and the three after it are chosen ahead together.
    match ahead == one_by_one && ahead.len() > 5 {
        true => Ok(()),
        false => Err(failed(format!("`{way}`: {ahead:?} ahead, {one_by_one:?} one by one"))),
    }
}

/// The artifact for a CUDA target.
///
/// Skips while the target has no kernel for an op of the model, naming the ops.
fn compiled(recorded: &Recorded, target: &str) -> Result<std::path::PathBuf, Outcome> {
    let target = Target::parse(target).map_err(told)?;
    artifact(recorded, &target).map_err(|outcome| match outcome {
        Outcome::Failed(text) if text.contains("SC0310") => {
            Outcome::Skipped(text.lines().next().unwrap_or_default().to_owned())
        }
        other => other,
    })
}

/// A command of ours that finds the simulated driver.
pub fn on_gpu(name: &str, gpu: &str) -> Result<Command, Outcome> {
    let driver: &Path = simulated_driver()?;
    let mut command = Command::new(binary(name)?);
    command.env_clear().env("LD_LIBRARY_PATH", driver).env("SAIL_FAKECUDA", gpu);
    Ok(command)
}

pub fn succeeds(command: &mut Command) -> Result<String, Outcome> {
    let output = command.output().map_err(failed)?;
    let [text, errors] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    match output.status.success() {
        true => Ok(text),
        false => Err(failed(format!("{command:?}\n{text}{errors}"))),
    }
}
