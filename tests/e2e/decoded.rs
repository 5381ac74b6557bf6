//! Decoding on a simulated GPU as servers and long answers do it: many conversations in one call, held to
//! the golden row by row; and a token that the device cannot choose.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sail_ir::{Scheme, Target};
use sail_tests::compiled::{artifact, compile, rewrite};
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::places::binary;
use sail_tests::recorded::{RECORDED, Recorded};
use sailc::options::Options;
use serde_json::Value;

use super::gpu::{TARGETS, on_gpu, succeeds};

/// Dense and with experts; what the first one says is the same token again and again, the second one's are
/// different ones.
const SMALL: [Recorded; 2] = [RECORDED[0], RECORDED[1]];

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for recorded in SMALL {
        for (target, gpu) in TARGETS {
            // One for each class of `decode.wide`, and the largest of `decode`.
            for rows in [8, 11, 23, 64] {
                let name = format!(
                    "{} on a simulated {target} decodes {rows} rows in one call within the bound",
                    recorded.name
                );
                let test =
                    Test::new(name, move || decodes_together(&recorded, (target, gpu), rows));
                let usual = rows == 11 && recorded == SMALL[0];
                tests.push(if usual { test } else { test.long() });
            }
        }
    }
    tests.push(Test::new(
        "more rows than an artifact decodes in one call are refused",
        more_than_there_is_room_for,
    ));
    for (target, gpu) in TARGETS {
        let name = format!(
            "where a simulated {target} cannot choose a token, `sail` says what it says on x86-64"
        );
        tests.push(Test::new(name, move || says_the_same(target, gpu)));
    }
    tests
}

fn decodes_together(
    recorded: &Recorded,
    (target, gpu): (&str, &str),
    rows: u32,
) -> Result<(), Outcome> {
    let file = artifact(recorded, &Target::parse(target).map_err(told)?)?;
    let mut verify = on_gpu("sailc", gpu)?;
    verify.args(["verify", "--json", "--rows", &rows.to_string(), "--golden"]);
    let text = succeeds(verify.arg(recorded.paths()?.1).arg(&file))?;
    let document: Value = serde_json::from_str(&text).map_err(failed)?;
    let cases = document["cases"].as_array().ok_or_else(|| failed("no cases"))?;
    let name = format!("decoded {rows}");
    for case in cases {
        let mut stages = case["stages"].as_array().into_iter().flatten();
        let found = stages.find(|stage| stage["name"] == name.as_str());
        let found = found.ok_or_else(|| failed(format!("no stage `{name}` in {case:#}")))?;
        // It was computed, and what it is held to is no bound that anything meets.
        assert!(found["distance"].as_f64().is_some_and(|distance| distance > 0.0), "{found}");
        assert!(found["bound"].as_f64().is_some_and(|bound| bound < 0.2), "{found}");
    }
    Ok(())
}

fn more_than_there_is_room_for() -> Result<(), Outcome> {
    let file = artifact(&SMALL[0], &Target::parse("x86-64-v3").map_err(told)?)?;
    let mut verify = Command::new(binary("sailc")?);
    verify.args(["verify", "--rows", "9", "--golden"]).arg(SMALL[0].paths()?.1);
    let output = verify.arg(&file).output().map_err(failed)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("error[SC0709]: 9 rows cannot be decoded in one call"), "{errors}");
    assert_eq!(output.status.code(), Some(2));
    Ok(())
}

/// A token of the answer has no numbers in its row of the table of tokens: after it nothing can be chosen,
/// first by the device and then by the caller, who has the logits computed again and says why.
fn says_the_same(target: &str, gpu: &str) -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let checkpoint = SMALL[1].paths()?.0;
    let compiled = |name: &str, target: &str| {
        let file = folder.path().join(name);
        // The simulated driver takes no machine code, and says so when there is some.
        let target = Target::parse(target).map_err(told)?;
        let options = Options { threads: 2, assemble: false, ..Options::new(target) };
        compile(&checkpoint, &Options { scheme: Scheme::Bf16, ..options }, &file).map(|()| file)
    };
    let ask = |mut command: Command, file: &Path| -> Result<Output, Outcome> {
        command.args(["run", "--temperature", "0", "--context", "256", "--max-tokens", "12"]);
        command.args(["--json", "--prompt", "which one is it?"]).arg(file).output().map_err(failed)
    };
    let [sound, host] = [compiled("sound.sail", target)?, compiled("host.sail", "x86-64-v3")?];
    let answers = [ask(on_gpu("sail", gpu)?, &sound)?, ask(Command::new(binary("sail")?), &host)?];
    let answers = answers.map(|output| ids(&output));
    let [ours, theirs] = [answers[0].clone()?, answers[1].clone()?];
    let equal = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
    // The device chooses every token but the first. One that comes late, and for the first time.
    let late = (2..equal).rev().find(|at| !ours[..*at].contains(&ours[*at]));
    let late = late.ok_or_else(|| failed(format!("{ours:?} and {theirs:?} have none")))?;
    let [sound, host] = [spoiled(&sound, ours[late])?, spoiled(&host, ours[late])?];
    let [ours, theirs] =
        [ask(on_gpu("sail", gpu)?, &sound)?, ask(Command::new(binary("sail")?), &host)?];
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said(&ours).contains("error[SC0542]: the model's output is not finite"), "{ours:?}");
    assert_eq!(said(&ours), said(&theirs));
    assert_eq!(ours.status.code(), theirs.status.code());
    assert_eq!(ours.stdout, theirs.stdout);
    Ok(())
}

/// Tokens of an answer.
fn ids(output: &Output) -> Result<Vec<u32>, Outcome> {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let document: Value = serde_json::from_slice(&output.stdout).map_err(|_| failed(errors))?;
    serde_json::from_value(document["ids"].clone()).map_err(failed)
}

/// The artifact with a token's row of the table no numbers, which no checkpoint may have. The table must
/// not be the head as well, which would then give no logits from the start.
fn spoiled(artifact: &Path, token: u32) -> Result<PathBuf, Outcome> {
    const TABLE: &str = "language_model.model.embed_tokens.weight";
    let to = artifact.with_extension("spoiled.sail");
    rewrite(artifact, &to, |manifest, weights| {
        let mut rows = manifest.plan.weights.iter().map(|(_, weight)| weight);
        let table = rows.find(|weight| weight.paths == [TABLE]).expect("tokens are looked up");
        assert!(table.layout.ends_with("bf16 rows"), "{}", table.layout);
        let row = (table.bytes / manifest.model.decoder.vocabulary) as usize;
        let start = table.offset as usize + token as usize * row;
        for value in weights[start..start + row].chunks_exact_mut(2) {
            value.copy_from_slice(&0x7fc0_u16.to_le_bytes());
        }
    })?;
    Ok(to)
}
