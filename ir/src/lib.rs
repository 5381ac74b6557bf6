//! The words every crate of the house uses: types, op rows, the plan and the file format.
//!
//! Pure Rust: no MLIR, no LLVM, no device. Modules in reading order.

pub mod help;

pub use help::Help;
