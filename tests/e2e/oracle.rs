//! The f64 interpreter of the model text against every recorded reference output.

use std::path::Path;

use sail_ir::help::report;
use sail_kernels::reference::Rounding;
use sail_models::WeightSource;
use sail_tests::harness::{Outcome, Test, failed};
use sail_tests::oracle::{self, DISTANCE_FROM_F32, Prompt};
use sail_tests::places::{shared, workspace};
use sailc::golden::{Case, Golden, Observed};

/// Checkpoints with goldens: those committed, and those beside the workspace.
const COMMITTED: [&str; 2] = ["tests/goldens/odd-dense", "tests/goldens/odd-moe"];
const SHARED: [&str; 3] = ["fixtures/random-dense", "fixtures/random-moe", "fixtures/random-long"];

pub fn tests() -> Vec<Test> {
    let name = |part| format!("the f64 interpreter gives every stage and token of {part}");
    let committed = COMMITTED
        .map(|part| Test::new(name(part), move || agrees(&workspace().join(part))).independent());
    let shared =
        SHARED.map(|part| Test::new(name(part), move || agrees(&shared(part)?)).independent());
    committed.into_iter().chain(shared).collect()
}

fn agrees(folder: &Path) -> Result<(), Outcome> {
    let model = sail_models::open(folder, WeightSource::Checkpoint)
        .map_err(|error| failed(report(&error)))?;
    let golden =
        Golden::open(&folder.join("golden.safetensors")).map_err(|error| failed(report(&error)))?;
    for case in golden.cases() {
        let prompt = Prompt::of(&case).map_err(|error| failed(report(&error)))?;
        let observed = oracle::run(&model, &prompt, Rounding::Exact, None).observed();
        check(&case, &observed)?;
    }
    Ok(())
}

fn check(case: &Case<'_>, observed: &Observed) -> Result<(), Outcome> {
    for name in case.stages() {
        let golden = case.tensor(name).map_err(|error| failed(report(&error)))?;
        let ours = observed
            .stages
            .get(name)
            .ok_or_else(|| failed(format!("case {}: no stage `{name}`", case.name)))?;
        let distance = distance(ours, &golden.values);
        if distance.is_nan() || distance > DISTANCE_FROM_F32 {
            return Err(failed(format!("case {}: `{name}` is at {distance:e}", case.name)));
        }
    }
    let tokens = case.greedy().map_err(|error| failed(report(&error)))?;
    if observed.greedy.as_ref() != Some(&tokens) {
        return Err(failed(format!(
            "case {}: tokens {:?}, golden {tokens:?}",
            case.name, observed.greedy
        )));
    }
    Ok(())
}

fn distance(ours: &[f32], golden: &[f32]) -> f64 {
    if ours.len() != golden.len() {
        return f64::INFINITY;
    }
    let square = |v: f64| v * v;
    let difference: f64 =
        ours.iter().zip(golden).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let length: f64 = golden.iter().map(|v| square(f64::from(*v))).sum();
    if difference == 0.0 { 0.0 } else { (difference / length).sqrt() }
}
