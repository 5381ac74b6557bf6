//! A CUDA driver without a GPU: the entry points that the runtime calls, for tests.
//!
//! Built as a shared library and found as `libcuda.so.1`.

mod answer;
mod calls;
mod faults;
mod mutants;
mod pointer;
mod state;
