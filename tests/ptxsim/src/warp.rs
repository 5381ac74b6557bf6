//! A warp: registers of its 32 lanes, and the groups of lanes that stand at one instruction.
//!
//! Lanes that a branch sends different ways become groups; where the ways join (the branch's immediate
//! post-dominator) they wait for each other and become one group again.

use crate::code::{Kernel, NONE, Pred};
use crate::fault::{Kind, Stop, stop};
use crate::order::Clock;

/// What a warp counts before its first `wgmma.fence`; registers that were never written have less.
const FIRST_FENCE: u32 = 1;

pub(crate) type Lanes = [u64; 32];

/// What keeps a group from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    No,
    /// For the block's barrier of this number.
    Barrier(u32),
}

/// Lanes at one instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub mask: u32,
    pub pc: u32,
    /// Where this group waits for others, and the meeting it belongs to.
    pub join: u32,
    pub meeting: u32,
    pub wait: Wait,
}

/// Lanes that came apart and will meet.
#[derive(Clone, Copy, Debug)]
struct Meeting {
    expected: u32,
    arrived: u32,
    at: u32,
    /// Join and meeting of the group that came apart.
    outer: (u32, u32),
}

/// A `cp.async` under way: where its bytes go, and whose they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub group: u32,
    pub lane: u32,
    pub to: u64,
    pub bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Warp {
    pub index: u32,
    /// Lanes that have not left the kernel.
    pub live: u32,
    pub groups: Vec<Group>,
    meetings: Vec<Meeting>,
    pub words: Vec<Lanes>,
    set: Vec<u32>,
    preds: Vec<u32>,
    preds_set: Vec<u32>,
    pub local: Vec<u8>,
    pub local_set: Vec<bool>,
    pub clock: Clock,
    pub flights: Vec<Flight>,
    /// Copies not yet committed, and groups committed so far.
    pub copy_group: u32,
    /// Registers of asynchronous products and their groups; those they write are not to be touched,
    /// those they read not to be written.
    pub busy: Vec<(u32, u32)>,
    is_busy: Vec<bool>,
    /// Groups of products committed.
    pub product_group: u32,
    /// For each register the fence of products it was last written after.
    stamps: Vec<u32>,
    fences: u32,
    /// Groups of bulk copies out of shared memory: lane, clock, whether it has any.
    pub bulk_groups: Vec<(u32, u32, bool)>,
    pub bulk_clock: u32,
    /// Lanes with copies that no group has.
    pub bulk_open: u32,
    /// Phase of the cluster's barrier that this warp arrived in.
    pub cluster_phase: Option<u32>,
    /// Allocation that was touched last.
    pub near: usize,
    pub next_group: usize,
    /// Kernels launched before have ended.
    pub waited: bool,
}

impl Warp {
    pub(crate) fn new(kernel: &Kernel, index: u32, live: u32, agent: u32) -> Self {
        let count = kernel.words as usize;
        let mut warp = Self {
            index,
            live,
            groups: vec![Group { mask: live, pc: 0, join: NONE, meeting: NONE, wait: Wait::No }],
            meetings: Vec::new(),
            words: vec![[0; 32]; count],
            set: vec![0; count],
            preds: vec![0; kernel.preds as usize],
            preds_set: vec![0; kernel.preds as usize],
            local: vec![0; kernel.local_bytes as usize * 32],
            local_set: vec![false; kernel.local_bytes as usize * 32],
            clock: Clock::new(agent),
            flights: Vec::new(),
            copy_group: 0,
            busy: Vec::new(),
            is_busy: vec![false; count],
            product_group: 0,
            stamps: vec![0; count],
            fences: FIRST_FENCE,
            bulk_groups: Vec::new(),
            bulk_clock: 0,
            bulk_open: 0,
            cluster_phase: None,
            near: 0,
            next_group: 0,
            waited: true,
        };
        for (slot, value) in &kernel.constants {
            warp.fill(*slot, [*value; 32]);
        }
        for (slot, value) in kernel.truth.iter().zip([u32::MAX, 0]) {
            warp.preds[*slot as usize] = value;
            warp.preds_set[*slot as usize] = u32::MAX;
        }
        warp
    }

