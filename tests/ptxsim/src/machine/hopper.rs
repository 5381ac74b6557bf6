//! Dispatch of `sm_90` instructions, and what is too small for a file of its own: fences, clusters.

use super::Machine;
use super::alu::each;
use super::memory::RANK_SHIFT;
use super::step::Next;
use crate::code::SHARED_WINDOW;
use crate::fault::{Kind, Stop, stop};
use crate::hopper::Hopper;
use crate::order::Knowledge;
use crate::warp::Warp;

/// The barrier of a cluster.
#[derive(Debug, Default)]
pub(crate) struct ClusterBarrier {
    arrived: u32,
    phase: u32,
    gathering: Knowledge,
    published: Knowledge,
}

impl Machine<'_> {
    pub(super) fn hopper(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        op: &Hopper,
    ) -> Result<Next, Stop> {
        match op {
            Hopper::Init { place, count } => self.init_barrier(rank, warp, exec, *place, *count)?,
            Hopper::Invalidate { place } => {
                for lane in crate::order::lanes(exec) {
                    let (owner, at) = self.barrier_place(rank, warp, exec, lane, *place)?;
                    self.blocks[owner].mbarriers.remove(&at);
                }
            }
            Hopper::Arrive(arrive) => self.arrive(rank, warp, exec, arrive)?,
            Hopper::Wait { place, p, phase, parity } => {
                return self.wait_for_phase(rank, warp, exec, (*place, *p, *phase, *parity));
            }
            Hopper::FenceInit => self.fence_barriers(rank, warp, exec),
            Hopper::FenceProxy => {
                self.fence_barriers(rank, warp, exec);
                warp.clock.fence_proxy(exec, warp.live);
            }
            Hopper::Bulk(bulk) => self.bulk(rank, warp, exec, bulk)?,
            Hopper::BulkCommit => Self::bulk_commit(warp, exec),
            Hopper::BulkWait { pending } => self.bulk_wait(warp, exec, *pending),
            Hopper::Wgmma(wgmma) => self.wgmma(rank, warp, exec, wgmma)?,
            Hopper::WgmmaFence => {
                self.whole_group(warp, exec)?;
                warp.fence_registers();
            }
            Hopper::WgmmaCommit => {
                self.whole_group(warp, exec)?;
                warp.product_group += 1;
            }
            Hopper::WgmmaWait { pending } => self.wgmma_wait(warp, exec, *pending)?,
            Hopper::Registers { count, takes } => {
                return self.reshape(rank, warp, exec, (*count, *takes));
            }
            Hopper::Map { d, a, rank: to, generic } => {
                self.map_shared(rank, warp, exec, [*d, *a, *to], *generic)?;
            }
            Hopper::ClusterArrive { releases } => {
                self.cluster_arrive(rank, warp, exec, *releases)?;
            }
            Hopper::ClusterWait => return self.cluster_wait(warp, exec),
        }
        Ok(Next::On)
    }

    fn map_shared(
        &self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        [d, a, to]: [u32; 3],
        generic: bool,
    ) -> Result<(), Stop> {
        let (a, to) = (*warp.word(a, exec)?, *warp.word(to, exec)?);
        let window = if generic { SHARED_WINDOW } else { 0 };
        for lane in crate::order::lanes(exec) {
            if to[lane as usize] as usize >= self.blocks.len() {
                let text = format!("the cluster has no block {}", to[lane as usize]);
                return stop(Kind::Operand, lane, text);
            }
            self.shared_target(rank, lane, a[lane as usize] as u32)?;
        }
        let low = (1 << RANK_SHIFT) - 1;
        let out = each(exec, |lane| window | (to[lane] + 1) << RANK_SHIFT | a[lane] & low);
        warp.write(d, exec, &out)
    }

    fn cluster_arrive(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        releases: bool,
    ) -> Result<(), Stop> {
        Self::aligned(warp, exec)?;
        if warp.cluster_phase.is_some() {
            return stop(
                Kind::Barrier,
                0,
                "a warp arrives twice at its cluster's barrier without waiting",
            );
        }
        warp.cluster_phase = Some(self.cluster.phase);
        self.cluster.arrived += 1;
        if releases {
            let known = warp.clock.publish(exec, warp.live, self.blocks[rank].linear);
            self.cluster.gathering.join(&known);
        }
        Ok(())
    }

    fn cluster_wait(&mut self, warp: &mut Warp, exec: u32) -> Result<Next, Stop> {
        Self::aligned(warp, exec)?;
        let Some(phase) = warp.cluster_phase else {
            return stop(
                Kind::Barrier,
                0,
                "a warp waits at its cluster's barrier without arriving",
            );
        };
        let others = self.blocks.iter().flat_map(|block| block.warps.iter().flatten()).count();
        if self.cluster.phase == phase && self.cluster.arrived as usize == others + 1 {
            self.cluster.phase += 1;
            self.cluster.arrived = 0;
            let known = std::mem::take(&mut self.cluster.gathering);
            self.cluster.published.join(&known);
        }
        if self.cluster.phase == phase {
            return Ok(Next::Again);
        }
        warp.cluster_phase = None;
        warp.clock.learn(exec, warp.live, &self.cluster.published);
        warp.clock.meet();
        Ok(Next::On)
    }
}
