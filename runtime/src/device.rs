//! What carries out a program: one trait, and one module for each kind of device.
//!
//! The only `unsafe` code of the runtime stands under this module; each kind of device is behind
//! [`Device`], whose methods are safe because the plan was verified before a device sees it and
//! every call is checked against the [`Layout`] it was made for.
//!
//! A device owns all memory that kernels touch: arena, cache pool, control block, pictures,
//! features, logits and taps. All of it is allocated when the device is made; carrying out calls
//! allocates nothing.

pub mod cuda;
mod error;
pub mod host;
mod layout;
pub mod null;
pub mod probe;
pub mod signal;

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use half::bf16;
use sail_ir::id::BufferId;

use crate::trace::Limits;

pub use error::DeviceError;
pub use layout::{Capacity, ControlLayout, Layout};

/// One call of a function of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Index into `Plan::functions`.
    pub function: usize,
    /// Index into `Function::classes`.
    pub class: usize,
    /// Rows of (slot, position).
    pub tokens: u32,
    /// Image tiles.
    pub images: u32,
    /// Rows whose logits are wanted.
    pub outputs: u32,
}

/// What a row chose where there is nothing to choose.
pub const NOTHING: u32 = i32::MAX.cast_unsigned();

/// When a step of the last call ran, in nanoseconds since the call began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepTime {
    /// When the first thread started on it.
    pub start: u64,
    /// When the last thread was done with it.
    pub end: u64,
    /// Time that all threads together spent on it.
    pub busy: u64,
}

/// Something that carries out the functions of one program.
///
/// What the caller fills before a call: the control block, and the pictures for `vision`. What it
/// reads after one: logits, features, taps. All of it stays where it is between calls.
pub trait Device: Send {
    /// What this is, for people: `host, 2 threads`.
    fn describe(&self) -> String;

    /// What works but not as it was meant to, and why.
    fn remark(&self) -> Option<String> {
        None
    }

    /// The control block in words, laid out as [`ControlLayout`] says.
    fn control(&mut self) -> &mut [u32];

    /// Pictures for the next call of `vision`, `[n, c, s, s]`; room for its largest class.
    fn pixels(&mut self) -> &mut [bf16];

    /// Carry out launches of a call, in order from the first, and wait for their end.
    ///
    /// All of them at once, or a few at a time with the call unchanged: in between, values can be
    /// looked at and changed ([`Self::scratch`]).
    ///
    /// Refuses nothing that the plan and the layout allow. Gives up with
    /// [`DeviceError::Interrupted`] soon after `stop` is set; what was written until then is
    /// undefined.
    ///
    /// # Panics
    ///
    /// When the call does not fit the class or the layout: the executor checks both.
    fn run(
        &mut self,
        call: &Call,
        launches: Range<usize>,
        stop: &AtomicBool,
    ) -> Result<(), DeviceError>;

    /// Calls in a row that this device carries out by itself, each with the tokens that the one before
    /// chose; 0 where the caller chooses.
    fn most_ahead(&self) -> u32 {
        0
    }

    /// Carry out a call of `decode` `times` times, from the second on with what the rows chose, one
    /// position further; wait for the end of all. The control block says of each output how its tokens
    /// are drawn.
    ///
    /// # Panics
    ///
    /// When that is more than [`Self::most_ahead`], or as [`Self::run`].
    fn run_ahead(
        &mut self,
        _call: &Call,
        times: u32,
        _stop: &AtomicBool,
    ) -> Result<(), DeviceError> {
        panic!("broken invariant `ahead.most`: {times} calls")
    }

    /// A bit for each token of the history of each output, in whole words, as the next
    /// [`Self::run_ahead`] shall find it; no words where the device draws no tokens. Only where there is a
    /// penalty does a draw look there.
    fn seen(&mut self) -> &mut [u32] {
        &mut []
    }

    /// Two words for each output of each of those calls: the token that was chosen, and the first one
    /// whose logit is none; [`NOTHING`] for either where there is none.
    fn chosen(&self) -> &[u32] {
        &[]
    }

    /// The call's rows of a bf16 buffer in the arena, between two launches of the call; the next
    /// launch reads what the caller leaves there.
    ///
    /// Refuses what a device refuses that has to copy them.
    ///
    /// # Panics
    ///
    /// When the buffer is not a bf16 buffer of the arena.
    fn scratch(&mut self, call: &Call, buffer: BufferId) -> Result<&mut [bf16], DeviceError>;

    /// Keep the features of the last call of `vision` (`tiles` of them) as those of the image
    /// tiles `first ..`, where `prefill` finds them.
    fn keep_features(&mut self, first: u32, tiles: u32) -> Result<(), DeviceError>;

    /// Kept features, `[n, p/4, d]`.
    fn features(&self) -> &[bf16];

    /// Logits of the last call, `[outputs, v]`.
    fn logits(&self) -> &[bf16];

    /// What tap number `index` of the layout holds after the last call.
    fn tap(&self, index: usize) -> &[f32];

    /// Choice number `index` of the layout, as the last call left it: the experts of each row.
    fn choice(&self, index: usize) -> &[u32];

    /// Times of the last call's steps, in the order of the function; empty unless asked for when
    /// the device was made.
    fn times(&self) -> &[StepTime];

    /// From here on, take the times of steps or leave them; whether leaving them makes a call faster.
    ///
    /// Where it does not (the default), they are always taken if they were asked for when the device
    /// was made, and this changes nothing.
    fn want_times(&mut self, _wanted: bool) -> bool {
        false
    }

    /// What it can do at best, when it can tell; `None` where the processor of this machine computes.
    fn limits(&mut self) -> Option<Result<Limits, DeviceError>> {
        None
    }
}
