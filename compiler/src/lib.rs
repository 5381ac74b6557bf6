//! The compiler: from a checked model to one `.sail` file. Start reading at `pipeline.rs`.

pub mod golden;
pub mod plan;
