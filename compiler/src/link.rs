//! Plan, code and weights become one file, written once from front to back.
//!
//! Weights are packed a piece at a time by worker threads and written in order, so memory stays at
//! a few pieces whatever the size of the model, and the bytes do not depend on the threads.

mod finite;
pub mod made;
mod ordered;
mod pieces;

use std::ops::ControlFlow;
use std::path::Path;

use sail_ir::artifact::{ArtifactWriter, Manifest, Measured, Recipe, SectionKind, WeightQuality};
use sail_ir::id::Id;
use sail_kernels::packing::Loss;
use sail_models::Model;

use crate::calibrate::Known;
use crate::error::{CompileError, Failure, boxed};
use crate::plan::weights::Source;
use crate::quality;
use pieces::Piece;

/// What goes into the file beside the manifest.
pub struct Parts<'a> {
    pub code: &'a [u8],
    /// Machine code made of the text in `code`, of a CUDA target.
    pub cubin: Option<&'a [u8]>,
    /// In the order of the plan's weights.
    pub sources: &'a [Source],
    /// Texts and weights.
    pub model: &'a Model,
    /// What is known of what products read.
    pub calibration: &'a Known,
    /// How weights are made when the program is loaded, instead of standing in the file.
    pub recipe: Option<Recipe>,
}

/// An artifact that is whole and can be opened, but does not have its name yet. Dropped, it is gone.
pub struct Assembled {
    writer: ArtifactWriter,
    manifest: Manifest,
    bytes: u64,
}

/// Write everything for the artifact `path`, except its name.
///
/// `progress` is told the bytes of the weights section written so far, and of all of it; it says
/// whether to go on.
///
/// Refuses what the file system refuses, and gives up when told; nothing is left behind then.
pub fn assemble(
    parts: &Parts<'_>,
    mut manifest: Manifest,
    path: &Path,
    threads: usize,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Assembled, Failure> {
    let mut writer = ArtifactWriter::create(path).map_err(boxed)?;
    writer
        .whole_section(SectionKind::Tokenizer, parts.model.tokenizer.as_bytes())
        .map_err(boxed)?;
    writer.whole_section(SectionKind::Code, parts.code).map_err(boxed)?;
    if let Some(cubin) = parts.cubin {
        writer.whole_section(SectionKind::Cubin, cubin).map_err(boxed)?;
    }
    if let Some(template) = &parts.model.chat_template {
        writer.whole_section(SectionKind::ChatTemplate, template.as_bytes()).map_err(boxed)?;
    }

    if let Some(recipe) = &parts.recipe {
        let json = serde_json::to_vec(recipe).expect("a recipe has string keys only");
        writer.whole_section(SectionKind::Recipe, &json).map_err(boxed)?;
    } else {
        manifest.quality.weights = store(parts, &manifest, &mut writer, threads, progress)?;
    }
    let bytes = writer.seal(manifest.clone()).map_err(boxed)?;
    Ok(Assembled { writer, manifest, bytes })
}

/// Pack all weights; what that lost, weight by weight.
fn store(
    parts: &Parts<'_>,
    manifest: &Manifest,
    writer: &mut ArtifactWriter,
    threads: usize,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Vec<WeightQuality>, Failure> {
    let rows = &manifest.plan.weights;
    let all = rows.iter().map(|(_, row)| row.offset + row.bytes).max().unwrap_or(0);
    let pieces: Vec<Piece<'_>> = parts
        .sources
        .iter()
        .enumerate()
        .flat_map(|(index, source)| pieces::of(Id::new(index), source))
        .collect();
    let mut behind: Vec<u8> = Vec::new();
    let mut losses = vec![Loss::default(); parts.sources.len()];
    let mut section = writer.section(SectionKind::Weights).map_err(boxed)?;
    let pack = |piece: &Piece<'_>| piece.pack(&parts.model.weights, parts.calibration);
    ordered::map(&pieces, threads, pack, |piece, result| {
        let made = result?;
        losses[piece.weight.index()] += made.loss;
        if piece.is_first() {
            let offset = section.align().map_err(boxed)?;
            let planned = rows[piece.weight].offset;
            assert_eq!(offset, planned, "broken invariant `link.offsets`: weight {}", piece.weight);
        }
        section.put(&made.bytes).map_err(boxed)?;
        behind.extend(made.behind);
        if piece.is_last() {
            section.put(&std::mem::take(&mut behind)).map_err(boxed)?;
        }
        match progress(section.position(), all) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(boxed(CompileError::Interrupted)),
        }
    })?;
    section.finish().map_err(boxed)?;
    let packed = parts.sources.iter().zip(losses).filter_map(|(source, loss)| match source {
        Source::Packed(packed) => Some(quality::of_weight(packed, loss)),
        Source::Plain { .. } | Source::RopeTable { .. } | Source::Order(_) => None,
    });
    Ok(packed.collect())
}

impl Assembled {
    /// Where it is for now.
    pub fn path(&self) -> &Path {
        self.writer.temporary()
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Note what running it gave.
    pub fn note(&mut self, measured: Measured) -> Result<(), Failure> {
        self.manifest.quality.measured = Some(measured);
        self.bytes = self.writer.seal(self.manifest.clone()).map_err(boxed)?;
        Ok(())
    }

    /// Give it its name.
    pub fn publish(self) -> Result<(), Failure> {
        self.writer.publish().map_err(boxed)
    }
}
