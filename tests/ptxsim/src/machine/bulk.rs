//! Bulk copies (TMA): runs of bytes and boxes of tensors, into and out of shared memory.

use super::Machine;
use super::memory::Target;
use super::shared::at_lane;
use crate::code::{Address, NONE, Space};
use crate::fault::{Kind, Stop, stop};
use crate::hopper::{Bulk, Far};
use crate::order::lanes;
use crate::shared::{Who, Written};
use crate::tensor_map::{Swizzle, TensorMap};
use crate::warp::Warp;

/// Pieces of a copy: offset from the shared address, global address if there is one, bytes.
type Piece = (u64, Option<u64>, u64);

impl Machine<'_> {
    pub(super) fn bulk(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        bulk: &Bulk,
    ) -> Result<(), Stop> {
        for lane in lanes(exec) {
            match bulk {
                Bulk::In { to, from, barrier, blocks } => {
                    self.copy_in(rank, warp, (exec, lane), (*to, *barrier), from, *blocks)?;
                }
                Bulk::Out { to, from } => self.copy_out(rank, warp, (exec, lane), to, *from)?,
                Bulk::Across { to, from, bytes, barrier } => {
                    let bytes = warp.word(*bytes, exec)?[lane as usize] & 0xffff_ffff;
                    self.copy_across(rank, warp, (exec, lane), [*to, *from, *barrier], bytes)?;
                }
                Bulk::Prefetch(far) => {
                    let (pieces, _) = self.pieces(rank, warp, (exec, lane), far)?;
                    let missing = pieces
                        .iter()
                        .filter_map(|piece| piece.1)
                        .find(|address| self.shape.device.index(*address).is_none());
                    if let Some(address) = missing {
                        return stop(
                            Kind::OutOfBounds,
                            lane,
                            format!("nothing is at {address:#x}"),
                        );
                    }
                }
            }
        }
        Ok(())
    }

    /// The pieces of a far place, and the swizzle of their places in shared memory.
    fn pieces(
        &self,
        rank: usize,
        warp: &Warp,
        (exec, lane): (u32, u32),
        far: &Far,
    ) -> Result<(Vec<Piece>, Swizzle), Stop> {
        match far {
            Far::Run(address, bytes) => {
                let address = self.lane_address(warp, exec, lane, *address)?;
                let bytes = warp.word(*bytes, exec)?[lane as usize] & 0xffff_ffff;
                if bytes == 0 || !bytes.is_multiple_of(16) {
                    return stop(
                        Kind::Operand,
                        lane,
                        format!("a bulk copy of {bytes} bytes, no multiple of 16"),
                    );
                }
                if !address.is_multiple_of(16) {
                    let text = format!("a bulk copy at {address:#x}, no multiple of 16");
                    return stop(Kind::Misaligned, lane, text);
                }
                Ok((vec![(0, Some(address), bytes)], Swizzle::None))
            }
            Far::Box(map, coordinates) => {
                let map = self.map(rank, warp, (exec, lane), *map)?;
                let mut at = Vec::new();
                for slot in coordinates {
                    at.push(i64::from(warp.word(*slot, exec)?[lane as usize] as i32));
                }
                if at.len() != map.dims.len() {
                    let text = format!(
                        "{} coordinates of a map of {} dimensions",
                        at.len(),
                        map.dims.len()
                    );
                    return stop(Kind::Operand, lane, text);
                }
                Ok((box_pieces(&map, &at), map.swizzle))
            }
        }
    }

    fn map(
        &self,
        rank: usize,
        warp: &Warp,
        (exec, lane): (u32, u32),
        map: Address,
    ) -> Result<TensorMap, Stop> {
        let address = self.lane_address(warp, exec, lane, map)?;
        if !address.is_multiple_of(64) {
            return stop(
                Kind::Misaligned,
                lane,
                format!("a tensor map at {address:#x}, no multiple of 64"),
            );
        }
        let bytes: Option<Vec<u8>> = match self.target(rank, lane, Space::Generic, address)? {
            Target::Param(at) => {
                self.shape.params.get(at as usize..at as usize + 128).map(<[u8]>::to_vec)
            }
            Target::Global(at) => self.shape.device.read(at, 128).ok(),
            _ => None,
        };
        let map = bytes.and_then(|bytes| TensorMap::decode(&bytes.try_into().ok()?));
        map.ok_or_else(|| Stop {
            kind: Kind::Operand,
            lane,
            sentence: format!("no tensor map is at {address:#x}"),
        })
    }

    fn copy_in(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        (exec, lane): (u32, u32),
        (to, barrier): (Address, Address),
        from: &Far,
        blocks: u32,
    ) -> Result<(), Stop> {
        let (pieces, swizzle) = self.pieces(rank, warp, (exec, lane), from)?;
        let tensor = matches!(from, Far::Box(..));
        let to = self.lane_address(warp, exec, lane, to)?;
        let barrier = self.lane_address(warp, exec, lane, barrier)?;
        let mut data = Vec::new();
        for (_, address, bytes) in &pieces {
            match address {
                None => data.resize(data.len() + *bytes as usize, 0),
                Some(address) => {
                    let run = (*address, *bytes, 1);
                    let (index, offset) = self.global_read_run(rank, warp, lane, run)?;
                    let memory = self.shape.device.at(index);
                    data.extend((0..*bytes).map(|at| memory.get(offset + at, 1) as u8));
                }
            }
        }
        let owners: Vec<(u64, u64)> = if blocks == NONE {
            vec![(to, barrier)]
        } else {
            let mask = warp.word(blocks, exec)?[lane as usize] as u32;
            if mask == 0 || mask >> self.blocks.len() != 0 {
                return stop(
                    Kind::Operand,
                    lane,
                    format!("a copy to blocks {mask:#b} of the cluster"),
                );
            }
            let low = (1 << super::memory::RANK_SHIFT) - 1;
            lanes(mask)
                .map(|block| u64::from(block + 1) << super::memory::RANK_SHIFT)
                .map(|block| (block | to & low, block | barrier & low))
                .collect()
        };
        for (to, barrier) in owners {
            let (barrier_owner, barrier_at) = self.remote_barrier(rank, warp, lane, barrier)?;
            let stamp = self.copy_stamp(warp, lane, barrier_owner, barrier_at)?;
            let align = if tensor { 128 } else { 16 };
            self.land_bulk((rank, lane), warp, (to, align), &data, swizzle, stamp)?;
            self.complete_bytes(barrier_owner, barrier_at, data.len() as u64);
        }
        Ok(())
    }

    fn remote_barrier(
        &mut self,
        rank: usize,
        warp: &Warp,
        lane: u32,
        address: u64,
    ) -> Result<(usize, u64), Stop> {
        self.barrier_at(rank, warp, lane, address)
    }

    /// Write `data` to shared memory as hardware does.
    fn land_bulk(
        &mut self,
        (rank, lane): (usize, u32),
        warp: &Warp,
        (to, align): (u64, u64),
        data: &[u8],
        swizzle: Swizzle,
        (agent, clock): (u32, u32),
    ) -> Result<(), Stop> {
        let Target::Shared(owner, at) = self.target(rank, lane, Space::Shared, to)? else {
            unreachable!("a shared address has a shared target");
        };
        let shared = &mut self.blocks[owner].shared;
        let bytes = data.len() as u64;
        let who = Who::hardware(&warp.clock, lane, agent, clock);
        let verdict = shared
            .holds(at, bytes, align)
            .and_then(|()| shared.note_write(at, bytes, Written::Async, &who));
        at_lane(lane, verdict)?;
        for (index, piece) in data.chunks(16).enumerate() {
            let place = swizzle.place(at + 16 * index as u64);
            let inside = shared.holds(place, piece.len() as u64, 1);
            at_lane(lane, inside)?;
            shared.bytes[place as usize..place as usize + piece.len()].copy_from_slice(piece);
        }
        Ok(())
    }

    fn copy_out(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        (exec, lane): (u32, u32),
        to: &Far,
        from: Address,
    ) -> Result<(), Stop> {
        let (pieces, swizzle) = self.pieces(rank, warp, (exec, lane), to)?;
        let align = if matches!(to, Far::Box(..)) { 128 } else { 16 };
        let from = self.lane_address(warp, exec, lane, from)?;
        let Target::Shared(owner, at) = self.target(rank, lane, Space::Shared, from)? else {
            unreachable!("a shared address has a shared target");
        };
        let agent = self.store_agent(warp);
        let open = warp.bulk_clock + 1;
        let total: u64 = pieces.iter().map(|piece| piece.2).sum();
        let shared = &mut self.blocks[owner].shared;
        at_lane(lane, shared.holds(at, total, align))?;
        let mut data = Vec::with_capacity(total as usize);
        for (offset, address, bytes) in &pieces {
            if address.is_some() {
                let who = Who::hardware(&warp.clock, lane, agent, open);
                for piece in (0..*bytes).step_by(16) {
                    let place = swizzle.place(at + offset + piece);
                    let length = (*bytes - piece).min(16);
                    at_lane(lane, shared.note_read(place, length, &who))?;
                }
            }
            for byte in 0..*bytes {
                data.push(shared.bytes[swizzle.place(at + offset + byte) as usize]);
            }
        }
        for (offset, address, bytes) in pieces {
            let Some(address) = address else { continue };
            let (index, place) =
                self.global_write_run(rank, warp, lane, (address, bytes, 1), false)?;
            let memory = self.shape.device.at(index);
            for byte in 0..bytes {
                memory.put(place + byte, 1, u64::from(data[(offset + byte) as usize]));
            }
        }
        warp.bulk_open |= 1 << lane;
        Ok(())
    }

    fn copy_across(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        (exec, lane): (u32, u32),
        [to, from, barrier]: [Address; 3],
        bytes: u64,
    ) -> Result<(), Stop> {
        let [to, from, barrier] =
            [to, from, barrier].map(|place| self.lane_address(warp, exec, lane, place));
        let (to, from, barrier) = (to?, from?, barrier?);
        let (owner, at) = self.remote_barrier(rank, warp, lane, barrier)?;
        let stamp = self.copy_stamp(warp, lane, owner, at)?;
        let Target::Shared(source, place) = self.target(rank, lane, Space::Shared, from)? else {
            unreachable!("a shared address has a shared target");
        };
        let shared = &mut self.blocks[source].shared;
        let who = Who::hardware(&warp.clock, lane, stamp.0, stamp.1);
        let verdict =
            shared.holds(place, bytes, 16).and_then(|()| shared.note_read(place, bytes, &who));
        at_lane(lane, verdict)?;
        let data = shared.bytes[place as usize..(place + bytes) as usize].to_vec();
        self.land_bulk((rank, lane), warp, (to, 16), &data, Swizzle::None, stamp)?;
        self.complete_bytes(owner, at, bytes);
        Ok(())
    }

    /// Agent that stands for what leaves shared memory for a warp.
    fn store_agent(&self, warp: &Warp) -> u32 {
        2 * self.shape.warps() * self.shape.cluster_blocks() + warp.clock.agent
    }

    pub(super) fn bulk_commit(warp: &mut Warp, exec: u32) {
        warp.bulk_clock += 1;
        for lane in lanes(exec) {
            warp.bulk_groups.push((lane, warp.bulk_clock, warp.bulk_open >> lane & 1 == 1));
        }
        warp.bulk_open &= !exec;
    }

    pub(super) fn bulk_wait(&self, warp: &mut Warp, exec: u32, pending: u32) {
        let agent = self.store_agent(warp);
        for lane in lanes(exec) {
            let mine = warp.bulk_groups.iter().filter(|(it, ..)| *it == lane).count();
            let mut over = mine.saturating_sub(pending as usize);
            let mut last = 0;
            warp.bulk_groups.retain(|(it, clock, _)| {
                let done = *it == lane && over > 0;
                if done {
                    over -= 1;
                    last = *clock;
                }
                !done
            });
            let mut known = crate::order::Knowledge::default();
            known.order.learn_lane(agent, lane, last);
            warp.clock.learn(1 << lane, warp.live, &known);
        }
    }
}

