//! Weights that a file has a recipe of instead of bytes: the same answers as with these bytes stored.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use sail_ir::Target;
use sail_ir::artifact::{Artifact, ArtifactWriter, SectionKind};
use sail_kernels::ptxas;
use sail_models::WeightSource;
use sail_tests::compiled::{compile, targets};
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::places::{binary, simulated_driver};
use sail_tests::recorded::RECORDED;
use sailc::options::Options;
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("weights made by this machine are those of their recipe", on_this_machine),
        Test::new("weights made on a simulated GPU are those of their recipe", on_a_gpu),
        Test::new("a file of code alone tells what the assembler said of each kernel", is_told),
        Test::new("a file without machine code for its GPU says so", is_told_to_be_absent),
    ]
}

fn on_this_machine() -> Result<(), Outcome> {
    let target = targets()?.into_iter().next_back();
    let target = target.ok_or_else(|| failed("this machine has no target"))?;
    answers_as_stored(&target, &|| Ok(Command::new(binary("sail")?)))
}

fn on_a_gpu() -> Result<(), Outcome> {
    answers_as_stored(&Target::parse("sm_90").map_err(told)?, &|| {
        let driver: &Path = simulated_driver()?;
        let mut sail = Command::new(binary("sail")?);
        sail.env_clear().env("LD_LIBRARY_PATH", driver).env("SAIL_FAKECUDA", "capability=90");
        Ok(sail)
    })
}

fn is_told() -> Result<(), Outcome> {
    ptxas::find().map_err(|absent| Outcome::Skipped(absent.to_string()))?;
    let checkpoint = RECORDED[0].paths()?.0;
    let folder = tempfile::tempdir().map_err(failed)?;
    let made = folder.path().join("made.sail");
    let weights = WeightSource::Random { seed: 7 };
    let target = Target::parse("sm_90").map_err(told)?;
    let options = Options { weights, code_only: true, ..Options::new(target) };
    compile(&checkpoint, &options, &made)?;
    let artifact = Artifact::open(&made).map_err(told)?;
    let manifest = artifact.manifest();
    let usage = &manifest.cuda.as_ref().ok_or_else(|| failed("it is for a GPU"))?.usage;
    let kernels = manifest.plan.kernels.iter().filter_map(|(_, kernel)| kernel.cuda.as_ref());
    let entries: BTreeSet<&str> = kernels.map(|cuda| cuda.entry.as_str()).collect();
    assert_eq!(usage.iter().map(|usage| usage.entry.as_str()).collect::<BTreeSet<_>>(), entries);
    let (text, cuda) = inspected(&made)?;
    assert!(text.contains("machine code  for `sm_90a`, by ptxas 1"), "{text}");
    assert_eq!(cuda["cubin"], true);
    for kernel in cuda["kernels"].as_array().into_iter().flatten() {
        assert_eq!((&kernel["target"], &kernel["ptx_version"]), (&json!("sm_90a"), &json!("8.0")));
        let found = usage.iter().find(|usage| kernel["entry"] == usage.entry.as_str());
        let usage = found.ok_or_else(|| failed(kernel))?;
        assert_eq!(kernel["registers"], usage.registers, "{kernel}");
        assert_eq!(kernel["spill_bytes"], usage.spill_bytes, "{kernel}");
        assert_eq!(kernel["cubin"], true, "{kernel}");
        let named = kernel["name"].is_string() && kernel["shared_bytes"].is_u64();
        assert!(named, "{kernel}");
    }
    Ok(())
}

/// Without an assembler a file has text alone, and says so.
fn is_told_to_be_absent() -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let made = folder.path().join("made.sail");
    let weights = WeightSource::Random { seed: 7 };
    let target = Target::parse("sm_80").map_err(told)?;
    let options = Options { weights, code_only: true, assemble: false, ..Options::new(target) };
    compile(&RECORDED[0].paths()?.0, &options, &made)?;
    let (text, cuda) = inspected(&made)?;
    assert!(text.contains("machine code  none: the driver assembles the PTX 8.0"), "{text}");
    assert_eq!((&cuda["cubin"], &cuda["assembler"]), (&json!(false), &json!(null)));
    let kernels = cuda["kernels"].as_array().ok_or_else(|| failed(&cuda))?;
    assert!(!kernels.is_empty());
    for kernel in kernels {
        assert_eq!((&kernel["cubin"], &kernel["registers"]), (&json!(false), &json!(null)));
    }
    Ok(())
}

/// What `sail inspect` prints, and its `cuda` as JSON.
fn inspected(file: &Path) -> Result<(String, Value), Outcome> {
    let ask = |more: &[&str]| -> Result<String, Outcome> {
        let mut sail = Command::new(binary("sail")?);
        let output = sail.arg("inspect").arg(file).args(more).output().map_err(failed)?;
        String::from_utf8(output.stdout).map_err(failed)
    };
    let mut document: Value = serde_json::from_str(&ask(&["--json"])?).map_err(failed)?;
    Ok((ask(&[])?, document["cuda"].take()))
}

/// A model whose weights are made gives the same text, also with a scale for each row, as one of the
/// same plan with the words of the recipe in its file.
fn answers_as_stored(
    target: &Target,
    sail: &dyn Fn() -> Result<Command, Outcome>,
) -> Result<(), Outcome> {
    let checkpoint = RECORDED[0].paths()?.0;
    let folder = tempfile::tempdir().map_err(failed)?;
    let [made, stored] = ["made.sail", "stored.sail"].map(|name| folder.path().join(name));
    for scheme in [sail_ir::Scheme::Bf16, sail_ir::Scheme::Int8] {
        let weights = WeightSource::Random { seed: 7 };
        let options = Options { weights, scheme, code_only: true, ..Options::new(target.clone()) };
        compile(&checkpoint, &options, &made)?;
        store(&made, &stored)?;
        let answer = |file: &Path| -> Result<String, Outcome> {
            let mut run = sail()?;
            run.args(["run", "--prompt", "What is this?", "--max-tokens", "6", "--context", "128"]);
            let output = run.args([OsStr::new("--seed"), OsStr::new("1")]).arg(file).output();
            let output = output.map_err(failed)?;
            match output.status.success() {
                true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
                false => Err(failed(String::from_utf8_lossy(&output.stderr))),
            }
        };
        let [made, stored] = [&made, &stored].map(|file| answer(file));
        let (made, stored) = (made?, stored?);
        if made != stored || made.trim().is_empty() {
            return Err(failed(format!("{scheme}: {made:?} made, {stored:?} stored")));
        }
    }
    Ok(())
}

/// The artifact `from` with the words of its recipe for weights, as `to`.
fn store(from: &Path, to: &Path) -> Result<(), Outcome> {
    let artifact = Artifact::open(from).map_err(told)?;
    let recipe = artifact.recipe().ok_or_else(|| failed("its weights are stored"))?;
    let mut bytes = vec![0; usize::try_from(recipe.bytes).map_err(failed)?];
    for fill in &recipe.fills {
        for index in 0..fill.words() {
            let at = (fill.offset + fill.place(index)) as usize;
            bytes[at..at + 4].copy_from_slice(&fill.word(index).to_le_bytes());
        }
    }
    let mut writer = ArtifactWriter::create(to).map_err(told)?;
    writer.whole_section(SectionKind::Tokenizer, artifact.tokenizer()).map_err(told)?;
    writer.whole_section(SectionKind::Code, artifact.code()).map_err(told)?;
    writer.whole_section(SectionKind::Weights, &bytes).map_err(told)?;
    writer.finish(artifact.manifest().clone()).map_err(told)?;
    Ok(())
}
