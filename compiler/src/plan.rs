//! From a sealed `kernels` module to the plan that the runtime carries out.
//!
//! Start at [`build`].

pub mod bounds;
pub mod build;
mod cache;
pub(crate) mod choose;
pub mod explain;
mod flat;
#[cfg(test)]
mod gpu_tests;
mod label;
mod order;
mod place;
pub mod text;
pub mod weights;
