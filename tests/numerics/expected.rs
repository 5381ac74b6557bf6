//! What the model of GPUs expects of kernels, against what an H200 took for them.

use std::fs;

use sail_ir::plan::Count;
use sail_ir::{Scheme, Target};
use sail_kernels::ptx::launch;
use sail_kernels::{Kernel, Shaped};
use sail_models::WeightSource;
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::places::workspace;
use sail_tests::published::without_weights;
use sailc::options::Options;
use sailc::pipeline;
use serde_json::Value;

/// One launch a line, as Nsight Compute timed it; the 2B in bf16 and in int8.
const RECORDS: &str = "benches/results/gpu-kernels.jsonl";

/// How far an expectation may be from what was measured, and their median from all of it: nothing
/// is fitted to a kernel, and a choice between two is right where both are as wrong.
const FACTOR: f64 = 1.6;
const MEDIAN: f64 = 1.15;

/// Tokens of the prompt that was measured, and of the class of decoded rows.
const PROMPT: u32 = 2048;
const DECODED: u32 = 16;

pub fn tests() -> Vec<Test> {
    vec![Test::new("kernels are expected to take about what a GPU took for them", as_measured)]
}

fn as_measured() -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let checkpoint = without_weights("2b", folder.path())?;
    let target = Target::parse("sm_90").map_err(told)?;
    let records = fs::read_to_string(workspace().join(RECORDS)).map_err(failed)?;
    let records = records.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    let records = records.map_err(failed)?;
    let mut ratios = Vec::new();
    for scheme in [Scheme::Bf16, Scheme::Int8] {
        let weights = WeightSource::Random { seed: 7 };
        let options = Options { scheme, weights, ..Options::new(target.clone()) };
        let of_scheme = pipeline::kernels(&checkpoint, &options, |kernels| {
            Ok(records.iter().filter_map(|record| ratio(record, kernels)).collect::<Vec<_>>())
        });
        ratios.extend(of_scheme.map_err(|error| failed(error.to_string()))?);
    }
    ratios.sort_by(|a, b| a.1.total_cmp(&b.1));
    ratios.iter().for_each(|(name, ratio)| eprintln!("{ratio:.2} {name}"));
    // Records stay and kernels get other shapes; some of the measured ones must be left.
    assert!(ratios.len() >= 20, "{} of the measured kernels are still there", ratios.len());
    let within = |ratio: f64, factor: f64| ratio < factor && ratio > 1.0 / factor;
    let beyond: Vec<_> = ratios.iter().filter(|(_, ratio)| !within(*ratio, FACTOR)).collect();
    assert!(beyond.is_empty(), "expected by measured: {beyond:?}");
    let median = ratios[ratios.len() / 2].1;
    assert!(within(median, MEDIAN), "the median is {median}");
    Ok(())
}

/// The kernel that was measured, and its expected time by the measured one; nothing of a kernel that is
/// not there any more, or of which nobody can tell what the call was.
fn ratio(record: &Value, kernels: &[&dyn Kernel]) -> Option<(String, f64)> {
    let name = record["kernel"].as_str()?;
    let kernel =
        kernels.iter().find(|kernel| launch(**kernel).is_some_and(|it| it.entry == name))?;
    let shaped = kernel.shaped()?;
    let rows = rows(record, *kernel, shaped)?;
    let (expected, _) = shaped.expected(rows)?;
    let measured = 1e-6 * record["microseconds"].as_f64()?;
    Some((name.to_owned(), expected.seconds() / measured))
}

fn rows(record: &Value, kernel: &dyn Kernel, shaped: &dyn Shaped) -> Option<u32> {
    let pinned = shaped.pinned_as();
    let is = |way: &str| pinned.contains(way);
    if is(".rows.") || is(".alone.") {
        return Some(1);
    }
    let grid = kernel.grid();
    if grid.count == Count::Images {
        return u32::try_from(grid.rows(1)).ok();
    }
    if pinned.starts_with("attention") {
        // In clusters it was a prompt of unknown length, at an unknown place.
        return (shaped.config().get("parts") == 1).then_some(PROMPT);
    }
    let blocks: u32 =
        record["grid"].as_str()?.trim_start_matches('(').split(',').next()?.parse().ok()?;
    Some(if grid.columns == blocks { DECODED } else { PROMPT })
}
