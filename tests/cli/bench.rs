//! What `sail bench --json` promises to programs that read it.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use sail_tests::harness::{Outcome, Test, failed};
use sail_tests::places::binary;

use super::inputs;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("a bench says of every run how fast memory was beside it", beside),
        Test::new("a bench in turns answers every line with seconds", turns),
    ]
}

fn turns() -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    inputs::prepare("$ model.sail", folder.path())?;
    let mut bench = Command::new(binary("sail")?);
    bench.args(["bench", "model.sail", "--prefill", "24", "--decode", "3", "--turns"]);
    bench.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = bench.current_dir(folder.path()).spawn().map_err(failed)?;
    let mut lines = child.stdin.take().expect("it is piped");
    lines.write_all(b"\n\n").map_err(failed)?;
    drop(lines);
    let output = child.wait_with_output().map_err(failed)?;
    assert!(output.status.success(), "{}", output.status);
    let printed = String::from_utf8(output.stdout).map_err(failed)?;
    let seconds: Result<Vec<f64>, _> = printed.lines().map(str::parse).collect();
    let seconds = seconds.map_err(failed)?;
    assert_eq!(seconds.len(), 2, "{printed}");
    assert!(seconds.iter().all(|time| *time > 0.0), "{printed}");
    Ok(())
}

fn beside() -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    inputs::prepare("$ model.sail", folder.path())?;
    let mut bench = Command::new(binary("sail")?);
    bench.args(["bench", "model.sail", "--repeat", "2", "--prefill", "24", "--decode", "3"]);
    bench.args(["--tiles", "2,1"]);
    let output = bench.arg("--json").current_dir(folder.path()).output().map_err(failed)?;
    let document: Value = serde_json::from_slice(&output.stdout).map_err(failed)?;

    let [load, start] = ["load_seconds", "start_seconds"].map(|name| number(&document[name]));
    assert!(0.0 < load && load < start, "loaded after {load} s, a token after {start} s");
    let all = &document["limits"]["read_bytes"];
    let runs = document["runs"].as_array().ok_or_else(|| failed("no runs"))?;
    let names: Vec<_> = runs.iter().filter_map(|run| run["name"].as_str()).collect();
    assert_eq!(names, ["vision 2 tiles", "vision 1 tile", "prefill 24", "decode 3 at 24"]);
    assert_eq!(document["sizes"]["tiles"], json!([2, 1]));
    for run in runs {
        let bytes = &run["read_bytes"];
        assert!(number(&bytes["min"]) > 0.0, "{run}");
        assert!(number(&bytes["min"]) >= number(&all["min"]), "{run} beside {all}");
        assert!(number(&bytes["max"]) <= number(&all["max"]), "{run} beside {all}");
    }
    Ok(())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}
