//! Stages of shared memory that one thread has filled while two warpgroups multiply what is there, on
//! `sm_90`.
//!
//! A stage has two barriers: `full` completes with its bytes, `empty` with an arrival of each warp that
//! multiplies. The copying thread runs ahead by as many steps as there are stages.

use crate::emit::gpu::WARP;
use crate::emit::{Builder, I32, Index, Ptr};
use crate::kernel::ThreadBlock;

/// Threads of a warpgroup.
const GROUP: u32 = 4 * WARP;

/// Threads that multiply: two warpgroups.
const MULTIPLYING: u32 = 2 * GROUP;

/// Registers of a thread at its start, as many as all threads can have; of one that multiplies; and of
/// one that does not, whose are given to the others.
const REGISTERS: [u32; 3] = [168, 232, 40];

/// Bytes of the barriers of a stage.
const BARRIERS: u64 = 16;

/// How many stages of how many bytes (a multiple of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stages {
    pub count: u64,
    pub bytes: u64,
}

impl Stages {
    /// Shared memory of a block, but for what is aligned.
    const SHARED_BYTES: u64 = 226 << 10;

    /// More steps than this on their way gain nothing.
    const MOST: u64 = 6;

    /// As many of `bytes` as fit beside `others`.
    pub fn of(bytes: u64, others: u64) -> Self {
        let count = (Self::SHARED_BYTES - others) / (bytes + BARRIERS);
        Self { count: count.min(Self::MOST), bytes }
    }

    /// Shared memory that they take.
    pub fn shared_bytes(self) -> u64 {
        self.count * (self.bytes + BARRIERS)
    }

    /// The threads of a block that has them: those that multiply, and those of the copying one.
    pub fn block(self) -> ThreadBlock {
        ThreadBlock { registers: REGISTERS[0], ..ThreadBlock::of(MULTIPLYING + GROUP) }
    }
}

/// The stages of a block.
#[derive(Clone, Copy)]
pub(super) struct Ring<'c> {
    stages: Stages,
    place: Ptr<'c>,
    barriers: Ptr<'c>,
}

/// A stage in the turn of a step.
#[derive(Clone, Copy)]
pub(super) struct Stage<'c> {
    pub place: Ptr<'c>,
    /// Completes with the stage's bytes.
    pub full: Ptr<'c>,
    empty: Ptr<'c>,
    /// Of the turn: 0 or 1.
    parity: I32<'c>,
}

impl<'c> Ring<'c> {
    /// Take the shared memory and set up its barriers. All threads of the block come here.
    pub fn open(k: &mut Builder<'c>, stages: Stages) -> Self {
        let place = k.shared(stages.count * stages.bytes, 1024);
        let barriers = k.shared(stages.count * BARRIERS, 16);
        let (thread, zero) = (k.thread(), k.index(0));
        let one = k.equal(thread, zero);
        k.when(one, |k| {
            for stage in 0..stages.count {
                let full = k.at_bytes_constant(barriers, BARRIERS * stage);
                let empty = k.at_bytes_constant(full, 8);
                k.init_barrier(full, 1);
                k.init_barrier(empty, MULTIPLYING / WARP);
            }
            k.fence_barriers();
        });
        k.barrier();
        Self { stages, place, barriers }
    }

    /// Run `multiply` in the threads that multiply, `copy` in one of the others.
    pub fn by_role(
        &self,
        k: &mut Builder<'c>,
        multiply: impl FnOnce(&mut Builder<'c>),
        copy: impl FnOnce(&mut Builder<'c>),
    ) {
        let warp = k.warp();
        let multiplying = k.index(u64::from(MULTIPLYING / WARP));
        let multiplies = k.less(warp, multiplying);
        k.choose(
            multiplies,
            |k| {
                k.take_registers(REGISTERS[1]);
                multiply(k);
            },
            |k| {
                k.note("copy");
                k.give_registers(REGISTERS[2]);
                let copying = k.equal(warp, multiplying);
                k.when(copying, |k| {
                    let one = k.elected();
                    k.when(one, copy);
                });
            },
        );
    }

    /// The stage of step `step`, counted from the block's first.
    fn stage(&self, k: &mut Builder<'c>, step: Index<'c>) -> Stage<'c> {
        let count = self.stages.count;
        let (slot, turn) = (k.rem_constant(step, count), k.div_constant(step, count));
        let start = k.mul_constant(slot, self.stages.bytes);
        let place = k.at_bytes(self.place, start);
        let barriers = k.mul_constant(slot, BARRIERS);
        let full = k.at_bytes(self.barriers, barriers);
        let empty = k.at_bytes_constant(full, 8);
        let parity = k.rem_constant(turn, 2);
        let parity = k.i32_of(parity);
        Stage { place, full, empty, parity }
    }

    /// The stage of a step, as soon as it is empty; `bytes` will come.
    pub fn empty(&self, k: &mut Builder<'c>, step: Index<'c>, bytes: u64) -> Stage<'c> {
        let stage = self.stage(k, step);
        // In the first turn the stages are empty: the turn before the first one has ended.
        let one = k.i32(1);
        let before = k.xor(stage.parity, one);
        k.wait_for_phase(stage.empty, before);
        k.arrive_expecting(stage.full, bytes as u32);
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
