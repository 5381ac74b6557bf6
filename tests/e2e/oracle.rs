//! The f64 interpreter of the model text against every recorded reference output.

use sail_kernels::reference::Rounding;
use sail_models::WeightSource;
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::oracle::{self, DISTANCE_FROM_F32, Prompt};
use sail_tests::recorded::{RECORDED, Recorded};
use sailc::golden::{Case, Golden, Observed};

pub fn tests() -> Vec<Test> {
    let name = |name| format!("the f64 interpreter gives every stage and token of {name}");
    RECORDED.map(|one| Test::new(name(one.name), move || agrees(&one)).independent()).into()
}

fn agrees(recorded: &Recorded) -> Result<(), Outcome> {
    let (model, golden) = recorded.paths()?;
    let model = sail_models::open(&model, WeightSource::Checkpoint).map_err(told)?;
    let golden = Golden::open(&golden).map_err(told)?;
    for case in golden.cases() {
        let prompt = Prompt::of(&case).map_err(told)?;
        check(&case, &oracle::run(&model, &prompt, Rounding::Exact, None).observed())?;
    }
    Ok(())
}

fn check(case: &Case<'_>, observed: &Observed) -> Result<(), Outcome> {
    for name in case.stages() {
        let golden = case.tensor(name).map_err(told)?;
        let ours = observed.stages.get(name);
        let ours = ours.ok_or_else(|| failed(format!("case {}: no stage `{name}`", case.name)))?;
        let distance = distance(ours, &golden.values);
        if distance.is_nan() || distance > DISTANCE_FROM_F32 {
            return Err(failed(format!("case {}: `{name}` is at {distance:e}", case.name)));
        }
    }
    let tokens = case.greedy().map_err(told)?;
    if observed.greedy.as_ref() != Some(&tokens) {
        let ours = &observed.greedy;
        return Err(failed(format!("case {}: tokens {ours:?}, golden {tokens:?}", case.name)));
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