/// Rows of the box of `map` at `at`; a row that lies partly outside is cut into pieces.
fn box_pieces(map: &TensorMap, at: &[i64]) -> Vec<Piece> {
    let element = u64::from(map.element);
    let inner = i64::from(map.box_dims[0]);
    let (first, end) = (at[0], at[0] + inner);
    let (from, to) = (first.clamp(0, map.dims[0] as i64), end.clamp(0, map.dims[0] as i64));
    let rows: u64 = map.box_dims[1..].iter().map(|it| u64::from(*it)).product();
    let mut pieces = Vec::new();
    for row in 0..rows {
        let mut rest = row;
        let mut address = map.base;
        let mut inside = from < to;
        for (axis, size) in map.box_dims.iter().enumerate().skip(1) {
            let index = at[axis] + (rest % u64::from(*size)) as i64;
            rest /= u64::from(*size);
            inside &= (0..map.dims[axis] as i64).contains(&index);
            address = address.wrapping_add((index as u64).wrapping_mul(map.strides[axis - 1]));
        }
        let start = row * inner as u64 * element;
        let mut push = |low: i64, high: i64, global: bool| {
            if low < high {
                let offset = start + (low - first) as u64 * element;
                let place = address.wrapping_add(low as u64 * element);
                pieces.push((offset, global.then_some(place), (high - low) as u64 * element));
            }
        };
        if inside {
            push(first, from, false);
            push(from, to, true);
            push(to, end, false);
        } else {
            push(first, end, false);
        }
    }
    debug_assert_eq!(
        pieces.iter().map(|piece| piece.2).sum::<u64>(),
        map.box_bytes(),
        "pieces fill the box"
    );
    pieces
}