    pub(crate) fn fill(&mut self, slot: u32, lanes: Lanes) {
        self.words[slot as usize] = lanes;
        self.set[slot as usize] = u32::MAX;
    }

    /// Lanes of a source; all of `exec` must have been written.
    pub(crate) fn word(&self, slot: u32, exec: u32) -> Result<&Lanes, Stop> {
        let missing = exec & !self.set[slot as usize];
        if missing != 0 {
            return self.unset(slot, missing.trailing_zeros());
        }
        Ok(&self.words[slot as usize])
    }

    #[cold]
    fn unset<T>(&self, slot: u32, lane: u32) -> Result<T, Stop> {
        if self.is_busy[slot as usize] {
            let text = "a register that `wgmma.mma_async` uses is touched before its `wait_group`";
            return stop(Kind::InFlight, lane, text);
        }
        stop(Kind::Uninitialised, lane, "a register is read that was never written")
    }

    /// Write `exec` lanes of a result.
    pub(crate) fn write(&mut self, slot: u32, exec: u32, lanes: &Lanes) -> Result<(), Stop> {
        if slot == NONE {
            return Ok(());
        }
        if self.is_busy[slot as usize] {
            return self.unset(slot, exec.trailing_zeros());
        }
        let to = &mut self.words[slot as usize];
        if exec == u32::MAX {
            *to = *lanes;
        } else {
            for (lane, (to, from)) in to.iter_mut().zip(lanes).enumerate() {
                if exec >> lane & 1 == 1 {
                    *to = *from;
                }
            }
        }
        self.set[slot as usize] |= exec;
        self.stamps[slot as usize] = self.fences;
        Ok(())
    }

    /// Registers written so far may be used by products.
    pub(crate) fn fence_registers(&mut self) {
        self.fences += 1;
    }

    /// A warp's first product comes after a fence, whatever it uses.
    pub(crate) fn fenced_once(&self) -> Result<(), Stop> {
        if self.fences > FIRST_FENCE {
            return Ok(());
        }
        stop(Kind::Proxy, 0, "no `wgmma.fence` is before the first `wgmma.mma_async` of a warp")
    }

    /// A product may not use what was written since the last `wgmma.fence`.
    pub(crate) fn unfenced(&self, slot: u32) -> Result<(), Stop> {
        if self.stamps[slot as usize] != self.fences {
            return Ok(());
        }
        let text =
            "a register that `wgmma.mma_async` uses was written after the last `wgmma.fence`";
        stop(Kind::Proxy, 0, text)
    }

    /// The old value of a sum, which may be the result of a product under way.
    pub(crate) fn sum(&self, slot: u32, needed: bool) -> Result<Lanes, Stop> {
        if needed && !self.is_busy[slot as usize] {
            self.word(slot, u32::MAX)?;
        }
        Ok(self.words[slot as usize])
    }

    /// A product of `group` writes this register.
    pub(crate) fn put_busy(&mut self, slot: u32, group: u32, lanes: &Lanes) {
        self.words[slot as usize] = *lanes;
        self.set[slot as usize] = 0;
        self.hold(slot, group);
    }

    /// A product of `group` uses this register.
    pub(crate) fn hold(&mut self, slot: u32, group: u32) {
        if self.is_busy[slot as usize] {
            let old = self.busy.iter_mut().find(|(busy, _)| *busy == slot);
            old.expect("a register marked busy is in the list").1 = group;
        } else {
            self.busy.push((slot, group));
            self.is_busy[slot as usize] = true;
        }
    }

