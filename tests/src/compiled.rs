//! Checkpoints compiled once for all tests of a run.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use sail_ir::Target;
use sail_ir::artifact::{Artifact, ArtifactWriter, Machine, Manifest, SectionKind};
use sail_ir::help::report;
use sail_runtime::{Options as Opening, Program};
use sailc::options::Options;
use tempfile::TempDir;

use crate::harness::{Outcome, failed, told};
use crate::recorded::Recorded;

/// Targets that this machine can run, the lowest and its own.
///
/// Skips on a machine below the lowest.
pub fn targets() -> Result<Vec<Target>, Outcome> {
    let machine = Machine::this().target();
    let machine = machine.ok_or_else(|| Outcome::Skipped("a CPU without AVX2".to_owned()))?;
    let lowest = Target::parse("x86-64-v3").map_err(told)?;
    Ok(if machine == lowest { vec![machine] } else { vec![lowest, machine] })
}

/// The artifact of a recorded checkpoint; compiled when it is asked for first.
pub fn artifact(recorded: &Recorded, target: &Target) -> Result<PathBuf, Outcome> {
    type Slot = Arc<OnceLock<Result<PathBuf, Outcome>>>;
    static SLOTS: OnceLock<(TempDir, Mutex<HashMap<String, Slot>>)> = OnceLock::new();
    let (folder, slots) = SLOTS.get_or_init(|| {
        let folder = tempfile::tempdir().expect("the system has room for temporary files");
        (folder, Mutex::default())
    });
    let name = format!("{}.{target}.sail", recorded.name);
    let slot = {
        let mut slots = slots.lock().expect("nothing panics under the lock");
        Arc::clone(slots.entry(name.clone()).or_default())
    };
    slot.get_or_init(|| {
        let path = folder.path().join(name);
        compile(&recorded.paths()?.0, &Options::new(target.clone()), &path)?;
        Ok(path)
    })
    .clone()
}

/// Compile `checkpoint` into `path`.
pub fn compile(checkpoint: &Path, options: &Options, path: &Path) -> Result<(), Outcome> {
    sailc::pipeline::compile(checkpoint, options, path, &mut |_, _| ControlFlow::Continue(()))
        .map_err(|error| failed(report(error.as_ref())))?;
    Ok(())
}

/// Write the artifact at `from` to `to`, sound but for what `edit` changes of its manifest and weights.
pub fn rewrite(
    from: &Path,
    to: &Path,
    edit: impl FnOnce(&mut Manifest, &mut [u8]),
) -> Result<(), Outcome> {
    let artifact = Artifact::open(from).map_err(told)?;
    let mut manifest = artifact.manifest().clone();
    let section = artifact.weights();
    let mut weights = vec![0; usize::try_from(section.bytes).map_err(failed)?];
    artifact.file().read_exact_at(&mut weights, section.offset).map_err(failed)?;
    manifest.sections.clear();
    edit(&mut manifest, &mut weights);
    let mut writer = ArtifactWriter::create(to).map_err(told)?;
    let sections = [
        (SectionKind::Code, Some(artifact.code())),
        (SectionKind::Cubin, artifact.cubin()),
        (SectionKind::Tokenizer, Some(artifact.tokenizer())),
        (SectionKind::ChatTemplate, artifact.chat_template()),
        (SectionKind::Weights, Some(&weights)),
    ];
    for (kind, bytes) in sections {
        if let Some(bytes) = bytes {
            writer.whole_section(kind, bytes).map_err(told)?;
        }
    }
    writer.finish(manifest).map(drop).map_err(told)
}

/// Open an artifact as `options` say.
pub fn open(path: &Path, options: &Opening) -> Result<Program, Outcome> {
    Program::open(path, options).map_err(told)
}
