//! Every kernel template: problem, config, generated code, scalar twin, cost.
//!
//! Start with [`kernel`] (what a kernel is), then [`elementwise::add`] (the smallest whole one),
//! then [`emit`] (the builder it is written with). This crate sees no graph and no model.

pub mod attention;
pub mod cost;
pub mod elementwise;
pub mod emit;
pub mod experts;
pub mod families;
pub mod kernel;
pub mod norm;
pub mod reference;
pub mod rows;
pub mod vision;

pub use kernel::{Code, EmitError, Kernel, Rows, assembly, compile, llvm_ir};
