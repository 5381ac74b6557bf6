//! The weights on their way from the file to the GPU: two pieces at a time, one being read while the
//! other is being copied.
//!
//! The file is hashed meanwhile by a thread of the program, from the same pages of the system.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;

use sail_ir::artifact::Artifact;

use super::driver::Context;
use super::memory::{DeviceMemory, Pinned};
use super::stream::{Event, Stream};
use crate::device::DeviceError;
use crate::device::error::WEIGHTS;
use crate::device::host::plain;

/// Bytes of a piece: long enough that beginning a copy costs nothing beside it.
const PIECE_BYTES: u64 = 8 << 20;

/// Threads that read a piece together.
const READERS: usize = 4;

/// All weights of `artifact`, in memory of the GPU when this returns.
///
/// Refuses what the driver and the file system refuse.
pub(super) fn weights(artifact: &Artifact, stream: &Stream) -> Result<DeviceMemory, DeviceError> {
    let context = stream.context();
    let section = artifact.weights();
    let memory = DeviceMemory::new(context, WEIGHTS, section.bytes)?;
    let mut halves = [Half::new(context, section.bytes)?, Half::new(context, section.bytes)?];
    let mut done = 0;
    let mut turn = 0;
    while done < section.bytes {
        let half = &mut halves[turn % 2];
        half.copied.wait("copy weights")?;
        let count = PIECE_BYTES.min(section.bytes - done) as usize; // at most a piece
        read(artifact.file(), section.offset + done, &mut half.bytes.values_mut()[..count])
            .map_err(|error| DeviceError::Map { because: plain(&error) })?;
        memory.write(done, &half.bytes, count, stream)?;
        half.copied.mark(stream)?;
        done += count as u64;
        turn += 1;
    }
    stream.wait("copy weights")?;
    Ok(memory)
}

/// A place for one piece.
struct Half {
    bytes: Pinned<u8>,
    copied: Event,
}

impl Half {
    fn new(context: &Arc<Context>, all: u64) -> Result<Self, DeviceError> {
        let bytes = Pinned::new(context, "a piece of the weights", PIECE_BYTES.min(all))?;
        Ok(Self { bytes, copied: Event::new(context, false)? })
    }
}

/// Fill `into` from `offset` of the file, by several threads where it is long.
fn read(file: &File, offset: u64, into: &mut [u8]) -> io::Result<()> {
    const WORTH_A_THREAD: usize = 1 << 20;
    let part = into.len().div_ceil(READERS).max(WORTH_A_THREAD);
    thread::scope(|scope| {
        let parts = into.chunks_mut(part).zip((offset..).step_by(part));
        let readers: Vec<_> = parts
            .map(|(part, offset)| scope.spawn(move || file.read_exact_at(part, offset)))
            .collect();
        readers.into_iter().try_for_each(|reader| {
            reader.join().unwrap_or_else(|_| Err(io::Error::other("a reader of weights panicked")))
        })
    })
}