    /// Products of groups up to `done` have ended.
    pub(crate) fn release_busy(&mut self, done: u32) {
        let (set, is_busy) = (&mut self.set, &mut self.is_busy);
        self.busy.retain(|(slot, group)| {
            if *group <= done {
                set[*slot as usize] = u32::MAX;
                is_busy[*slot as usize] = false;
            }
            *group > done
        });
    }

    /// A lane of `exec` whose copies out of shared memory nobody waited for.
    pub(crate) fn bulk_left(&self, exec: u32) -> Option<u32> {
        let open = self.bulk_open & exec;
        let waiting =
            |(lane, _, any): &(u32, u32, bool)| (*any && exec >> lane & 1 == 1).then_some(*lane);
        if open != 0 {
            return Some(open.trailing_zeros());
        }
        self.bulk_groups.iter().find_map(waiting)
    }

    /// Lanes where the predicate holds.
    pub(crate) fn pred(&self, pred: Pred, exec: u32) -> Result<u32, Stop> {
        let missing = exec & !self.preds_set[pred.slot as usize];
        if missing != 0 {
            let text = "a predicate is read that was never written";
            return stop(Kind::Uninitialised, missing.trailing_zeros(), text);
        }
        let value = self.preds[pred.slot as usize];
        Ok(if pred.negated { !value } else { value })
    }

    pub(crate) fn write_pred(&mut self, slot: u32, exec: u32, value: u32) {
        if slot != NONE {
            let old = &mut self.preds[slot as usize];
            *old = *old & !exec | value & exec;
            self.preds_set[slot as usize] |= exec;
        }
    }

    /// Send parts of group `at` to where they go; they meet at `join`.
    pub(crate) fn part(&mut self, at: usize, ways: &[(u32, u32)], join: u32) {
        let group = self.groups[at];
        if let [(_, target)] = ways {
            self.groups[at].pc = *target;
            return;
        }
        let mut part = group;
        if join != NONE && join != group.join {
            self.meetings.push(Meeting {
                expected: group.mask,
                arrived: 0,
                at: join,
                outer: (group.join, group.meeting),
            });
            (part.join, part.meeting) = (join, self.meetings.len() as u32 - 1);
        }
        for (index, (mask, pc)) in ways.iter().enumerate() {
            (part.mask, part.pc) = (*mask, *pc);
            match index {
                0 => self.groups[at] = part,
                _ => self.groups.push(part),
            }
        }
    }

    /// Group `at` came to where it meets others.
    pub(crate) fn arrive(&mut self, at: usize) {
        let group = self.groups.remove(at);
        let meeting = &mut self.meetings[group.meeting as usize];
        meeting.arrived |= group.mask;
        self.assemble(group.meeting);
    }

    fn assemble(&mut self, index: u32) {
        let meeting = self.meetings[index as usize];
        if meeting.arrived != meeting.expected {
            return;
        }
        if meeting.expected != 0 {
            let (join, outer) = meeting.outer;
            self.groups.push(Group {
                mask: meeting.expected,
                pc: meeting.at,
                join,
                meeting: outer,
                wait: Wait::No,
            });
        }
        while self.meetings.last().is_some_and(|last| last.arrived == last.expected) {
            self.meetings.pop();
        }
    }

    /// Lanes of group `at` leave the kernel.
    pub(crate) fn leave(&mut self, at: usize, lanes: u32) {
        self.live &= !lanes;
        self.groups[at].mask &= !lanes;
        let meeting = self.groups[at].meeting;
        if self.groups[at].mask == 0 {
            self.groups.remove(at);
        }
        let mut index = meeting;
        while index != NONE {
            self.meetings[index as usize].expected &= !lanes;
            index = self.meetings[index as usize].outer.1;
        }
        let mut index = meeting;
        while index != NONE {
            let outer = self.meetings[index as usize].outer.1;
            self.assemble(index);
            index = outer;
        }
    }

    pub(crate) fn done(&self) -> bool {
        self.live == 0
    }
}
