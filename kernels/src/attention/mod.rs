//! Attention, and what stands between it and the q/k/v product: head norm, RoPE, the paged cache.
//!
//! [`page`] says where a key or a value stands; [`softmax_page`] is the inner kernel that prefill,
//! decode and the vision tower share.

pub mod cache_write;
mod flash;
mod flash_alone;
mod flash_block;
mod flash_join;
mod flash_run;
#[cfg(test)]
mod flash_tests;
mod heads;
mod int8;
pub mod nvptx;
pub mod page;
pub mod paged;
pub mod qk_norm_rope_write;
pub mod rope;
mod softmax_bytes;
mod softmax_page;
pub mod tile;
mod wgmma;

pub use cache_write::CacheWrite;
pub use nvptx::{PlainPage, PlainPool};
pub use page::PageLayout;
pub use paged::Attention;
pub use qk_norm_rope_write::QkNormRopeWrite;
pub use rope::{Rope, rope_table};
pub use tile::TileAttention;
