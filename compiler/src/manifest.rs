//! What an artifact says about its model: the checked spec in the words of the file format.

use sail_ir::artifact::{BuiltWith, CudaCode, Manifest, Quality};
use sail_ir::plan::Plan;
use sail_models::{Model, ModelSpec};

use crate::options::Options;

/// Checkpoints hold bf16.
const CHECKPOINT_VALUE_BYTES: u64 = 2;

/// The manifest of `model` compiled with `options`; the writer adds the sections, the linker the
/// quality sheet.
#[must_use]
pub fn manifest(model: &Model, options: &Options, cuda: Option<CudaCode>, plan: Plan) -> Manifest {
    let ModelSpec { tiling, prompt, tokens, generation, .. } = model.spec.clone();
    Manifest {
        target: options.target.clone(),
        scheme: options.scheme,
        model: model.spec.card(model.weights.bytes() / CHECKPOINT_VALUE_BYTES),
        tiling,
        prompt,
        tokens,
        generation,
        built_with: BuiltWith {
            sailc: env!("CARGO_PKG_VERSION").to_owned(),
            llvm: sail_kernels::llvm_version(),
        },
        options: options.echo(),
        quality: Quality::default(),
        cuda,
        plan,
        sections: Vec::new(),
    }
}
