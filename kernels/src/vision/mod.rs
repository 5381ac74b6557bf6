//! Kernels of the vision tower alone.

mod nvptx;
mod patch_embed;
mod patches;
mod pixel_shuffle;

pub use patch_embed::{PatchEmbed, PatchEmbedProblem};
pub use patches::Patches;
pub use pixel_shuffle::PixelShuffle;
