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

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("weights made by this machine are those of their recipe", on_this_machine),
        Test::new("weights made on a simulated GPU are those of their recipe", on_a_gpu),
        Test::new("a file of code alone tells what the assembler said of each kernel", is_told),
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
    Ok(())
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
