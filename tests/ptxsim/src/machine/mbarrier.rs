//! Barriers in shared memory (`mbarrier`): phases, arrivals, bytes to come.

use super::Machine;
use super::memory::Target;
use super::shared::at_lane;
use super::step::Next;
use crate::code::{Address, NONE, Space};
use crate::fault::{Kind, Stop, stop};
use crate::hopper::Arrive;
use crate::order::{Knowledge, lanes};
use crate::shared::{Who, Written};
use crate::warp::Warp;

/// Bytes that may be outstanding.
const MAX_BYTES: i64 = (1 << 20) - 1;

#[derive(Debug, Default)]
pub(crate) struct MemoryBarrier {
    /// Arrivals that end a phase, and those still missing.
    expected: i64,
    missing: i64,
    /// Bytes announced and not yet come.
    pub bytes: i64,
    /// Phases that have ended.
    phase: u32,
    /// What arrivals of this phase published, and of all phases that ended.
    gathering: Knowledge,
    published: Knowledge,
    /// Agent that stands for the copies whose bytes come here.
    agent: u32,
    /// Agent and lane that set it up, and the agent's clock when it let copying hardware see that.
    owner: (u32, u32),
    shown: Option<u32>,
}

impl MemoryBarrier {
    /// Agent and clock of copies that come in this phase.
    pub(super) fn stamp(&self) -> (u32, u32) {
        (self.agent, self.phase + 1)
    }

    fn settle(&mut self) {
        if self.missing == 0 && self.bytes == 0 {
            self.phase += 1;
            self.missing = self.expected;
            let mut known = std::mem::take(&mut self.gathering);
            known.order.learn(self.agent, self.phase);
            self.published.join(&known);
        }
    }
}

