//! The words every crate of the house uses: types, op rows, the plan and the file format.
//!
//! Pure Rust: no MLIR, no LLVM, no device. Modules in reading order.

pub mod artifact;
pub mod draw;
pub mod dtype;
pub mod expert_profile;
pub mod graph_builder;
pub mod help;
pub mod id;
pub mod op;
pub mod ops;
pub mod output;
pub mod plan;
pub mod scheme;
pub mod shape;
pub mod target;

pub use dtype::DType;
pub use graph_builder::GraphBuilder;
pub use help::Help;
pub use scheme::{CacheScheme, Scheme};
pub use shape::{Dim, Type};
pub use target::Target;
