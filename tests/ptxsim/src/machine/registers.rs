//! `setmaxnreg`: warpgroups of a block give registers back to it and take them.
//!
//! Written after the manual: what one gives another may have, who takes more than there are waits, and
//! all warps of a warpgroup take part.

use super::Machine;
use super::step::Next;
use crate::fault::{Kind, Stop, stop};
use crate::warp::Warp;

/// Registers of a block's threads.
#[derive(Debug)]
pub(crate) struct Registers {
    /// Of a thread of each warp; none where the text does not say with how many a kernel begins.
    has: Option<Vec<u32>>,
    /// How many changes each warp took part in.
    changes: Vec<u32>,
    /// What was given back, as registers of one thread of a warp.
    spare: u32,
}

impl Registers {
    pub(super) fn new(first: Option<u32>, warps: u32) -> Self {
        let each = |value| vec![value; warps as usize];
        Self { has: first.map(each), changes: each(0), spare: 0 }
    }

    /// What is wrong when the block has ended: a warpgroup of which some warps changed and others did not.
    pub(super) fn apart(&self) -> Option<String> {
        let group = self.changes.chunks(4).position(|of| of.iter().any(|one| *one != of[0]))?;
        Some(format!("not all warps of warpgroup {group} took part in a `setmaxnreg`"))
    }
}

impl Machine<'_> {
    /// Threads of `warp` have `count` registers from here on, more than before (`takes`) or fewer.
    pub(super) fn reshape(
        &mut self,
        rank: usize,
        warp: &Warp,
        exec: u32,
        (count, takes): (u32, bool),
    ) -> Result<Next, Stop> {
        self.whole_group(warp, exec)?;
        if !count.is_multiple_of(8) || !(24..=256).contains(&count) {
            return stop(Kind::Operand, 0, format!("`setmaxnreg` to {count} registers"));
        }
        let registers = &mut self.blocks[rank].registers;
        let Some(has) = &mut registers.has else {
            let text = "the assembler ignores `setmaxnreg` where `.maxnreg` does not say with how many \
                        registers the kernel begins";
            return stop(Kind::Operand, 0, text);
        };
        let has = &mut has[warp.index as usize];
        let right = if takes { count >= *has } else { count <= *has };
        if !right {
            let way = if takes { "inc" } else { "dec" };
            let text =
                format!("`setmaxnreg.{way}` to {count} registers of threads that have {has}");
            return stop(Kind::Operand, 0, text);
        }
        match (registers.spare + *has).checked_sub(count) {
            None => return Ok(Next::Again),
            Some(left) => registers.spare = left,
        }
        *has = count;
        registers.changes[warp.index as usize] += 1;
        Ok(Next::On)
    }
}
