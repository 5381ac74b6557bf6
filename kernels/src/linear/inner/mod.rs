//! The sums of a few packed rows with one panel, by scheme: how a row lies in the thread's
//! workspace, and what one step of K is.

pub(super) mod bf16;
pub(super) mod bytes;
pub(super) mod int4;
pub(super) mod int8;
pub(super) mod int8_weight;
