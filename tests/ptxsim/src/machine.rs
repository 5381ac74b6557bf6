//! Executes the blocks of one cluster: warps take turns, each runs until it waits.

mod alu;
mod barrier;
mod bulk;
mod global;
mod hopper;
mod mbarrier;
mod memory;
mod registers;
mod shared;
mod step;
mod tensor;
mod threads;
mod wgmma;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;

use crate::code::{Kernel, Special};
use crate::device::Device;
use crate::fault::{Fault, Kind, Stop};
use crate::launch::Statistics;
use crate::machine::hopper::ClusterBarrier;
use crate::machine::mbarrier::MemoryBarrier;
use crate::machine::registers::Registers;
use crate::order::{Clock, Knowledge};
use crate::shared::Shared;
use crate::warp::{Wait, Warp};

/// Instructions a warp runs before another gets its turn.
const TURN: u32 = 2000;

/// What all blocks of a launch share.
pub(crate) struct Shape<'a> {
    pub kernel: &'a Kernel,
    pub device: &'a Device,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub cluster: [u32; 3],
    pub dynamic_shared: u32,
    pub params: &'a [u8],
    pub launch: u32,
    pub budget: u64,
    pub programmatic: bool,
    pub stirred: bool,
    /// A thread has waited for the kernels before.
    pub waited: AtomicBool,
}

impl Shape<'_> {
    pub(crate) fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    pub(crate) fn warps(&self) -> u32 {
        self.threads().div_ceil(32)
    }

    /// Rank in its cluster of the block with number `linear`.
    pub(crate) fn rank_of(&self, linear: u32) -> u32 {
        let [gx, gy, _] = self.grid;
        let index = [linear % gx, linear / gx % gy, linear / (gx * gy)];
        let [cx, cy, _] = self.cluster;
        let inside: Vec<u32> = index.iter().zip(self.cluster).map(|(at, size)| at % size).collect();
        inside[0] + cx * (inside[1] + cy * inside[2])
    }

    pub(crate) fn cluster_blocks(&self) -> u32 {
        self.cluster.iter().product()
    }
}

#[derive(Debug, Default)]
pub(crate) struct BarrierState {
    pub arrived: u32,
    pub expected: u32,
    /// One who came has waited for the kernels before.
    pub waited: bool,
    pub knowledge: Knowledge,
}

/// One block.
pub(crate) struct Block {
    pub index: [u32; 3],
    pub linear: u32,
    pub warps: Vec<Option<Warp>>,
    pub shared: Shared,
    pub barriers: Vec<BarrierState>,
    /// Barriers of the whole block passed so far, and whether it used any other way to order threads.
    pub era: u32,
    pub partial: bool,
    /// Barriers in shared memory, by their place.
    pub mbarriers: HashMap<u64, MemoryBarrier>,
    pub registers: Registers,
    /// Clocks of the warps that have left, where other blocks may reach the block's memory.
    left: Vec<Clock>,
}

/// Result of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Instructions were run that change something.
    Worked,
    /// Only a test of something that has not happened yet.
    Idle,
    /// Nothing can run.
    Stuck,
    Done,
}

pub(crate) struct Machine<'a> {
    pub shape: &'a Shape<'a>,
    pub blocks: Vec<Block>,
    pub statistics: Statistics,
    /// Number of the next agent that stands for copies.
    next_agent: u32,
    cluster: ClusterBarrier,
    /// Words in global memory through which threads publish.
    pub words: Words,
}

/// What was published through each word of memory.
pub(crate) type Words = Rc<RefCell<HashMap<u64, Knowledge>>>;

impl<'a> Machine<'a> {
    /// The blocks of cluster `number`.
    pub(crate) fn new(shape: &'a Shape<'a>, number: u64, words: Words) -> Self {
        let blocks = cluster_members(shape, number)
            .into_iter()
            .enumerate()
            .map(|(rank, index)| Block::new(shape, index, rank as u32))
            .collect();
        let next_agent = 3 * shape.warps() * shape.cluster_blocks();
        let (statistics, cluster) = (Statistics::default(), ClusterBarrier::default());
        Self { shape, blocks, statistics, next_agent, cluster, words }
    }

    /// Run until every thread has left.
    pub(crate) fn run(&mut self) -> Result<(), Fault> {
        let mut idle = 0;
        loop {
            match self.turn()? {
                Turn::Done => return self.finish(),
                Turn::Worked => idle = 0,
                Turn::Idle => idle += 1,
                Turn::Stuck => return Err(self.deadlock()),
            }
            if idle > 64 {
                return Err(self.deadlock());
            }
        }
    }

