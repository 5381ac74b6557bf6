//! Compiled models on a simulated GPU: the real commands, through the CUDA driver's entry points of
//! `tests/fakecuda`, against recorded reference outputs.

use std::fs;
use std::path::Path;
use std::process::Command;

use sail_ir::{Scheme, Target};
use sail_tests::compiled::artifact;
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::places::{binary, simulated_driver, workspace};
use sail_tests::recorded::{RECORDED, Recorded};
use sailc::golden::Golden;
use serde_json::Value;

/// Targets, and what `SAIL_FAKECUDA` makes of the GPU for each.
const TARGETS: [(&str, &str); 2] = [("sm_80", "capability=80"), ("sm_90", "capability=90")];

/// What is kept otherwise than for the recorded outputs, and how that is asked for.
const OTHERWISE: [(&str, [&str; 2]); 5] = [
    ("int8", ["--quant", "int8"]),
    ("int8-weight", ["--quant", "int8-weight"]),
    ("int4", ["--quant", "int4"]),
    ("fp8", ["--quant", "fp8"]),
    ("a cache of int8", ["--kv", "int8"]),
];

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for one in RECORDED.into_iter().filter(Recorded::is_committed) {
        for (target, gpu) in TARGETS {
            let within = format!("{} on a simulated {target} lies within the bounds", one.name);
            tests.push(Test::new(within, move || lies_within(&one, target, gpu)));
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
    tests
}

/// `sailc verify` is green for every case.
fn lies_within(recorded: &Recorded, target: &str, gpu: &str) -> Result<(), Outcome> {
    let file = compiled(recorded, target)?;
    let golden = recorded.paths()?.1;
    let mut verify = on_gpu("sailc", gpu)?;
    verify.args(["verify", "--device", "cuda:0", "--golden"]).arg(golden).arg(&file);
    let text = succeeds(&mut verify)?;
    match text.lines().last().is_some_and(|line| line.ends_with("cases within their bounds")) {
        true => Ok(()),
        false => Err(failed(text)),
    }
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
fn on_gpu(name: &str, gpu: &str) -> Result<Command, Outcome> {
    let driver: &Path = simulated_driver()?;
    let mut command = Command::new(binary(name)?);
    command.env_clear().env("LD_LIBRARY_PATH", driver).env("SAIL_FAKECUDA", gpu);
    Ok(command)
}

fn succeeds(command: &mut Command) -> Result<String, Outcome> {
    let output = command.output().map_err(failed)?;
    let [text, errors] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    match output.status.success() {
        true => Ok(text),
        false => Err(failed(format!("{command:?}\n{text}{errors}"))),
    }
}
