//! Weights that the file holds no bytes of: made in the GPU's memory by the kernel of their recipe.

use sail_ir::artifact::{Fill, Recipe};

use super::code::Code;
use super::memory::{DeviceMemory, Pinned};
use super::stream::Stream;
use super::table::Launch;
use crate::device::DeviceError;
use crate::device::error::WEIGHTS;

/// Bytes of one fill's job.
const JOB_BYTES: u64 = 4 * Fill::JOB_WORDS as u64;

/// All weights of `recipe`, in memory of the GPU when this returns.
///
/// Refuses what the driver refuses.
pub(super) fn weights(
    recipe: &Recipe,
    code: &Code,
    stream: &Stream,
) -> Result<DeviceMemory, DeviceError> {
    let context = stream.context();
    let kernel = recipe.kernel.as_ref();
    let kernel = kernel.expect("broken invariant `recipe.kernel`: none for a GPU");
    let entry = code.entry(kernel)?;
    let memory = DeviceMemory::new(context, WEIGHTS, recipe.bytes)?;
    memory.zero(stream)?;
    let count = recipe.fills.len() as u64 * Fill::JOB_WORDS as u64;
    let mut words = Pinned::new(context, "what weights are made of", count)?;
    let places = words.values_mut().chunks_exact_mut(Fill::JOB_WORDS);
    for (fill, place) in recipe.fills.iter().zip(places) {
        place.copy_from_slice(&fill.job());
    }
    let jobs = DeviceMemory::new(context, "what weights are made of", 4 * count)?;
    jobs.write(0, &words, words.values().len(), stream)?;
    for (fill, at) in recipe.fills.iter().zip((0..).step_by(JOB_BYTES as usize)) {
        let blocks = fill.words().div_ceil(u64::from(kernel.threads));
        let blocks = u32::try_from(blocks).expect("broken invariant `recipe.words`: checked");
        let job = jobs.at(at);
        // The kernel takes a control block, as all do, and does not look at it.
        let pointers = [memory.at(fill.offset), job, job];
        Launch::alone(entry, kernel, blocks, &pointers).ask(stream)?;
    }
    stream.wait("make weights")?;
    Ok(memory)
}
