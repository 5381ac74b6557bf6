//! NVPTX: how a kernel is compiled for a CUDA target, and what its entry looks like in PTX.

use std::sync::Once;

use inkwell::OptimizationLevel;
use inkwell::targets::{
    CodeModel, InitializationConfig, RelocMode, Target as LlvmTarget, TargetMachine,
    TargetMachineOptions, TargetTriple,
};
use sail_ir::target::Target;

/// The PTX version that is written: the least that has everything the builder can say, so that
/// drivers from CUDA 12.0 on take the text.
const PTX_VERSION: &str = "+ptx80";

/// The machine that prints PTX for `target`.
pub(crate) fn machine(target: &Target) -> TargetMachine {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| LlvmTarget::initialize_nvptx(&InitializationConfig::default()));
    let architecture = target.ptx_architecture().expect("only CUDA targets are printed as PTX");
    let triple = TargetTriple::create("nvptx64-nvidia-cuda");
    let options = TargetMachineOptions::default()
        .set_cpu(architecture)
        .set_features(PTX_VERSION)
        .set_level(OptimizationLevel::Aggressive)
        .set_reloc_mode(RelocMode::Default)
        .set_code_model(CodeModel::Default);
    LlvmTarget::from_triple(&triple)
        .ok()
        .and_then(|llvm| llvm.create_target_machine_from_options(&triple, options))
        .expect("this LLVM was built with NVPTX")
}

/// The name of a kernel's entry: its symbol in the letters PTX allows.
#[must_use]
pub fn entry_name(symbol: &str) -> String {
    symbol.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
