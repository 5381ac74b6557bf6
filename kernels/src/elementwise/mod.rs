//! Kernels that treat every value of a row alike.
//!
//! Floor: every byte read once and written once.

pub mod activation;
pub mod add;
pub mod add_positions;
pub mod mul;
pub mod nvptx;

pub use activation::{Activation, Function};
pub use add::Add;
pub use add_positions::AddPositions;
pub use mul::Mul;

/// Rows of one work item of the kernels here.
const ROWS_PER_BLOCK: u32 = 16;
