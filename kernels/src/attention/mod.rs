//! Attention, and what stands between it and the q/k/v product: head norm, RoPE, the paged cache.
//!
//! [`page`] says where a key or a value stands; [`softmax_page`] is the inner kernel that prefill,
//! decode and the vision tower share.

pub mod cache_write;
pub mod page;
pub mod paged;
pub mod qk_norm_rope_write;
pub mod rope;
mod softmax_page;
pub mod tile;

pub use cache_write::CacheWrite;
pub use page::PageLayout;
pub use paged::Attention;
pub use qk_norm_rope_write::QkNormRopeWrite;
pub use rope::{Rope, rope_table};
pub use tile::TileAttention;

use crate::families::{BF16_STEP, Tolerance};

/// How far attention may be from its twin.
const SOFTMAX_TOLERANCE: Tolerance = Tolerance {
    of_value: BF16_STEP,
    of_scale: 1.2e-2,
    reason: "kernel and twin round each weight to bf16 against another largest score, which moves \
             a sum by 2^-9 of its terms' root mean square or so; 6 times that",
};
