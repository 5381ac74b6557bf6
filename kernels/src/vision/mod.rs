//! Kernels of the vision tower alone.

mod patch_embed;

pub use patch_embed::{PatchEmbed, PatchEmbedProblem};
