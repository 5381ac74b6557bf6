//! What the one test executable is built from; `house.rs` beside `src/` lists the tests.
//!
//! The harness runs tests and counts them, expectations are whole outputs in files, places say where
//! fixtures and binaries are. The interpreter computes a model text in f64, the oracle runs whole
//! prompts with it, drawn are models of odd sizes, published those without weights.

pub mod compiled;
pub mod drawn;
pub mod expectation;
pub mod harness;
pub mod interpreter;
pub mod oracle;
pub mod places;
pub mod published;
pub mod recorded;
