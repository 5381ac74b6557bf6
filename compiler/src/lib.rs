//! The compiler: from a checked model to one `.sail` file. Start reading at `pipeline.rs`.

pub mod dialect;
pub mod golden;
pub mod import;
mod names;
pub mod passes;
pub mod plan;
pub mod rewrite;
pub mod stage;
pub mod verify;
pub mod view;
