//! One safetensors file: eight bytes of length, a header of JSON, then the tensors' bytes.
//!
//! Bytes are read where and when they are asked for. The file is not mapped: a disk that fails or
//! a file that another process shortens then is an error with a name, not the end of the process,
//! and this crate needs no `unsafe`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde_json::error::Category;

use crate::error::ModelError;
use crate::hf_config::words;
use crate::index::Pairs;

/// Largest header that is read, as in the safetensors library.
const HEADER_BYTES: u64 = 100_000_000;
/// Longest tensor name; the longest published one has 68 characters.
const NAME_BYTES: usize = 512;
/// Most dimensions of a tensor; the published ones have up to 4.
const DIMENSIONS: usize = 8;

/// An open safetensors file, whose header has been read and found whole.
#[derive(Debug)]
pub struct Shard {
    /// The file's name without its folder.
    pub name: String,
    path: PathBuf,
    file: File,
}

/// One tensor of a shard.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    /// First byte, and the byte after the last, counted from the start of the file.
    pub start: u64,
    pub end: u64,
}

impl Shard {
    /// Open `dir/name` and read its header; the tensors are in the order of their bytes.
    ///
    /// A link is followed: download caches are made of links.
    ///
    /// Refuses what is not an ordinary file, a header that is cut short, too long, not JSON of the
    /// right shape, or has a name twice, and tensors that overlap, leave gaps, do not have the
    /// bytes of their shape, or do not fill the file.
    pub fn open(dir: &Path, name: &str) -> Result<(Self, Vec<Entry>), ModelError> {
        let path = dir.join(name);
        let unreadable = |error: io::Error| ModelError::read(&path, &error);
        let facts = fs::metadata(&path).map_err(unreadable)?;
        if !facts.is_file() {
            let because = "it is not an ordinary file".to_owned();
            return Err(ModelError::Read { path, because });
        }
        let file = File::open(&path).map_err(unreadable)?;
        let entries = Head { shard: name, file: &file, bytes: facts.len() }
            .read()
            .map_err(|error| error.unwrap_or_else(unreadable))?;
        Ok((Self { name: name.to_owned(), path, file }, entries))
    }

    /// Fill `out` with the bytes from byte `at` of the file on.
    pub fn read_at(&self, at: u64, out: &mut [u8]) -> Result<(), ModelError> {
        self.file.read_exact_at(out, at).map_err(|error| ModelError::read(&self.path, &error))
    }
}

/// What the header is read from.
struct Head<'a> {
    shard: &'a str,
    file: &'a File,
    bytes: u64,
}

/// Either the file cannot be read, or what was read is refused.
enum Fault {
    Io(io::Error),
    Refused(ModelError),
}

impl Fault {
    fn unwrap_or_else(self, io: impl FnOnce(io::Error) -> ModelError) -> ModelError {
        match self {
            Self::Io(error) => io(error),
            Self::Refused(error) => error,
        }
    }
}

impl Head<'_> {
    fn read(&self) -> Result<Vec<Entry>, Fault> {
        let length = self.length()?;
        let mut json = vec![0; length as usize];
        self.file.read_exact_at(&mut json, 8).map_err(Fault::Io)?;
        let pairs: Pairs<TensorInfo> = serde_json::from_slice(&json).map_err(|error| {
            self.damaged(match error.classify() {
                Category::Data => format!("its header says: {}", words(&error)),
                _ => format!("its header is not JSON: {error}"),
            })
        })?;
        let entries = pairs.0.into_iter().map(|(name, info)| entry(name, info, 8 + length));
        let mut entries: Vec<Entry> =
            entries.collect::<Result<_, _>>().map_err(|because| self.damaged(because))?;
        let end = fills(&mut entries, 8 + length).map_err(|because| self.damaged(because))?;
        match end.cmp(&self.bytes) {
            std::cmp::Ordering::Greater => Err(self.truncated(end)),
            std::cmp::Ordering::Less => {
                Err(self.damaged(format!("its tensors end at byte {end} of {}", self.bytes)))
            }
            std::cmp::Ordering::Equal => Ok(entries),
        }
    }

    /// Bytes of the header, all of which are there.
    fn length(&self) -> Result<u64, Fault> {
        if self.bytes < 8 {
            return Err(self.truncated(8));
        }
        let mut length = [0; 8];
        self.file.read_exact_at(&mut length, 0).map_err(Fault::Io)?;
        if &length == b"version " {
            let because = "it is a pointer of git-lfs; `git lfs pull` gets what it points to";
            return Err(self.damaged(because.to_owned()));
        }
        let length = u64::from_le_bytes(length);
        match length {
            HEADER_BYTES.. => Err(self.damaged(format!("its header would have {length} bytes"))),
            _ if 8 + length > self.bytes => Err(self.truncated(8 + length)),
            _ => Ok(length),
        }
    }

    fn damaged(&self, because: String) -> Fault {
        Fault::Refused(ModelError::Header { shard: self.shard.to_owned(), because })
    }

    fn truncated(&self, needs: u64) -> Fault {
        let shard = self.shard.to_owned();
        Fault::Refused(ModelError::Truncated { shard, needs, has: self.bytes })
    }
}

/// One tensor with its place in the file, whose data begin at byte `data`.
fn entry(name: String, info: TensorInfo, data: u64) -> Result<Entry, String> {
    if name.len() > NAME_BYTES || name.chars().any(char::is_control) {
        return Err(format!("{} is not a tensor name", crate::error::quoted(&name)));
    }
    let TensorInfo { dtype, shape, data_offsets: (start, end) } = info;
    if shape.len() > DIMENSIONS {
        return Err(format!("tensor `{name}` has {} dimensions", shape.len()));
    }
    let bits = shape.iter().try_fold(dtype.bitsize(), |bits, &size| bits.checked_mul(size));
    let bytes = end.checked_sub(start);
    let place = |offset: usize| data.checked_add(offset as u64);
    match (place(start), place(end)) {
        (Some(start), Some(end))
            if bits.is_some() && bits == bytes.and_then(|bytes| bytes.checked_mul(8)) =>
        {
            let shape = shape.into_iter().map(|size| size as u64).collect();
            Ok(Entry { name, dtype, shape, start, end })
        }
        _ => Err(format!(
            "tensor `{name}` has shape {shape:?} of {dtype:?} and bytes {start} to {end}"
        )),
    }
}

/// The byte after the last tensor, when each begins where the one before it ends.
fn fills(entries: &mut [Entry], data: u64) -> Result<u64, String> {
    entries.sort_by_key(|entry| (entry.start, entry.end));
    let mut at = data;
    for entry in entries {
        if entry.start != at {
            return Err(format!(
                "tensor `{}` begins at byte {}, the one before it ends at {at}",
                entry.name, entry.start
            ));
        }
        at = entry.end;
    }
    Ok(at)
}

#[cfg(test)]
mod tests;
