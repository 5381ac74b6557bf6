//! Stages of shared memory that a warpgroup has filled while two others multiply what is there, on `sm_90`.
//!
//! A stage has two barriers: `full` completes with its bytes, `empty` with an arrival of each warp that
//! multiplies. Who copies runs ahead by as many steps as there are stages.

use sail_ir::plan::TensorMap;
use sail_ir::target::Target;

use crate::emit::gpu::{WARP, WARPGROUP};
use crate::emit::{Builder, I32, Index, Ptr};
use crate::kernel::ThreadBlock;

/// Threads that multiply.
pub const MULTIPLYING: u32 = 2 * WARPGROUP;

/// Registers of a thread at its start, as many as all threads can have.
const AT_START: u32 = 168;

/// Registers of a thread that multiplies, and of one of a warpgroup of which one thread copies.
const REGISTERS: [u32; 2] = [232, 40];

/// Bytes of the barriers of a stage.
const BARRIERS: u64 = 16;

/// How many stages of how many bytes (a multiple of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stages {
    pub count: u64,
    pub bytes: u64,
}

impl Stages {
    /// Shared memory of a block, but for what is aligned.
    const SHARED_BYTES: u64 = 226 << 10;

    /// More steps than this on their way gain nothing.
    const MOST: u64 = 6;

    /// As many of `bytes` as fit `beside` others.
    pub fn of(bytes: u64, beside: u64) -> Self {
        let count = (Self::SHARED_BYTES - beside) / (bytes + BARRIERS);
        Self { count: count.min(Self::MOST), bytes }
    }

    /// A block that has them and `beside` other bytes of shared memory, for steps that these maps bring.
    pub fn block(self, tensor_maps: Vec<TensorMap>, beside: u64, target: &Target) -> ThreadBlock {
        let shared_bytes = self.count * (self.bytes + BARRIERS) + beside;
        ThreadBlock {
            tensor_maps,
            registers: AT_START,
            most_blocks: target.gpu().map_or(0, |gpu| gpu.processors),
            ..ThreadBlock::of(MULTIPLYING + WARPGROUP).with_shared(shared_bytes as u32)
        }
    }
}

/// The stages of a block.
#[derive(Clone, Copy)]
pub(crate) struct Ring<'c> {
    pub stages: Stages,
    /// The first stage; the others follow.
    pub place: Ptr<'c>,
    barriers: Ptr<'c>,
}

/// A stage in the turn of a step.
#[derive(Clone, Copy)]
pub(crate) struct Stage<'c> {
    pub place: Ptr<'c>,
    /// Completes with the stage's bytes.
    pub full: Ptr<'c>,
    empty: Ptr<'c>,
    /// Of the turn: 0 or 1.
    parity: I32<'c>,
}

impl<'c> Ring<'c> {
    /// Take the shared memory, and set up its barriers: a stage is full when `filling` have arrived. A
    /// barrier of the block must follow.
    pub fn carve(k: &mut Builder<'c>, stages: Stages, filling: u32) -> Self {
        let place = k.shared(stages.count * stages.bytes, 1024);
        let barriers = k.shared(stages.count * BARRIERS, 16);
        let (thread, zero) = (k.thread(), k.index(0));
        let one = k.equal(thread, zero);
        k.when(one, |k| {
            for stage in 0..stages.count {
                let full = k.at_bytes_constant(barriers, BARRIERS * stage);
                let empty = k.at_bytes_constant(full, 8);
                k.init_barrier(full, filling);
                k.init_barrier(empty, MULTIPLYING / WARP);
            }
            k.fence_barriers();
        });
        Self { stages, place, barriers }
    }

    /// Run `multiply` in the threads that multiply, `copy` in one of the others.
    pub fn by_role(
        k: &mut Builder<'c>,
        multiply: impl FnOnce(&mut Builder<'c>),
        copy: impl FnOnce(&mut Builder<'c>),
    ) {
        k.by_role(
            MULTIPLYING,
            |k| {
                k.note("1 multiply");
                k.take_registers(REGISTERS[0]);
                multiply(k);
            },
            |k, [warp, first]| {
                k.note("copy");
                k.give_registers(REGISTERS[1]);
                let copying = k.equal(warp, first);
                k.in_one_when(copying, copy);
            },
        );
    }

    /// The stage of step `step`, counted from the block's first.
    pub fn stage(&self, k: &mut Builder<'c>, step: Index<'c>) -> Stage<'c> {
        let count = self.stages.count;
        let (slot, turn) = (k.rem_constant(step, count), k.div_constant(step, count));
        let start = k.mul_constant(slot, self.stages.bytes);
        let barriers = k.mul_constant(slot, BARRIERS);
        let full = k.at_bytes(self.barriers, barriers);
        let empty = k.at_bytes_constant(full, 8);
        let parity = k.rem_constant(turn, 2);
        let parity = k.i32_of(parity);
        Stage { place: k.at_bytes(self.place, start), full, empty, parity }
    }

    /// The stage of a step, as soon as it is empty.
    pub fn empty(&self, k: &mut Builder<'c>, step: Index<'c>) -> Stage<'c> {
        let stage = self.stage(k, step);
        // In the first turn the stages are empty: the turn before the first one has ended.
        let one = k.i32(1);
        let before = k.xor(stage.parity, one);
        k.wait_for_phase(stage.empty, before);
        stage
    }

    /// The stage of a step, as soon as its bytes are there.
    pub fn full(&self, k: &mut Builder<'c>, step: Index<'c>) -> Stage<'c> {
        let stage = self.stage(k, step);
        k.wait_for_phase(stage.full, stage.parity);
        stage
    }

    /// This warp has read the stage of a step.
    pub fn free(&self, k: &mut Builder<'c>, step: Index<'c>) {
        let stage = self.stage(k, step);
        let one = k.elected();
        k.when(one, |k| k.arrive(stage.empty));
    }
}
