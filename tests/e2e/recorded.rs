//! Launches that numerics record for a real GPU are carried out by `gpucheck`, here on the simulated driver:
//! what a GPU will be asked is whole and says what the simulator said.

use std::path::Path;
use std::process::Command;

use sail_tests::harness::{Outcome, Test, failed};
use sail_tests::places::{binary, simulated_driver};
use serde_json::Value;

use crate::numerics::record;

pub fn tests() -> Vec<Test> {
    vec![Test::new("what numerics record of GPUs passes when it is carried out", carried_out)]
}

/// The tests whose launches are recorded: every way of products of experts; and attention, whose blocks join
/// what they saw in memory that is no argument of the op.
const RECORDED: [&str; 2] =
    ["numerics: grouped products of GPUs", "numerics: attention of GPUs holds for heads of other"];

/// Families of which each has at least so many cases.
const FAMILIES: [(&str, u64); 4] = [
    ("attention", 8),
    ("attention_int8", 8),
    ("grouped_linear", 8),
    ("grouped_gate_up_silu_fp8", 4),
];

fn carried_out() -> Result<(), Outcome> {
    let cases = tempfile::tempdir().map_err(failed)?;
    record(&RECORDED, cases.path())?;
    for comparison in ["kernels", "conformance"] {
        let found = compared(comparison, cases.path())?;
        let number = |name: &str| found[name].as_u64().unwrap_or(u64::MAX);
        assert_eq!(found["failed"].as_array().map(Vec::len), Some(0), "{found}");
        for (family, least) in FAMILIES {
            let there = found["families"][family]["cases"].as_u64();
            assert!(there >= Some(least), "{comparison}: too few cases of `{family}`: {found}");
        }
        assert!(number("passed") >= 88, "{comparison}: too few of them are there: {found}");
        assert_eq!(number("elsewhere"), 0, "{found}");
    }
    Ok(())
}

fn compared(comparison: &str, cases: &Path) -> Result<Value, Outcome> {
    let mut check = Command::new(binary("gpucheck")?);
    check.arg(comparison).arg(cases);
    check.env_clear().env("LD_LIBRARY_PATH", simulated_driver()?);
    check.env("SAIL_FAKECUDA", "capability=90");
    let output = check.output().map_err(failed)?;
    serde_json::from_slice(&output.stdout).map_err(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        failed(format!("{comparison}: {error}\n{said}"))
    })
}
