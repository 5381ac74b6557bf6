//! `gpucheck kernels|conformance FOLDER`: recorded launches on the first GPU, compared, a line of JSON each.

mod compare;
mod gpu;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use sail_gpucheck::Case;
use serde_json::{Value, json};

use compare::{Compare, Differences, Found};
use gpu::Gpu;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [what, folder] = arguments.as_slice() else {
        eprintln!("gpucheck kernels|conformance FOLDER");
        return ExitCode::from(2);
    };
    let compare: Compare = match what.as_str() {
        "kernels" => compare::near,
        "conformance" => compare::equal,
        other => {
            eprintln!("`{other}` is neither `kernels` nor `conformance`");
            return ExitCode::from(2);
        }
    };
    match all(Path::new(folder), compare) {
        Ok(()) => ExitCode::SUCCESS,
        Err(because) => {
            eprintln!("{because}");
            ExitCode::FAILURE
        }
    }
}

fn all(folder: &Path, compare: Compare) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|it| it == "case")).collect();
    paths.sort();
    let mut gpu = Gpu::new()?;
    put(&json!({"gpu": gpu.name, "cases": paths.len()}))?;
    for path in &paths {
        let case = Case::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let found = match gpu.runs(&case.head.target) {
            false => json!({"found": "elsewhere"}),
            true => {
                let text = fs::read_to_string(folder.join(&case.head.ptx))
                    .map_err(|error| format!("{}: {error}", case.head.ptx))?;
                told(gpu.run(&case, &text).and_then(|after| compare(&case, &after)))
            }
        };
        put(&line(path, &case, found))?;
    }
    Ok(())
}

/// What stands behind the names of a case.
fn told(found: Result<Found, String>) -> Value {
    match found {
        Ok(Found::Equal) => json!({"found": "equal"}),
        Ok(Found::Nothing) => json!({"found": "nothing"}),
        Ok(Found::Near(Differences { values, most_steps, steps, most_counted })) => json!({
            "found": "near", "values": values, "most_steps": most_steps,
            "steps": steps, "most_counted": most_counted,
        }),
        Err(because) => json!({"found": "failed", "because": because}),
    }
}

fn line(path: &Path, case: &Case, mut found: Value) -> Value {
    let head = &case.head;
    found["case"] = path.file_stem().unwrap_or_default().to_string_lossy().into();
    found["family"] = head.family.as_str().into();
    found["kernel"] = format!("{} {}", head.symbol, head.target).into();
    found
}

/// Out at once: whoever reads has what was done before this was cut off.
fn put(line: &Value) -> Result<(), String> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| error.to_string())
}
