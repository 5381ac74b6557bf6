//! The `.sail` file: what the compiler writes and the runtime opens.
//!
//! ```text
//! byte 0      header     one page, see [`header`]: magic, format, length, where the manifest is
//!      4096   sections   tokenizer, code, cubin, chat template, weights or a recipe for them; each
//!                        on a new page
//!      …      manifest   canonical JSON, on a new page; the last thing in the file
//! ```
//!
//! Everything is little endian. The gap before a new page is filled with zeros; there is no other
//! padding, so every byte of a file is either hashed or checked to be zero. The header's root hash
//! covers the header, which holds the manifest's hash, which holds the sections' hashes: whoever
//! knows the root knows the whole file. Nothing in a file depends on a path, a clock or a thread
//! count, so two compiles of the same input are the same bytes.
//!
//! [`ArtifactWriter`] writes one, streaming. [`Artifact::open`] reads one and is safe for
//! arbitrary bytes: lengths are checked against the file's before anything is allocated, hashes
//! before anything is believed. [`check`] says whether a machine may run what was read.

mod check;
mod chunks;
mod error;
mod header;
mod launches;
mod manifest;
mod quality;
mod read;
mod recipe;
mod write;

pub use check::{Incompatible, Machine, check};
pub use error::ArtifactError;
pub use header::{FORMAT, HEADER_BYTES, MAGIC};
pub use manifest::{
    BuiltWith, CudaCode, DecoderCard, ExpertsCard, Generation, KernelUsage, Manifest, ModelCard,
    PromptSpec, Section, SectionKind, Tiling, TokenIds, VisionCard,
};
pub use quality::{Decibels, Divergence, LayerQuality, Measured, Quality, WeightQuality};
pub use read::Artifact;
pub use recipe::{Fill, Recipe, Values};
pub use write::{ArtifactWriter, SectionWriter};

/// Sections, and the manifest, start at a multiple of this.
pub const PAGE_BYTES: u64 = 4096;

#[cfg(test)]
mod tests;
