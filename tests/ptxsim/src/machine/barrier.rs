//! Barriers of a block and of a warp.

use super::Machine;
use super::step::Next;
use crate::code::{Barrier, NONE};
use crate::fault::{Kind, Stop, stop};
use crate::order::{Knowledge, lanes};
use crate::warp::{Wait, Warp};

impl Machine<'_> {
    pub(super) fn barrier(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        at: usize,
        exec: u32,
        barrier: &Barrier,
    ) -> Result<Next, Stop> {
        Self::aligned(warp, exec)?;
        let first = exec.trailing_zeros();
        let id = Self::uniform(warp, exec, barrier.id, "number")? as usize;
        let all = self.shape.warps() * 32;
        let expected = match barrier.count {
            NONE => all,
            count => Self::uniform(warp, exec, count, "count of threads")? as u32,
        };
        if id >= 16 {
            return stop(Kind::Barrier, first, format!("there is no barrier {id}"));
        }
        if expected == 0 || !expected.is_multiple_of(32) || expected > all {
            let text = format!("barrier {id} for {expected} threads of a block of {all}");
            return stop(Kind::Barrier, first, text);
        }
        let block = &mut self.blocks[rank];
        let state = &mut block.barriers[id];
        if state.arrived != 0 && state.expected != expected {
            let text = format!(
                "barrier {id} is used for {expected} threads while others use it for {}",
                state.expected
            );
            return stop(Kind::Barrier, first, text);
        }
        state.expected = expected;
        state.arrived += 32;
        let published = warp.clock.publish(exec, warp.live, block.linear);
        state.knowledge.join(&published);
        state.waited |= warp.waited;
        if barrier.waits {
            warp.groups[at].wait = Wait::Barrier(id as u32);
        }
        if state.arrived < expected {
            return Ok(if barrier.waits { Next::Wait } else { Next::On });
        }
        let known = std::mem::take(&mut state.knowledge);
        let waited = std::mem::take(&mut state.waited);
        state.arrived = 0;
        if expected == all {
            block.era += 1;
        } else {
            block.partial = true;
        }
        let others = block.warps.iter_mut().flatten();
        for woken in others.chain([warp]) {
            wake(woken, Wait::Barrier(id as u32), &known, waited);
        }
        self.statistics.barriers += 1;
        Ok(Next::On)
    }

    /// A source that must be the same in all lanes.
    pub(super) fn uniform(warp: &Warp, exec: u32, slot: u32, what: &str) -> Result<u64, Stop> {
        let word = warp.word(slot, exec)?;
        let first = exec.trailing_zeros();
        let value = word[first as usize];
        match lanes(exec).find(|lane| word[*lane as usize] != value) {
            Some(lane) => stop(Kind::Operand, lane, format!("the {what} differs between lanes")),
            None => Ok(value),
        }
    }

    pub(super) fn warp_barrier(warp: &mut Warp, exec: u32, mask: u32) -> Result<(), Stop> {
        Self::members(warp, exec, mask)?;
        if exec == warp.live {
            warp.clock.meet();
            return Ok(());
        }
        let published = warp.clock.publish(exec, warp.live, u32::MAX);
        warp.clock.learn(exec, warp.live, &published);
        Ok(())
    }

    /// The lanes of `mask` that are left must be exactly those that execute.
    pub(super) fn members(warp: &Warp, exec: u32, mask: u32) -> Result<(), Stop> {
        let mask = Self::uniform(warp, exec, mask, "mask of threads")? as u32;
        let first = exec.trailing_zeros();
        let absent = mask & warp.live & !exec;
        if absent != 0 {
            let text = format!("lane {} is in the mask but elsewhere", absent.trailing_zeros());
            return stop(Kind::Divergence, first, text);
        }
        let uncalled = exec & !mask;
        if uncalled != 0 {
            let text = "a lane that executes is not in the mask";
            return stop(Kind::Divergence, uncalled.trailing_zeros(), text);
        }
        Ok(())
    }
}

/// Groups that wait for `what` go on, and know what was published there.
pub(super) fn wake(warp: &mut Warp, what: Wait, known: &Knowledge, waited: bool) {
    let mut found = false;
    for group in warp.groups.iter_mut().filter(|group| group.wait == what) {
        group.wait = Wait::No;
        found = true;
    }
    if found {
        warp.waited |= waited;
        warp.clock.knowledge.join(known);
        warp.clock.meet();
    }
}
