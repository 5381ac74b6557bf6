//! Kernels of the vision tower that only move values: patches and the pixel shuffle.

pub mod patches;
pub mod pixel_shuffle;

pub use patches::Patches;
pub use pixel_shuffle::PixelShuffle;
