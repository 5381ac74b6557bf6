//! The artifact's weights in memory: in the file's own pages, or copied to large ones.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::slice;
use std::thread;

use sail_ir::artifact::Artifact;

use super::memory::{Memory, plain};
use crate::device::DeviceError;

/// Where weights are while a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightsMemory {
    /// In the pages of the file, shared with every other process that runs it: ready at once. When
    /// somebody shortens the file meanwhile, the system ends the process (`SIGBUS`).
    #[default]
    Map,
    /// Copied to large pages of our own, where the system has them: reading is up to a fifth
    /// faster, loading takes as long as copying.
    Huge,
}

/// Bytes copied in one go.
const COPY_BYTES: usize = 16 << 20;

/// All weights, read only from here on.
pub(super) enum Weights {
    Mapped(memmap2::Mmap),
    Copied(Memory),
}

impl Weights {
    /// Refuses what the system refuses.
    pub fn new(
        artifact: &Artifact,
        memory: WeightsMemory,
        threads: usize,
    ) -> Result<Self, DeviceError> {
        let section = artifact.weights();
        match memory {
            WeightsMemory::Map => map(artifact.file(), section.offset, section.bytes),
            WeightsMemory::Huge => copy(artifact.file(), section.offset, section.bytes, threads),
        }
    }

    /// The byte at `offset`.
    ///
    /// # Panics
    ///
    /// When that is beyond the end; `Plan::verify_inside` has refused such a weight.
    pub fn at(&self, offset: u64) -> *mut u8 {
        match self {
            // Kernels take one kind of pointer; the plan's rules keep them from writing through it.
            Self::Mapped(map) => {
                let offset =
                    usize::try_from(offset).expect("broken invariant `weights.inside`: offset");
                std::ptr::from_ref(&map[offset]).cast_mut()
            }
            Self::Copied(memory) => memory.at(offset),
        }
    }
}

fn map(file: &File, offset: u64, bytes: u64) -> Result<Weights, DeviceError> {
    let refuse = |because: String| DeviceError::Map { because };
    let length = usize::try_from(bytes).map_err(|_| refuse("no such size".to_owned()))?;
    let mut options = memmap2::MmapOptions::new();
    options.offset(offset).len(length);
    // SAFETY: the mapping is read only. Other programs may change the file while it is mapped; the
    // bytes are only numbers to kernels, so that changes answers, not control flow.
    let map = unsafe { options.map(file) };
    let map = map.map_err(|error| refuse(plain(&error)))?;
    // Advice; the mapping works without it.
    let _ = map.advise(memmap2::Advice::WillNeed);
    Ok(Weights::Mapped(map))
}

fn copy(file: &File, offset: u64, bytes: u64, threads: usize) -> Result<Weights, DeviceError> {
    let memory = Memory::new("the weights", bytes)?;
    let (start, length) = memory.parts::<u8>();
    // SAFETY: the memory was made above and nobody else knows of it.
    let all = unsafe { slice::from_raw_parts_mut(start, length) };
    let part = length.div_ceil(threads).next_multiple_of(COPY_BYTES);
    let read = |index: usize, into: &mut [u8]| {
        let from = offset + (index * part) as u64;
        let mut pieces = into.chunks_mut(COPY_BYTES).zip((from..).step_by(COPY_BYTES));
        pieces.try_for_each(|(piece, from)| file.read_exact_at(piece, from))
    };
    let copied = thread::scope(|scope| {
        let parts = all.chunks_mut(part.max(1)).enumerate();
        let readers: Vec<_> =
            parts.map(|(index, into)| scope.spawn(move || read(index, into))).collect();
        readers.into_iter().try_for_each(|reader| {
            reader.join().unwrap_or_else(|_| Err(io::Error::other("a reader of weights panicked")))
        })
    });
    copied.map_err(|error| DeviceError::Map { because: plain(&error) })?;
    Ok(Weights::Copied(memory))
}