    /// Every thread has left: nothing may be half done.
    pub(crate) fn finish(&self) -> Result<(), Fault> {
        for block in &self.blocks {
            let outstanding = block.mbarriers.iter().find(|(_, barrier)| barrier.bytes != 0);
            if let Some((at, barrier)) = outstanding {
                let text = format!(
                    "the block ended while {} bytes were outstanding at the barrier at {at:#x}",
                    barrier.bytes
                );
                return Err(self.of_block(block.index, Kind::Barrier, text));
            }
            let open = block.barriers.iter().position(|barrier| barrier.arrived != 0);
            if let Some(id) = open {
                let barrier = &block.barriers[id];
                let text = format!(
                    "the block ended while {} of {} threads had arrived at barrier {id}",
                    barrier.arrived, barrier.expected
                );
                return Err(self.of_block(block.index, Kind::Barrier, text));
            }
            if let Some(text) = block.registers.apart() {
                return Err(self.of_block(block.index, Kind::Divergence, text));
            }
        }
        Ok(())
    }

    /// What is wrong with the block of that index as a whole.
    fn of_block(&self, index: [u32; 3], kind: Kind, text: String) -> Fault {
        let mut fault = Fault::new(kind, text);
        fault.kernel.clone_from(&self.shape.kernel.name);
        fault.place = Some((index, [0; 3]));
        fault
    }

    /// Give every warp one turn.
    pub(crate) fn turn(&mut self) -> Result<Turn, Fault> {
        let mut result = Turn::Done;
        for rank in 0..self.blocks.len() {
            for at in 0..self.blocks[rank].warps.len() {
                let Some(mut warp) = self.blocks[rank].warps[at].take() else { continue };
                let turn = self.warp_turn(rank, &mut warp);
                let turn = match turn {
                    Ok(turn) => turn,
                    Err((stop, line)) => return Err(self.fault(rank, &warp, stop, line)),
                };
                if !warp.done() {
                    self.blocks[rank].warps[at] = Some(warp);
                } else if self.blocks.len() > 1 {
                    self.note_leaving(rank, warp)?;
                }
                result = match (result, turn) {
                    (_, Turn::Worked) | (Turn::Worked, _) => Turn::Worked,
                    (_, Turn::Idle) | (Turn::Idle, _) => Turn::Idle,
                    (_, Turn::Stuck) | (Turn::Stuck, _) => Turn::Stuck,
                    (Turn::Done, Turn::Done) => Turn::Done,
                };
            }
        }
        if self.statistics.instructions > self.shape.budget {
            let text = format!("the kernel ran more than {} instructions", self.shape.budget);
            let mut fault = Fault::new(Kind::Budget, text);
            fault.kernel.clone_from(&self.shape.kernel.name);
            return Err(fault);
        }
        Ok(result)
    }

    /// Warp of a cluster's block `rank` has left. With the last one the block's memory goes: nobody of
    /// another block may still be at it.
    fn note_leaving(&mut self, rank: usize, warp: Warp) -> Result<(), Fault> {
        let (warps, all) = (self.shape.warps(), self.shape.warps() * self.shape.cluster_blocks());
        // Of warps, and of the hardware that multiplies or copies for them.
        let is_other = |agent: u32| agent < 3 * all && agent % all / warps != rank as u32;
        let block = &mut self.blocks[rank];
        block.left.push(warp.clock);
        if !block.has_left() {
            return Ok(());
        }
        let (index, verdict) = (block.index, block.shared.known(is_other, &block.left));
        verdict.map_err(|(kind, text)| self.of_block(index, kind, text))
    }

    fn warp_turn(&mut self, rank: usize, warp: &mut Warp) -> Result<Turn, (Stop, u32)> {
        let mut result = Turn::Stuck;
        let groups = warp.groups.len();
        for _ in 0..groups.max(1) {
            if warp.groups.is_empty() {
                break;
            }
            let at = warp.next_group % warp.groups.len();
            warp.next_group = at + 1;
            if warp.groups[at].wait != Wait::No {
                continue;
            }
            let turn = self.run_group(rank, warp, at, TURN)?;
            if turn == Turn::Worked {
                result = Turn::Worked;
            } else if result == Turn::Stuck {
                result = turn;
            }
        }
        Ok(if warp.done() { Turn::Worked } else { result })
    }

    fn fault(&self, rank: usize, warp: &Warp, stop: Stop, line: u32) -> Fault {
        let mut fault = Fault::new(stop.kind, stop.sentence).at_line(line);
        fault.kernel.clone_from(&self.shape.kernel.name);
        fault.place = Some((self.blocks[rank].index, self.thread(warp.index, stop.lane)));
        fault
    }

    fn thread(&self, warp: u32, lane: u32) -> [u32; 3] {
        let [x, y, _] = self.shape.block;
        let linear = warp * 32 + lane;
        [linear % x, linear / x % y, linear / (x * y)]
    }

