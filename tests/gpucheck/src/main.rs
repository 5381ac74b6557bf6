//! `gpucheck kernels|conformance FOLDER`: recorded launches on the first GPU, compared.

mod gpu;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use sail_gpucheck::{Case, Role};
use serde_json::json;

use gpu::Gpu;

/// What one case shows.
enum Found {
    Equal,
    /// Values of bf16 that differ where the kernel uses approximate functions, and the most steps between
    /// two of them.
    Approximate {
        values: u64,
        steps: u64,
    },
    /// There is nothing to compare with.
    Nothing,
}

/// Holds the buffers after a launch against what was recorded; the text is the kernel's PTX.
type Compare = fn(&Case, &[Vec<u8>], &str) -> Result<Found, String>;

/// What cases of one family show.
#[derive(Default)]
struct Family {
    cases: u64,
    differing: u64,
    values: u64,
    steps: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [what, folder] = arguments.as_slice() else {
        eprintln!("gpucheck kernels|conformance FOLDER");
        return ExitCode::from(2);
    };
    let compare: Compare = match what.as_str() {
        "kernels" => near,
        "conformance" => equal,
        other => {
            eprintln!("`{other}` is neither `kernels` nor `conformance`");
            return ExitCode::from(2);
        }
    };
    match all(Path::new(folder), compare) {
        Ok(document) => {
            println!("{document}");
            ExitCode::SUCCESS
        }
        Err(because) => {
            eprintln!("{because}");
            ExitCode::FAILURE
        }
    }
}

fn all(folder: &Path, compare: Compare) -> Result<serde_json::Value, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|it| it == "case")).collect();
    paths.sort();
    let mut gpu = Gpu::new()?;
    let (mut passed, mut elsewhere, mut nothing) = (0, 0, 0);
    let mut failed = Vec::new();
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for path in &paths {
        let case = Case::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if !gpu.runs(&case.head.target) {
            elsewhere += 1;
            continue;
        }
        let text = fs::read_to_string(folder.join(&case.head.ptx))
            .map_err(|error| format!("{}: {error}", case.head.ptx))?;
        let found = gpu.run(&case, &text).and_then(|after| compare(&case, &after, &text));
        let family = families.entry(case.head.family.clone()).or_default();
        family.cases += 1;
        match found {
            Ok(Found::Equal) => passed += 1,
            Ok(Found::Nothing) => nothing += 1,
            Ok(Found::Approximate { values, steps }) => {
                passed += 1;
                family.differing += 1;
                family.values += values;
                family.steps = family.steps.max(steps);
            }
            Err(because) => {
                let file = path.file_stem().unwrap_or_default().to_string_lossy();
                let kernel = format!("{} {} ({file})", case.head.symbol, case.head.target);
                failed.push(json!({"kernel": kernel, "because": because}));
            }
        }
    }
    let families = families.into_iter().map(|(name, family)| {
        let Family { cases, differing, values, steps } = family;
        let row =
            json!({"cases": cases, "differing": differing, "values": values, "most_steps": steps});
        (name, row)
    });
    Ok(json!({
        "gpu": gpu.name, "cases": paths.len(), "passed": passed, "elsewhere": elsewhere,
        "nothing_to_compare": nothing, "failed": failed,
        "families": serde_json::Value::Object(families.collect()),
    }))
}

/// What is only read is untouched, and the twin's values are near.
fn near(case: &Case, after: &[Vec<u8>], _: &str) -> Result<Found, String> {
    untouched(case, after)?;
    let Some(twin) = &case.head.twin else { return Ok(Found::Nothing) };
    let squares: f64 = case.twin.iter().map(|want| f64::from(*want).powi(2)).sum();
    let rms = (squares / case.twin.len().max(1) as f64).sqrt();
    let got = after[twin.buffer].as_chunks::<2>().0;
    for (at, (want, got)) in case.twin.iter().zip(got).enumerate() {
        let (want, got) = (f64::from(*want), f64::from(of_bf16(u16::from_le_bytes(*got))));
        let room = twin.relative * want.abs() + twin.absolute * rms;
        let is_near = (got - want).abs() <= room; // false of what is no number
        if !is_near {
            return Err(format!("value {at} is {got}, the twin says {want} within {room}"));
        }
    }
    Ok(Found::Equal)
}

/// Every byte is the simulator's, unless the kernel asks for approximate functions.
fn equal(case: &Case, after: &[Vec<u8>], text: &str) -> Result<Found, String> {
    untouched(case, after)?;
    let (mut values, mut steps) = (0, 0);
    for (at, (simulated, after)) in case.after.iter().zip(after).enumerate() {
        let Some(simulated) = simulated.as_ref().filter(|simulated| *simulated != after) else {
            continue;
        };
        if !text.contains(".approx") {
            let first = simulated.iter().zip(after).position(|(one, other)| one != other);
            return Err(format!(
                "argument {at} differs from byte {} on",
                first.unwrap_or_default()
            ));
        }
        let pairs = simulated.as_chunks::<2>().0.iter().zip(after.as_chunks::<2>().0);
        for (one, other) in pairs.filter(|(one, other)| one != other) {
            values += 1;
            let [one, other] = [one, other].map(|pair| ordered(u16::from_le_bytes(*pair)));
            steps = steps.max(one.abs_diff(other));
        }
    }
    Ok(if values == 0 { Found::Equal } else { Found::Approximate { values, steps } })
}

fn untouched(case: &Case, after: &[Vec<u8>]) -> Result<(), String> {
    let buffers = case.head.buffers.iter().zip(&case.before).zip(after).enumerate();
    for (at, ((buffer, before), after)) in buffers {
        match buffer.role {
            Role::Read if before != after => return Err(format!("argument {at} was written")),
            Role::Counters if before != after => {
                return Err(format!("argument {at}, counters, is not zero again"));
            }
            Role::Read | Role::Counters | Role::Written | Role::Scratch => {}
        }
    }
    Ok(())
}

fn of_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Neighbouring bf16 are neighbouring numbers.
fn ordered(bits: u16) -> i64 {
    let magnitude = i64::from(bits & 0x7fff);
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}
