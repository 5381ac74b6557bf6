//! Models of drawn sizes, each named by its seed, compiled and judged by the f64 oracle.

use sail_runtime::Options as Opening;
use sail_tests::compiled::{compile, open, targets};
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::{drawn, oracle};
use sailc::golden::Golden;
use sailc::golden::run::positions;
use sailc::options::Options;

use super::verified::lies_within;

/// Each draws another model; a seed that once failed is added here.
const SEEDS: std::ops::Range<u64> = 1..13;

pub fn tests() -> Vec<Test> {
    let name =
        |seed| format!("the model drawn by seed {seed} lies within the bounds of the oracle");
    SEEDS.map(|seed| Test::new(name(seed), move || holds(seed))).collect()
}

/// Seeds take turns with the targets of this machine.
fn holds(seed: u64) -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let checkpoint = folder.path().join("model");
    let model = drawn::model(seed, &checkpoint).map_err(told)?;
    let path = folder.path().join("golden.safetensors");
    oracle::write(&model, &drawn::prompt(&model.spec, seed), &path)?;
    let golden = Golden::open(&path).map_err(told)?;

    let targets = targets()?;
    let target = &targets[seed as usize % targets.len()];
    let artifact = folder.path().join("model.sail");
    compile(&checkpoint, &Options::new(target.clone()), &artifact)?;
    let context = Some(positions(&golden).map_err(|error| failed(error.to_string()))?);
    let options = Opening { context, slots: 1, taps: true, ..Opening::default() };
    lies_within(&open(&artifact, &options)?, &golden, false)
        .map_err(|outcome| failed(format!("{:?}\n{outcome:?}", model.spec)))
}
