//! Every kernel template: problem, config, generated code, scalar twin, cost.
//!
//! Start with [`kernel`] (what a kernel is), then [`elementwise::add`] (the smallest whole one),
//! then [`emit`] (the builder it is written with). This crate sees no graph and no model.

pub mod attention;
pub mod config;
pub mod cost;
pub mod elementwise;
pub mod emit;
pub mod experts;
pub mod gpu;
pub mod gpu_model;
pub mod kernel;
pub mod linear;
pub mod norm;
pub mod packing;
pub mod ptx;
pub mod ptxas;
pub mod reference;
pub mod rows;
pub mod sample;
pub mod table;
pub mod vision;

pub use config::{Config, Operand, Parameter, Shaped};
pub use kernel::{Code, EmitError, Kernel, Rows, assembly, compile, llvm_ir};
pub use table::{KERNELS, Template, Tolerance};

/// The version of LLVM that generates the code: `22.1.8`.
#[must_use]
pub fn llvm_version() -> String {
    let (major, minor, patch) = inkwell::support::get_llvm_version();
    format!("{major}.{minor}.{patch}")
}