impl Machine<'_> {
    /// Block and place of the barrier at an address; the thread must know that it was set up.
    pub(super) fn barrier_place(
        &mut self,
        rank: usize,
        warp: &Warp,
        exec: u32,
        lane: u32,
        place: Address,
    ) -> Result<(usize, u64), Stop> {
        let address = self.lane_address(warp, exec, lane, place)?;
        self.barrier_at(rank, warp, lane, address)
    }

    pub(super) fn barrier_at(
        &mut self,
        rank: usize,
        warp: &Warp,
        lane: u32,
        address: u64,
    ) -> Result<(usize, u64), Stop> {
        let Target::Shared(owner, at) = self.target(rank, lane, Space::Shared, address)? else {
            unreachable!("a shared address has a shared target");
        };
        let block = &mut self.blocks[owner];
        let verdict = block
            .shared
            .holds(at, 8, 8)
            .and_then(|()| block.shared.note_read(at, 8, &Who::thread(&warp.clock, lane)));
        at_lane(lane, verdict)?;
        if !block.mbarriers.contains_key(&at) {
            return stop(
                Kind::Barrier,
                lane,
                format!("no barrier was set up at {at:#x} of shared memory"),
            );
        }
        Ok((owner, at))
    }

    pub(super) fn init_barrier(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        place: Address,
        count: u32,
    ) -> Result<(), Stop> {
        for lane in lanes(exec) {
            let address = self.lane_address(warp, exec, lane, place)?;
            let count = warp.word(count, exec)?[lane as usize] as u32;
            let Target::Shared(owner, at) = self.target(rank, lane, Space::Shared, address)? else {
                unreachable!("a shared address has a shared target");
            };
            if owner != rank {
                return stop(Kind::Operand, lane, "a block sets up a barrier of another block");
            }
            if !(1..1 << 20).contains(&count) {
                return stop(Kind::Operand, lane, format!("a barrier for {count} arrivals"));
            }
            let agent = self.next_agent;
            let block = &mut self.blocks[rank];
            let verdict = block.shared.holds(at, 8, 8).and_then(|()| {
                let who = Who::thread(&warp.clock, lane);
                block.shared.note_write(at, 8, Written::Plain, &who)
            });
            at_lane(lane, verdict)?;
            let barrier = MemoryBarrier {
                expected: i64::from(count),
                missing: i64::from(count),
                agent,
                owner: (warp.clock.agent, lane),
                ..MemoryBarrier::default()
            };
            if block.mbarriers.insert(at, barrier).is_some() {
                return stop(
                    Kind::Barrier,
                    lane,
                    "a barrier is set up twice without `mbarrier.inval`",
                );
            }
            // Threads may now be ordered in ways that counting the block's barriers does not see.
            self.blocks[rank].partial = true;
            self.next_agent += 1;
        }
        Ok(())
    }

    /// Barriers that lanes `exec` set up can be seen by copying hardware.
    pub(super) fn fence_barriers(&mut self, rank: usize, warp: &Warp, exec: u32) {
        for barrier in self.blocks[rank].mbarriers.values_mut() {
            let (agent, lane) = barrier.owner;
            if agent == warp.clock.agent && exec >> lane & 1 == 1 {
                barrier.shown.get_or_insert(warp.clock.now);
            }
        }
    }

    pub(super) fn arrive(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        arrive: &Arrive,
    ) -> Result<(), Stop> {
        let mut tokens = [0; 32];
        let place = *warp.word(arrive.place.base, exec)?;
        let word = |slot: u32, lane: u32, otherwise: i64| match slot {
            NONE => Ok(otherwise),
            slot => warp.word(slot, exec).map(|lanes| i64::from(lanes[lane as usize] as u32)),
        };
        let mut wanted = [(0i64, 0i64); 32];
        for lane in lanes(exec) {
            let count = if arrive.arrives { word(arrive.count, lane, 1)? } else { 0 };
            wanted[lane as usize] = (count, word(arrive.bytes, lane, 0)?);
        }
        // Lanes that arrive together at one barrier publish together.
        let first = place[exec.trailing_zeros() as usize];
        let one = lanes(exec).all(|lane| place[lane as usize] == first);
        let live = warp.live;
        let linear = self.blocks[rank].linear;
        let mut published = None;
        for lane in lanes(exec) {
            let address = place[lane as usize].wrapping_add(arrive.place.offset as u64);
            let (owner, at) = self.barrier_at(rank, warp, lane, address)?;
            if arrive.arrives && (published.is_none() || !one) {
                let who = if one { exec } else { 1 << lane };
                published = Some(warp.clock.publish(who, live, linear));
            }
            let barrier = self.blocks[owner].mbarriers.get_mut(&at).expect("it was found before");
            let (count, bytes) = wanted[lane as usize];
            tokens[lane as usize] = u64::from(barrier.phase);
            barrier.bytes += if arrive.completes { -bytes } else { bytes };
            if barrier.bytes.abs() > MAX_BYTES {
                return stop(
                    Kind::Barrier,
                    lane,
                    format!("{} bytes outstanding at a barrier", barrier.bytes),
                );
            }
            if let Some(published) = &published {
                barrier.gathering.join(published);
            }
            barrier.missing -= count;
            if barrier.missing < 0 || arrive.arrives && count == 0 {
                let text = format!(
                    "{count} arrivals at a barrier that waits for {} more in this phase",
                    barrier.missing + count
                );
                return stop(Kind::Barrier, lane, text);
            }
            barrier.settle();
        }
        warp.write(arrive.token, exec, &tokens)
    }

    pub(super) fn wait_for_phase(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        (place, p, phase, parity): (Address, u32, u32, bool),
    ) -> Result<Next, Stop> {
        let mut ended = 0;
        for lane in lanes(exec) {
            let (owner, at) = self.barrier_place(rank, warp, exec, lane, place)?;
            if owner != rank {
                return stop(Kind::Operand, lane, "a thread waits at a barrier of another block");
            }
            let phase = warp.word(phase, exec)?[lane as usize] as u32;
            let barrier = &self.blocks[owner].mbarriers[&at];
            if parity && phase > 1 {
                return stop(Kind::Operand, lane, format!("a parity of {phase}"));
            }
            let over = if parity { barrier.phase % 2 != phase } else { barrier.phase > phase };
            if over {
                ended |= 1 << lane;
                // Lanes that learn the same learn it together below.
                if lane == exec.trailing_zeros() {
                    let known = barrier.published.clone();
                    let place = *warp.word(place.base, exec)?;
                    let first = place[lane as usize];
                    let together = lanes(exec)
                        .filter(|other| place[*other as usize] == first)
                        .fold(0, |mask, lane| mask | 1 << lane);
                    warp.clock.learn(together, warp.live, &known);
                    if together == exec {
                        ended = exec;
                        break;
                    }
                } else {
                    let known = barrier.published.clone();
                    warp.clock.learn(1 << lane, warp.live, &known);
                }
            }
        }
        warp.write_pred(p, exec, ended);
        Ok(if ended == exec { Next::On } else { Next::Pause })
    }

    /// Bytes of a copy that lane `lane` asked for have come: at the barrier at `at` of block `owner`.
    pub(super) fn complete_bytes(&mut self, owner: usize, at: u64, bytes: u64) {
        let barrier = self.blocks[owner].mbarriers.get_mut(&at).expect("it was found before");
        barrier.bytes -= bytes as i64;
        barrier.settle();
    }

    /// Agent and clock of a copy to the barrier; hardware must be able to see the barrier, and the thread
    /// that asks must know it.
    pub(super) fn copy_stamp(
        &self,
        warp: &Warp,
        lane: u32,
        owner: usize,
        at: u64,
    ) -> Result<(u32, u32), Stop> {
        let barrier = &self.blocks[owner].mbarriers[&at];
        let (agent, set_up_by) = barrier.owner;
        let knows = |clock| warp.clock.after(lane, agent, set_up_by, clock);
        if !barrier.shown.is_some_and(knows) {
            let text = "a copy completes a barrier that was set up without `fence.mbarrier_init` or \
                        `fence.proxy.async` between that and it";
            return stop(Kind::Proxy, lane, text);
        }
        debug_assert!(warp.live != 0, "a warp that left asks for no copy");
        Ok(barrier.stamp())
    }
}
