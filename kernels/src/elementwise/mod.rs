//! Kernels that treat every value of a row alike.

pub mod add;
