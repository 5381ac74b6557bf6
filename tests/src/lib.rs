//! What the one test executable is built from; `house.rs` beside `src/` lists the tests.
//!
//! Modules in reading order: the harness runs tests and counts them, the expectations hold whole
//! outputs, the places say where fixtures and binaries are.

pub mod expectation;
pub mod harness;
pub mod interpreter;
pub mod oracle;
pub mod places;
