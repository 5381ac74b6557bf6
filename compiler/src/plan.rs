//! From a sealed `kernels` module to the plan that the runtime carries out.
//!
//! Start at [`build`].

pub mod build;
mod choose;
mod flat;
mod label;
mod order;
mod place;
pub mod text;
pub mod weights;
