//! SAIL-VL2: vision tower, adapter, and a dense or mixture-of-experts Qwen3 decoder.

pub mod config;
pub mod names;

pub mod adapter;
pub mod decoder;
pub mod forward;
pub mod prompt;
pub mod vision;

use crate::Family;

/// The row of [`crate::MODELS`].
pub const FAMILY: Family = Family {
    name: "sail-vl2",
    model_type: "sailvl",
    spec: config::spec,
    tensors: names::tensors,
    tied: [names::EMBEDDING, names::HEAD],
};
