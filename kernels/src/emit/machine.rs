//! Optimising and printing a module, the same for every target machine.

use inkwell::module::Module;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{FileType, TargetMachine};

/// Optimisation of the module; vectors and unrolling are the kernels' own business.
const PASSES: &str = "default<O2>";

/// Optimise a module in place. The message is LLVM's.
pub(crate) fn optimise(module: &Module<'_>, machine: &TargetMachine) -> Result<(), String> {
    let options = PassBuilderOptions::create();
    options.set_loop_vectorization(false);
    options.set_loop_slp_vectorization(false);
    options.set_loop_unrolling(false);
    options.set_loop_interleaving(false);
    module.set_triple(&machine.get_triple());
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    module.verify().map_err(|message| message.to_string())?;
    module.run_passes(PASSES, machine, options).map_err(|message| message.to_string())
}

/// The object file or the assembly text of an optimised module.
pub(crate) fn print(
    module: &Module<'_>,
    machine: &TargetMachine,
    kind: FileType,
) -> Result<Vec<u8>, String> {
    let buffer =
        machine.write_to_memory_buffer(module, kind).map_err(|message| message.to_string())?;
    Ok(buffer.as_slice().to_vec())
}