    /// Nobody can go on: say of the first waiting thread what it waits for.
    pub(crate) fn deadlock(&self) -> Fault {
        for (rank, block) in self.blocks.iter().enumerate() {
            for warp in block.warps.iter().flatten() {
                let Some(group) = warp.groups.first() else { continue };
                let line = self.shape.kernel.code[group.pc as usize].line;
                let lane = group.mask.trailing_zeros();
                let sentence = match group.wait {
                    Wait::Barrier(id) => {
                        let barrier = &block.barriers[id as usize];
                        format!(
                            "every thread waits: at barrier {id} {} of {} threads have arrived",
                            barrier.arrived, barrier.expected
                        )
                    }
                    Wait::No => "every thread waits: this one for what never happens".to_owned(),
                };
                return self.fault(rank, warp, Stop { kind: Kind::Deadlock, lane, sentence }, line);
            }
        }
        let mut fault = Fault::new(Kind::Deadlock, "threads wait for each other");
        fault.kernel.clone_from(&self.shape.kernel.name);
        fault
    }
}

impl Block {
    fn new(shape: &Shape, index: [u32; 3], rank: u32) -> Self {
        let kernel = shape.kernel;
        let bytes = match shape.dynamic_shared {
            0 => kernel.static_shared,
            dynamic => kernel.dynamic_offset + u64::from(dynamic),
        };
        let threads = shape.threads();
        let warps = (0..shape.warps())
            .map(|at| {
                let lanes = (threads - at * 32).min(32);
                let live = if lanes == 32 { u32::MAX } else { (1 << lanes) - 1 };
                let mut warp = Warp::new(kernel, at, live, rank * shape.warps() + at);
                warp.waited = !shape.programmatic;
                for (slot, special) in &kernel.specials {
                    let value = |lane| special_value(shape, *special, index, rank, at, lane);
                    warp.fill(*slot, std::array::from_fn(|lane| value(lane as u32)));
                }
                Some(warp)
            })
            .collect();
        let [gx, gy, _] = shape.grid;
        Self {
            index,
            linear: index[0] + gx * (index[1] + gy * index[2]),
            warps,
            shared: Shared::new(bytes as usize),
            barriers: (0..16).map(|_| BarrierState::default()).collect(),
            era: 1,
            partial: false,
            mbarriers: HashMap::new(),
            registers: Registers::new(kernel.registers, shape.warps()),
            left: Vec::new(),
        }
    }

    pub(crate) fn has_left(&self) -> bool {
        self.left.len() == self.warps.len()
    }
}

/// Indices of the blocks of cluster `number`, in order of their rank.
fn cluster_members(shape: &Shape, number: u64) -> Vec<[u32; 3]> {
    let clusters: Vec<u64> =
        shape.grid.iter().zip(shape.cluster).map(|(grid, size)| u64::from(grid / size)).collect();
    let at = [
        number % clusters[0],
        number / clusters[0] % clusters[1],
        number / (clusters[0] * clusters[1]),
    ];
    let [cx, cy, cz] = shape.cluster;
    let mut members = Vec::new();
    for z in 0..cz {
        for y in 0..cy {
            for x in 0..cx {
                let inside = [x, y, z];
                members.push(std::array::from_fn(|axis| {
                    at[axis] as u32 * shape.cluster[axis] + inside[axis]
                }));
            }
        }
    }
    members
}

fn special_value(
    shape: &Shape,
    special: Special,
    index: [u32; 3],
    rank: u32,
    warp: u32,
    lane: u32,
) -> u64 {
    let [x, y, _] = shape.block;
    let linear = warp * 32 + lane;
    let below = (1u32 << lane) - 1;
    let bit = 1u32 << lane;
    u64::from(match special {
        Special::Tid(0) => linear % x,
        Special::Tid(1) => linear / x % y,
        Special::Tid(_) => linear / (x * y),
        Special::Ntid(axis) => shape.block[axis as usize],
        Special::Ctaid(axis) => index[axis as usize],
        Special::Nctaid(axis) => shape.grid[axis as usize],
        Special::Lane => lane,
        Special::Warp => warp,
        Special::Warps => shape.warps(),
        Special::MaskEq => bit,
        Special::MaskLt => below,
        Special::MaskLe => below | bit,
        Special::MaskGt => !(below | bit),
        Special::MaskGe => !below,
        Special::ClusterRank => rank,
        Special::ClusterSize => shape.cluster_blocks(),
        Special::ClusterBlock(axis) => index[axis as usize] % shape.cluster[axis as usize],
        Special::ClusterDim(axis) => shape.cluster[axis as usize],
        Special::ClusterId(axis) => index[axis as usize] / shape.cluster[axis as usize],
        Special::Clusters(axis) => shape.grid[axis as usize] / shape.cluster[axis as usize],
        Special::DynamicShared => shape.dynamic_shared,
        Special::TotalShared => shape.kernel.static_shared as u32 + shape.dynamic_shared,
        Special::Clock => 0,
    })
}
