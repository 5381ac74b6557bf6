//! One group's turn: fetch, guard, dispatch.

use std::sync::atomic::Ordering::Relaxed;

use super::{Machine, Turn};
use crate::code::{Instruction, Op};
use crate::fault::{Kind, Stop, stop};
use crate::order::lanes;
use crate::warp::{Group, Wait, Warp};

/// What an instruction asks of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next instruction.
    On,
    /// The next instruction, in the next turn.
    Pause,
    /// The next instruction, but only after what the group waits for has come.
    Wait,
    /// This instruction again, in the next turn.
    Again,
}

impl Machine<'_> {
    /// Run group `at` of `warp` for up to `budget` instructions.
    pub(super) fn run_group(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        at: usize,
        budget: u32,
    ) -> Result<Turn, (Stop, u32)> {
        let kernel = self.shape.kernel;
        let mut idle = true;
        for _ in 0..budget {
            let group = warp.groups[at];
            if group.pc == group.join {
                warp.arrive(at);
                return Ok(Turn::Worked);
            }
            let instruction = &kernel.code[group.pc as usize];
            let line = instruction.line;
            let exec = match instruction.guard {
                None => group.mask,
                Some(pred) => {
                    group.mask & warp.pred(pred, group.mask).map_err(|stop| (stop, line))?
                }
            };
            self.statistics.instructions += 1;
            self.statistics.lane_instructions += u64::from(exec.count_ones());
            match &instruction.op {
                Op::BranchTable { index, targets, join } => {
                    let ways = Self::ways(warp, &group, exec, *index, targets);
                    let ways = ways.map_err(|stop| (stop, line))?;
                    warp.part(at, &ways, *join);
                    if ways.len() > 1 {
                        return Ok(Turn::Worked);
                    }
                    continue;
                }
                &Op::Branch { target, join } => {
                    let stay = (group.mask & !exec, group.pc + 1);
                    let ways = [stay, (exec, target)];
                    let taken = match (stay.0, exec) {
                        (0, _) => &ways[1..],
                        (_, 0) => &ways[..1],
                        _ => &ways[..],
                    };
                    warp.part(at, taken, join);
                    if taken.len() > 1 {
                        return Ok(Turn::Worked);
                    }
                    continue;
                }
                Op::Exit => {
                    if exec != 0 {
                        self.may_leave(warp, exec).map_err(|stop| (stop, line))?;
                        warp.groups[at].pc += 1;
                        warp.leave(at, exec);
                        return Ok(Turn::Worked);
                    }
                    warp.groups[at].pc += 1;
                    continue;
                }
                _ => {}
            }
            if exec == 0 {
                warp.groups[at].pc += 1;
                continue;
            }
            let next =
                self.execute(rank, warp, at, exec, instruction).map_err(|stop| (stop, line))?;
            if next == Next::Again {
                return Ok(if idle { Turn::Idle } else { Turn::Worked });
            }
            warp.groups[at].pc += 1;
            match next {
                Next::Again => {}
                Next::On => idle = idle && !counts(&instruction.op),
                Next::Pause => return Ok(if idle { Turn::Idle } else { Turn::Worked }),
                Next::Wait => {
                    if warp.groups[at].wait != Wait::No {
                        return Ok(Turn::Worked);
                    }
                }
            }
        }
        Ok(Turn::Worked)
    }

    /// Where lanes go by a table: each way once, with its lanes.
    fn ways(
        warp: &Warp,
        group: &Group,
        exec: u32,
        index: u32,
        targets: &[u32],
    ) -> Result<Vec<(u32, u32)>, Stop> {
        let index = warp.word(index, exec)?;
        let mut ways: Vec<(u32, u32)> = Vec::new();
        for lane in lanes(group.mask) {
            let target = if exec >> lane & 1 == 0 {
                group.pc + 1
            } else {
                match targets.get(index[lane as usize] as usize) {
                    Some(target) => *target,
                    None => {
                        return stop(Kind::Operand, lane, "an index beyond the table of targets");
                    }
                }
            };
            match ways.iter_mut().find(|(_, to)| *to == target) {
                Some((mask, _)) => *mask |= 1 << lane,
                None => ways.push((1 << lane, target)),
            }
        }
        Ok(ways)
    }

    fn may_leave(&self, warp: &Warp, exec: u32) -> Result<(), Stop> {
        if let Some(flight) = warp.flights.iter().find(|flight| exec >> flight.lane & 1 == 1) {
            let text = "a thread leaves the kernel before its `cp.async` was waited for";
            return stop(Kind::InFlight, flight.lane, text);
        }
        if let Some(lane) = warp.bulk_left(exec) {
            let text = "a thread leaves the kernel before its bulk copies have read shared memory";
            return stop(Kind::InFlight, lane, text);
        }
        if !warp.busy.is_empty() {
            let text = "a thread leaves the kernel before its `wgmma.mma_async` was waited for";
            return stop(Kind::InFlight, exec.trailing_zeros(), text);
        }
        Ok(())
    }

    fn execute(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        at: usize,
        exec: u32,
        instruction: &Instruction,
    ) -> Result<Next, Stop> {
        match &instruction.op {
            Op::Scalar { .. }
            | Op::Convert { .. }
            | Op::Insert { .. }
            | Op::Logic3 { .. }
            | Op::Compare(_)
            | Op::Select { .. }
            | Op::SelectSign { .. }
            | Op::Preds { .. }
            | Op::Pack { .. }
            | Op::Unpack { .. } => Self::compute(warp, exec, &instruction.op).map(|()| Next::On),
            Op::Load(access) => self.load(rank, warp, exec, access),
            Op::Store(access) => self.store(rank, warp, exec, access).map(|()| Next::On),
            Op::Atomic(atomic) => self.atomic(rank, warp, exec, atomic),
            Op::Hint { space, address } => {
                self.hint(rank, warp, exec, *space, *address).map(|()| Next::On)
            }
            Op::Trap => stop(Kind::Trap, exec.trailing_zeros(), "the kernel stops itself"),
            Op::Nop => Ok(Next::On),
            Op::Predecessors => {
                warp.waited = true;
                self.shape.waited.store(true, Relaxed);
                Ok(Next::On)
            }
            Op::Pause => Ok(Next::Pause),
            Op::Barrier(barrier) => self.barrier(rank, warp, at, exec, barrier),
            Op::WarpBarrier { mask } => Self::warp_barrier(warp, exec, *mask).map(|()| Next::On),
            Op::Fence => {
                self.fence(warp, exec);
                Ok(Next::On)
            }
            Op::Shuffle { .. }
            | Op::Vote { .. }
            | Op::Match { .. }
            | Op::Reduce { .. }
            | Op::Elect { .. }
            | Op::ActiveMask { .. } => {
                Self::together(warp, exec, &instruction.op).map(|()| Next::On)
            }
            Op::Copy(copy) => self.copy(rank, warp, exec, copy).map(|()| Next::On),
            Op::CopyCommit => Self::copy_commit(warp, exec).map(|()| Next::On),
            Op::CopyWait { pending } => {
                self.copy_wait(rank, warp, exec, *pending).map(|()| Next::On)
            }
            Op::Matrices(matrices) => self.matrices(rank, warp, exec, matrices).map(|()| Next::On),
            Op::MoveMatrix { d, a } => Self::move_matrix(warp, exec, *d, *a).map(|()| Next::On),
            Op::Mma(mma) => self.mma(warp, exec, mma).map(|()| Next::On),
            Op::Hopper(hopper) => self.hopper(rank, warp, exec, hopper),
            Op::Branch { .. } | Op::BranchTable { .. } | Op::Exit => {
                unreachable!("the loop takes them")
            }
        }
    }

    /// Every lane of the warp that has not left must be here.
    pub(super) fn aligned(warp: &Warp, exec: u32) -> Result<(), Stop> {
        if exec == warp.live {
            return Ok(());
        }
        let absent = warp.live & !exec;
        let text = format!(
            "the instruction needs all threads of the warp together, but lane {} is elsewhere",
            absent.trailing_zeros()
        );
        stop(Kind::Divergence, exec.trailing_zeros(), text)
    }
}

/// Does the instruction change something others can see?
fn counts(op: &Op) -> bool {
    matches!(op, Op::Store(_) | Op::Barrier(_) | Op::Copy(_) | Op::Mma(_) | Op::Hopper(_))
}
