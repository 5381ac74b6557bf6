//! From a sealed `kernels` module to the plan that the runtime carries out.

pub mod order;
pub mod place;
