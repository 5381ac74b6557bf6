//! Carries out a `.sail` file: picture and question in, answer out.

pub mod cache;
pub mod cli;
pub mod device;
mod error;
pub mod execute;
pub mod experts;
pub mod image;
pub mod program;
pub mod sample;
pub mod session;
pub mod taps;
pub mod text;
pub mod trace;

#[cfg(test)]
mod fixtures;

pub use error::{ContextError, RunError};
pub use program::{DeviceKind, Options, Program, WeightsMemory};
pub use session::{Answer, End, Event, Input, Picture, Request, Session};
