//! Executes PTX text on the CPU, strictly, so that CUDA kernels are tested without a GPU.
//!
//! ```
//! use sail_ptxsim::{Device, Launch, Module, Options};
//!
//! let text = ".version 8.0\n.target sm_80\n.address_size 64
//! .visible .entry twice(.param .u64 x) {
//!   .reg .b32 %r<3>; .reg .b64 %rd<4>;
//!   ld.param.b64 %rd1, [x];
//!   mov.u32 %r1, %tid.x;
//!   mul.wide.u32 %rd2, %r1, 4;
//!   add.s64 %rd3, %rd1, %rd2;
//!   ld.global.b32 %r2, [%rd3];
//!   add.s32 %r2, %r2, %r2;
//!   st.global.b32 [%rd3], %r2;
//!   ret;
//! }";
//! let module = Module::parse(text)?;
//! let mut device = Device::new();
//! let x = device.alloc(8);
//! device.write(x, &[1, 0, 0, 0, 5, 0, 0, 0])?;
//! let launch = Launch {
//!     grid: [1, 1, 1],
//!     block: [2, 1, 1],
//!     dynamic_shared: 0,
//!     params: &x.to_le_bytes(),
//!     options: Options::default(),
//! };
//! module.launch(&device, "twice", &launch)?;
//! assert_eq!(device.read(x, 8)?, [2, 0, 0, 0, 10, 0, 0, 0]);
//! # Ok::<(), sail_ptxsim::Fault>(())
//! ```

mod body;
mod code;
mod decode;
mod device;
mod fault;
mod flow;
mod hopper;
mod launch;
mod machine;
mod mutate;
mod order;
mod page;
mod parse;
mod product;
mod scalar;
mod shared;
mod tensor_map;
mod text;
mod warp;

pub use device::Device;
pub use fault::{Fault, Kind};
pub use launch::{Launch, Module, Options, Statistics};
pub use mutate::{Mutant, alone, mutants};
pub use tensor_map::{Swizzle, TensorMap};

#[cfg(test)]
mod tests;
