//! Launches that numerics record for a real GPU are carried out by `gpucheck`, here on the simulated driver:
//! what a GPU will be asked is whole and says what the simulator said. A GPU whose approximate functions are as
//! far off as they may be passes, too, and one that computes something else does not.

use std::collections::BTreeSet;
use std::fs;
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
const FAMILIES: [(&str, usize); 4] = [
    ("attention", 8),
    ("attention_int8", 8),
    ("grouped_linear", 8),
    ("grouped_gate_up_silu_fp8", 4),
];

/// What the simulator rounds once and a GPU approximates.
const EXP2: &str = "ex2.approx.ftz.f32";

/// 1 + 2^-22 and 1 - 2^-22: as far as a GPU may be off.
const FACTORS: [&str; 2] = ["0f3F800002", "0f3F7FFFFC"];

fn carried_out() -> Result<(), Outcome> {
    let cases = tempfile::tempdir().map_err(failed)?;
    record(&RECORDED, cases.path())?;
    for comparison in ["kernels", "conformance"] {
        let lines = compared(comparison, cases.path())?;
        for line in &lines {
            let is_right = ["equal", "nothing"].contains(&found(line));
            assert!(is_right, "{comparison}: {line}");
        }
        for (family, least) in FAMILIES {
            let there = lines.iter().filter(|line| line["family"] == family).count();
            assert!(there >= least, "{comparison}: {there} cases of `{family}` are too few");
        }
        let equal = lines.iter().filter(|line| found(line) == "equal").count();
        assert!(equal >= 88, "{comparison}: {equal} cases are too few");
    }
    approximated(cases.path())
}

/// What conformance says where `ex2` gives something else than the simulator was recorded with.
fn approximated(cases: &Path) -> Result<(), Outcome> {
    let mut differing = BTreeSet::new();
    for factor in FACTORS {
        let wrong = with_exp2(cases, &|to| format!("mul.rn.f32 {to}, {to}, {factor};"))?;
        let lines = compared("conformance", wrong.path())?;
        assert!(lines.iter().all(|line| found(line) != "failed"), "{factor}: {lines:#?}");
        let near = lines.iter().filter(|line| found(line) == "near");
        differing.extend(near.map(|line| line["family"].to_string()));
    }
    assert!(differing.contains("\"attention\""), "no tie was on either side: {differing:?}");
    // Weights of half the temperature: an answer like any other, and another.
    let wrong = with_exp2(cases, &|to| format!("mul.rn.f32 {to}, {to}, {to};"))?;
    let lines = compared("conformance", wrong.path())?;
    let failed = lines.iter().filter(|line| found(line) == "failed");
    let failed: BTreeSet<_> = failed.map(|line| line["family"].as_str()).collect();
    for family in ["attention", "attention_int8", "grouped_gate_up_silu_fp8"] {
        assert!(failed.contains(&Some(family)), "`{family}` passes with other weights");
    }
    Ok(())
}

/// A copy of `cases` in whose kernels a line stands behind every `ex2`, as `after` says for its result.
fn with_exp2(cases: &Path, after: &dyn Fn(&str) -> String) -> Result<tempfile::TempDir, Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    for entry in fs::read_dir(cases).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let copy = folder.path().join(path.file_name().unwrap_or_default());
        if path.extension().is_none_or(|it| it != "ptx") {
            fs::copy(&path, copy).map_err(failed)?;
            continue;
        }
        let mut text = String::new();
        for line in fs::read_to_string(&path).map_err(failed)?.lines() {
            text += &format!("{line}\n");
            let result = line.trim().strip_prefix(EXP2).and_then(|rest| rest.split_once(','));
            text += &result.map(|(to, _)| after(to.trim()) + "\n").unwrap_or_default();
        }
        fs::write(copy, text).map_err(failed)?;
    }
    Ok(folder)
}

fn found(line: &Value) -> &str {
    line["found"].as_str().unwrap_or("missing")
}

/// The lines of all cases.
fn compared(comparison: &str, cases: &Path) -> Result<Vec<Value>, Outcome> {
    let mut check = Command::new(binary("gpucheck")?);
    check.arg(comparison).arg(cases);
    check.env_clear().env("LD_LIBRARY_PATH", simulated_driver()?);
    check.env("SAIL_FAKECUDA", "capability=90");
    let output = check.output().map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let lines = said.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    let mut lines = lines.map_err(failed)?.into_iter();
    let head = lines.next().unwrap_or_default();
    let lines: Vec<Value> = lines.collect();
    if output.status.success() && head["cases"].as_u64() == Some(lines.len() as u64) {
        return Ok(lines);
    }
    let because = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{comparison}: {} lines of {head}\n{because}", lines.len())))
}
