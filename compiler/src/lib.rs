//! The compiler: from a checked model to one `.sail` file. Start reading at `pipeline.rs`.

pub mod calibrate;
pub mod cli;
pub mod codes;
pub mod dialect;
pub mod error;
pub mod golden;
pub mod import;
pub mod link;
pub mod lock;
pub mod manifest;
mod names;
pub mod options;
pub mod passes;
pub mod pipeline;
pub mod placement;
pub mod plan;
pub mod quality;
pub mod recipe;
pub mod rewrite;
pub mod stage;
pub mod tune;
pub mod verify;
pub mod view;
