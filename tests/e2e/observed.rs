//! Two artifacts of one checkpoint, compared bit by bit in everything that a golden looks at.

use std::path::Path;

use sail_runtime::Options as Opening;
use sail_tests::compiled::open;
use sail_tests::harness::{Outcome, failed};
use sailc::golden::run::{observe, positions, rule};
use sailc::golden::{Golden, Observed};

/// Everything a golden case looks at.
pub fn observed(path: &Path, golden: &Golden) -> Result<Vec<Observed>, Outcome> {
    let context = Some(positions(golden).map_err(|error| failed(error.to_string()))?);
    let options = Opening { context, slots: 1, taps: true, ..Opening::default() };
    let program = open(path, &options)?;
    let observe = |case| observe(&program, &case, rule(&program, false));
    let cases = golden.cases().into_iter().map(observe);
    cases.collect::<Result<_, _>>().map_err(|error| failed(error.to_string()))
}

/// Every token and every bit of every stage is the same.
///
/// # Panics
///
/// When a token or a bit of a stage differs; `what` says of which artifact.
pub fn same_bits(got: &[Observed], want: &[Observed], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: cases");
    for (case, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.greedy, want.greedy, "{what} {case}");
        assert_eq!(got.stages.len(), want.stages.len(), "{what} {case}: stages");
        for ((name, got), (_, want)) in got.stages.iter().zip(&want.stages) {
            let same = got.iter().map(|v| v.to_bits()).eq(want.iter().map(|v| v.to_bits()));
            assert!(same, "{what} {case}: {name}");
        }
    }
}
