//! Kernels of a mixture of experts: the router, the sorting of rows by expert, the products of the
//! sorted rows, the sum.
//!
//! A *pair* is a (token, choice): pair `t·k + j` is choice `j` of token `t`.

mod choice;
mod combine;
mod group_by_expert;
mod grouped;
mod grouped_nvptx;
mod linear_route;
mod nvptx;
mod route;
mod router;
#[cfg(test)]
mod router_tests;
mod sorting;

pub use combine::Combine;
pub use group_by_expert::GroupByExpert;
pub use grouped::{CALL_TOKENS, Grouped, GroupedProblem, GroupedProduct};
pub use linear_route::LinearRoute;
pub use route::Route;
pub use router::{Router, RouterProblem};
