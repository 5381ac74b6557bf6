//! The published sizes, planned without their weights.

use std::fs;
use std::path::Path;

use sail_ir::Target;
use sail_ir::help::report;
use sail_models::WeightSource;
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::places::shared;
use sailc::options::Options;
use sailc::pipeline::{Emit, emit};

/// Folders in `../shared/checkpoints`; the first has all files but the weights.
const SIZES: [&str; 3] = ["SAIL-VL2-2B", "SAIL-VL2-8B", "SAIL-VL2-30B-A3B"];

pub fn tests() -> Vec<Test> {
    let name = |size| format!("{size} is planned, each kernel with code, for every level");
    SIZES.map(|size| Test::new(name(size), move || planned(size))).into()
}

fn planned(size: &str) -> Result<(), Outcome> {
    let whole = shared("checkpoints/SAIL-VL2-2B")?;
    let config = shared(&format!("checkpoints/{size}/config.json"))?;
    let folder = tempfile::tempdir().map_err(failed)?;
    for name in ["preprocessor_config.json", "generation_config.json", "tokenizer.json"] {
        copy(&whole.join(name), &folder.path().join(name))?;
    }
    copy(&config, &folder.path().join("config.json"))?;
    for target in ["x86-64-v3", "x86-64-v4"] {
        let target = Target::parse(target).map_err(told)?;
        let weights = WeightSource::Random { seed: 1 };
        let options = Options { weights, ..Options::new(target.clone()) };
        for stage in [Emit::Plan, Emit::Assembly] {
            let text = emit(folder.path(), &options, stage)
                .map_err(|error| failed(format!("for {target}: {}", report(error.as_ref()))))?;
            assert!(text.contains("attention"), "the decoder attends");
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), Outcome> {
    fs::copy(from, to).map(drop).map_err(|error| failed(format!("{}: {error}", from.display())))
}
