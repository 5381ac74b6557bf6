//! One launch of a kernel, recorded: what it was given, what the simulator made of it, what its twin says.
//!
//! ```text
//! NAME.case    bytes of the head (u32), the head as JSON, then what the head says is there:
//!              inputs of buffers that have any, the simulator's outputs, the twin's values (f32)
//! FILE.ptx     the text, one file for all cases of a kernel
//! ```

use std::fs;
use std::io;
use std::path::Path;

use sail_ir::plan::Cuda;
use serde::{Deserialize, Serialize};

/// What a case says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The kernel's symbol and family.
    pub symbol: String,
    pub family: String,
    pub target: String,
    /// Name of the file with the PTX.
    pub ptx: String,
    pub cuda: Cuda,
    /// Rows of each of its tensor maps.
    pub map_rows: Vec<u64>,
    pub blocks: u32,
    /// First words of the control block.
    pub control: Vec<u32>,
    pub buffers: Vec<Buffer>,
    /// Absent: what is written is the simulator's to the bit.
    pub approximate: Option<Approximate>,
    pub twin: Option<Twin>,
}

/// An argument of the kernel, in the order that it takes them: those of its op, then what it works in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buffer {
    pub bytes: u64,
    /// The same byte everywhere before the launch; the bytes stand in the file otherwise.
    pub uniform: Option<u8>,
    pub role: Role,
}

/// What a kernel does with an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Only read: as it was, after the launch.
    Read,
    /// Written: the simulator's bytes stand in the file.
    Written,
    /// What blocks leave for each other. Any content before the launch, and nothing to compare after it.
    Scratch,
    /// What blocks count themselves with: zeros before the launch, and zeros again after it.
    Counters,
}

/// What the twin says of one buffer, which holds bf16, and how near a value must be:
/// `|got - want| <= relative · |want| + absolute · rms(want)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Twin {
    pub buffer: usize,
    pub values: u64,
    pub relative: f64,
    pub absolute: f64,
}

/// How far what a kernel writes, which is bf16, may be from the simulator's where it asks for functions that
/// hardware approximates: `steps` from one bf16 to the next; or, where values are small, as much as `steps`
/// are at `floor · rms(output)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approximate {
    pub steps: u32,
    pub floor: f64,
}

/// A head with all it speaks of.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub head: Head,
    /// Buffers before the launch.
    pub before: Vec<Vec<u8>>,
    /// Those that are written, after it, by the simulator; `None` of others.
    pub after: Vec<Option<Vec<u8>>>,
    pub twin: Vec<f32>,
}

impl Case {
    /// Refuses what the file system refuses.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let head = serde_json::to_vec(&self.head)?;
        let length = u32::try_from(head.len()).map_err(io::Error::other)?;
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(head);
        let stored = self.head.buffers.iter().zip(&self.before);
        stored
            .filter(|(buffer, _)| buffer.uniform.is_none())
            .for_each(|(_, input)| bytes.extend(input));
        self.after.iter().flatten().for_each(|output| bytes.extend(output));
        self.twin.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        fs::write(path, bytes)
    }

    /// Refuses what the file system refuses, and a file that is not one of these.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let mut rest = bytes.as_slice();
        let mut take = |count: u64| {
            let count = usize::try_from(count).map_err(io::Error::other)?;
            let (taken, others) = rest
                .split_at_checked(count)
                .ok_or_else(|| io::Error::other("the case is cut short"))?;
            rest = others;
            Ok::<_, io::Error>(taken.to_vec())
        };
        let length = take(4)?;
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
        let head: Head = serde_json::from_slice(&take(length.into())?)?;
        let before = head.buffers.iter().map(|buffer| match buffer.uniform {
            Some(byte) => Ok(vec![byte; usize::try_from(buffer.bytes).map_err(io::Error::other)?]),
            None => take(buffer.bytes),
        });
        let before = before.collect::<io::Result<_>>()?;
        let after = head.buffers.iter().map(|buffer| match buffer.role {
            Role::Written => take(buffer.bytes).map(Some),
            Role::Read | Role::Scratch | Role::Counters => Ok(None),
        });
        let after = after.collect::<io::Result<_>>()?;
        let values = head.twin.as_ref().map_or(0, |twin| twin.values);
        let twin = take(values.saturating_mul(4))?;
        let twin = twin.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        match rest.is_empty() {
            true => Ok(Self { head, before, after, twin }),
            false => Err(io::Error::other("the case has bytes at its end that nobody speaks of")),
        }
    }
}
