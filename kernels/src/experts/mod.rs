//! Kernels around the experts' products: the router, the sorting of rows by expert, the sum.
//!
//! A *pair* is a (token, choice): pair `t·k + j` is choice `j` of token `t`.

pub mod combine;
pub mod group_by_expert;
pub mod route;

pub use combine::Combine;
pub use group_by_expert::GroupByExpert;
pub use route::{LinearRoute, Route};
