//! Experts stored by a profile: every answer as without it, the same file every time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sail_ir::Target;
use sail_ir::artifact::Artifact;
use sail_ir::expert_profile::{ExpertProfile, TokenKind};
use sail_models::WeightSource;
use sail_tests::compiled::{artifact, compile, targets};
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::recorded::{RECORDED, Recorded};
use sailc::golden::Golden;
use sailc::options::Options;

use super::gpu::{TARGETS, on_gpu, succeeds};
use super::observed::{observed, same_bits};

/// With experts: one in the repository, one beside it.
const EXPERTS: [Recorded; 2] = [RECORDED[1], RECORDED[4]];

/// With experts, small enough for a simulated GPU.
const SMALL: [Recorded; 2] = [RECORDED[1], RECORDED[2]];

pub fn tests() -> Vec<Test> {
    let same = EXPERTS.map(|recorded| {
        let name = format!("{} answers with the same bytes however experts stand", recorded.name);
        Test::new(name, move || same_bytes(&recorded))
    });
    let mut tests = Vec::from(same);
    for recorded in SMALL {
        for (target, gpu) in TARGETS {
            let name = format!(
                "{} on a simulated {target} answers with the same bytes however experts stand",
                recorded.name
            );
            let test = Test::new(name, move || same_on_gpu(&recorded, target, gpu));
            tests.push(if recorded.name == "odd-moe" { test } else { test.long() });
        }
    }
    tests.push(Test::new("two compiles by one profile give the same bytes", same_file_twice));
    tests
}

/// How many tokens went through an expert, by layer and number.
type Load = (&'static str, fn(u32, u64) -> u64);

/// A few much, most little; nothing counted; all of them through one.
const LOADS: [Load; 3] = [
    ("skewed", |layer, expert| 1 << ((expert * 7 + u64::from(layer)) % 13)),
    ("empty", |_, _| 0),
    ("all-to-one", |layer, expert| if expert == u64::from(layer) % 3 { 900 } else { 0 }),
];

/// A profile of `checkpoint` with this load.
fn profile(checkpoint: &Path, (_, load): Load) -> Result<ExpertProfile, Outcome> {
    let model = sail_models::open(checkpoint, WeightSource::Checkpoint).map_err(told)?;
    let card = model.spec.card(1);
    let count = card.decoder.experts.expect("the model has experts").count;
    let layers = (0..card.decoder.layers as u32).map(|layer| (layer, count as u32));
    let mut profile = ExpertProfile::new(card, layers);
    for row in &mut profile.layers {
        let counts = row.counts.of_mut(TokenKind::Prompt);
        *counts = (0..count).map(|expert| load(row.layer, expert)).collect();
    }
    Ok(profile)
}

/// The recorded checkpoint compiled by a profile of this load.
fn compiled(
    recorded: &Recorded,
    target: &Target,
    load: Load,
    (folder, threads): (&Path, usize),
) -> Result<PathBuf, Outcome> {
    let checkpoint = recorded.paths()?.0;
    let path = folder.join(format!("{}.json", load.0));
    let text = serde_json::to_vec(&profile(&checkpoint, load)?).map_err(failed)?;
    fs::write(&path, text).map_err(failed)?;
    let artifact = folder.join(format!("{}.{threads}.sail", load.0));
    let options = Options { threads, expert_profile: Some(path), ..Options::new(target.clone()) };
    compile(&checkpoint, &options, &artifact)?;
    Ok(artifact)
}

fn same_bytes(recorded: &Recorded) -> Result<(), Outcome> {
    let golden = Golden::open(&recorded.paths()?.1).map_err(told)?;
    let folder = tempfile::tempdir().map_err(failed)?;
    for target in targets()? {
        let plain = artifact(recorded, &target)?;
        let want = observed(&plain, &golden)?;
        for load in LOADS {
            let placed = compiled(recorded, &target, load, (folder.path(), 2))?;
            assert_ne!(hash(&plain)?, hash(&placed)?, "{}: the order is not in the file", load.0);
            let got = observed(&placed, &golden)?;
            same_bits(&got, &want, &format!("{target} {}", load.0));
        }
    }
    Ok(())
}

/// Of all weights.
fn hash(artifact: &Path) -> Result<String, Outcome> {
    Ok(Artifact::open(artifact).map_err(told)?.weights().blake3.clone())
}

/// Ids and every value that can be tapped, of the golden's prompts without pictures.
fn same_on_gpu(recorded: &Recorded, target: &str, gpu: &str) -> Result<(), Outcome> {
    let golden = Golden::open(&recorded.paths()?.1).map_err(told)?;
    let folder = tempfile::tempdir().map_err(failed)?;
    let target = Target::parse(target).map_err(told)?;
    let plain = artifact(recorded, &target)?;
    let want = answered(&plain, &golden, gpu)?;
    assert!(!want.is_empty(), "no case without pictures");
    for load in [LOADS[0], LOADS[2]] {
        let placed = compiled(recorded, &target, load, (folder.path(), 2))?;
        assert_ne!(hash(&plain)?, hash(&placed)?, "{}: the order is not in the file", load.0);
        assert!(answered(&placed, &golden, gpu)? == want, "{target} {}: other bytes", load.0);
    }
    Ok(())
}

/// Names and bytes of all that `sail run` writes for a case: one entry a file, and what it printed.
type Answer = BTreeMap<String, Vec<u8>>;

fn answered(artifact: &Path, golden: &Golden, gpu: &str) -> Result<Vec<Answer>, Outcome> {
    let mut answers = Vec::new();
    for case in golden.cases() {
        if case.tiles().map_err(told)?.is_some() {
            continue;
        }
        let folder = tempfile::tempdir().map_err(failed)?;
        let (ids, taps) = (folder.path().join("ids.json"), folder.path().join("taps"));
        fs::write(&ids, format!("{:?}", case.ids().map_err(told)?)).map_err(failed)?;
        let mut run = on_gpu("sail", gpu)?;
        run.args(["run", "--temperature", "0", "--context", "256", "--max-tokens", "4"]);
        run.args(["--tap", "*", "--tap-out"]).arg(&taps).arg("--ids-json").arg(&ids);
        let said = succeeds(run.arg(artifact))?;
        let mut answer = Answer::from([("said".to_owned(), said.into_bytes())]);
        for file in fs::read_dir(&taps).map_err(failed)? {
            let file = file.map_err(failed)?;
            let name = file.file_name().to_string_lossy().into_owned();
            answer.insert(name, fs::read(file.path()).map_err(failed)?);
        }
        assert!(answer.len() > 3, "hardly anything was tapped: {:?}", answer.keys());
        answers.push(answer);
    }
    Ok(answers)
}

fn same_file_twice() -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let target = Target::parse("x86-64-v4").map_err(told)?;
    let compiled = |threads| compiled(&EXPERTS[0], &target, LOADS[0], (folder.path(), threads));
    let [one, two] = [compiled(1)?, compiled(2)?];
    let [one, two] = [fs::read(one).map_err(failed)?, fs::read(two).map_err(failed)?];
    assert!(one == two, "two compiles differ");
    Ok(())
}
