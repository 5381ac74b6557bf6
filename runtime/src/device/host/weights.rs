//! The artifact's weights in memory: in the file's own pages, or copied to large ones.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::slice;
use std::thread;

use sail_ir::artifact::{Artifact, Fill, Recipe};

use super::memory::{Memory, plain};
use crate::device::DeviceError;
use crate::device::error::WEIGHTS;

/// Where weights are while a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightsMemory {
    /// In the pages of the file, shared with every other process that runs it: ready at once. When
    /// somebody shortens the file meanwhile, the system ends the process (`SIGBUS`).
    #[default]
    Map,
    /// Copied to large pages of our own, where the system has them: loading takes as long as copying,
    /// reading is up to a fifth faster than from a file that lies in small ones. An artifact as the
    /// compiler wrote it lies in large ones, where the file system has such.
    Huge,
}

/// Bytes copied in one go.
const COPY_BYTES: usize = 16 << 20;

/// All weights, read only from here on.
pub(super) enum Weights {
    Mapped(memmap2::Mmap),
    /// Or made, when the file has no bytes of them.
    Copied(Memory),
}

impl Weights {
    /// Refuses what the system refuses.
    pub fn new(
        artifact: &Artifact,
        memory: WeightsMemory,
        threads: usize,
    ) -> Result<Self, DeviceError> {
        if let Some(recipe) = artifact.recipe() {
            return make(recipe, threads);
        }
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

/// Weights that the file holds no bytes of.
fn make(recipe: &Recipe, threads: usize) -> Result<Weights, DeviceError> {
    let memory = Memory::new(WEIGHTS, recipe.bytes)?;
    let (start, length) = memory.parts::<u8>();
    // SAFETY: the memory was made above and nobody else knows of it.
    let all = unsafe { slice::from_raw_parts_mut(start, length) };
    let part = length.div_ceil(threads.max(1)).next_multiple_of(COPY_BYTES);
    thread::scope(|scope| {
        for (index, part_of_all) in all.chunks_mut(part).enumerate() {
            let from = (index * part) as u64;
            scope.spawn(move || {
                recipe.fills.iter().for_each(|fill| write_part(fill, from, part_of_all));
            });
        }
    });
    Ok(Weights::Copied(memory))
}

/// The words of `fill` that stand in `bytes`, which begin at byte `from` of the weights and end
/// between two words.
fn write_part(fill: &Fill, from: u64, bytes: &mut [u8]) {
    const WORD_BYTES: usize = 4;
    let end = from + bytes.len() as u64;
    let words_of_row = fill.used / WORD_BYTES as u64;
    let first = from.saturating_sub(fill.offset) / fill.pitch;
    let last = end.saturating_sub(fill.offset).div_ceil(fill.pitch).min(fill.rows);
    for index in first * words_of_row..last * words_of_row {
        let place = fill.offset + fill.place(index);
        if (from..end).contains(&place) {
            let at = (place - from) as usize;
            bytes[at..at + WORD_BYTES].copy_from_slice(&fill.word(index).to_le_bytes());
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
    // Advice; the mapping works without it. What is read from the disk comes in large pages, where the
    // file system has such.
    let _ = map.advise(memmap2::Advice::HugePage);
    let _ = map.advise(memmap2::Advice::WillNeed);
    Ok(Weights::Mapped(map))
}

fn copy(file: &File, offset: u64, bytes: u64, threads: usize) -> Result<Weights, DeviceError> {
    let memory = Memory::new(WEIGHTS, bytes)?;
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

#[cfg(test)]
mod tests {
    use sail_ir::artifact::Values;

    use super::*;

    #[test]
    fn parts_of_made_weights_are_those_of_the_whole() {
        let fill = |offset, used, values| Fill { offset, rows: 7, pitch: 40, used, key: 3, values };
        let fills = [fill(8, 28, Values::bell(0.0, 1.0)), fill(36, 12, Values::same(5))];
        let mut whole = vec![0; 300];
        fills.iter().for_each(|fill| write_part(fill, 0, &mut whole));
        for fill in &fills {
            for index in 0..fill.words() {
                let at = (fill.offset + fill.place(index)) as usize;
                assert_eq!(whole[at..at + 4], fill.word(index).to_le_bytes());
            }
        }
        assert_eq!(whole[..8], [0; 8]);
        assert_eq!(whole[8 + 7 * 40..], [0; 12]);
        for part in [4, 12, 52, 100] {
            let mut parts = vec![0; 300];
            for (index, part_of_all) in parts.chunks_mut(part).enumerate() {
                let from = (index * part) as u64;
                fills.iter().for_each(|fill| write_part(fill, from, part_of_all));
            }
            assert_eq!(parts, whole, "{part}");
        }
    }
}
