//! Loads, stores and atomics: addresses to places, places to values.

use super::Machine;
use super::alu::each;
use super::step::Next;
use crate::code::{
    Access, Address, Atomic, AtomicOp, LOCAL_WINDOW, Order, PARAM_WINDOW, SHARED_WINDOW, Space,
    TABLE_WINDOW, WINDOW,
};
use crate::fault::{Kind, Stop, stop};
use crate::order::lanes;
use crate::shared::{Who, Written};
use crate::warp::Warp;

/// What an address means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Global(u64),
    /// Rank of the block in the cluster, and where.
    Shared(usize, u64),
    Local(u64),
    Param(u64),
    Table(u64),
}

fn global(address: u64) -> Target {
    match address & !(WINDOW - 1) {
        TABLE_WINDOW => Target::Table(address - TABLE_WINDOW),
        _ => Target::Global(address),
    }
}

/// Bits of a shared address below the rank of another block.
pub(crate) const RANK_SHIFT: u32 = 24;

impl Machine<'_> {
    /// Address of one lane.
    pub(super) fn lane_address(
        &self,
        warp: &Warp,
        exec: u32,
        lane: u32,
        address: Address,
    ) -> Result<u64, Stop> {
        let base = warp.word(address.base, exec)?[lane as usize];
        Ok(base.wrapping_add(address.offset as u64))
    }

    pub(super) fn target(
        &self,
        rank: usize,
        lane: u32,
        space: Space,
        address: u64,
    ) -> Result<Target, Stop> {
        Ok(match space {
            Space::Global => global(address),
            Space::Shared => return self.shared_target(rank, lane, address as u32),
            Space::Local => Target::Local(address),
            Space::Param => Target::Param(address),
            Space::Generic => match address & !(WINDOW - 1) {
                SHARED_WINDOW => return self.shared_target(rank, lane, address as u32),
                LOCAL_WINDOW => Target::Local(address - LOCAL_WINDOW),
                PARAM_WINDOW => Target::Param(address - PARAM_WINDOW),
                _ => global(address),
            },
        })
    }

    pub(super) fn shared_target(
        &self,
        rank: usize,
        lane: u32,
        address: u32,
    ) -> Result<Target, Stop> {
        let at = u64::from(address & ((1 << RANK_SHIFT) - 1));
        match (address >> RANK_SHIFT) as usize {
            0 => Ok(Target::Shared(rank, at)),
            other if other <= self.blocks.len() && self.blocks[other - 1].has_left() => {
                stop(Kind::Race, lane, "shared memory of a block that has left")
            }
            other if other <= self.blocks.len() => Ok(Target::Shared(other - 1, at)),
            _ => stop(Kind::OutOfBounds, lane, format!("no shared memory is at {address:#x}")),
        }
    }

    pub(super) fn load(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        access: &Access,
    ) -> Result<Next, Stop> {
        let count = access.regs.len();
        let bytes = u64::from(access.size) * count as u64;
        let mut out = [[0u64; 32]; 8];
        let base = *warp.word(access.address.base, exec)?;
        self.note_banks(exec, &base, access, bytes);
        for lane in lanes(exec) {
            let address = base[lane as usize].wrapping_add(access.address.offset as u64);
            let at = lane as usize;
            match self.target(rank, lane, access.space, address)? {
                Target::Global(address) => {
                    let (index, offset) =
                        self.global_read(rank, warp, lane, address, bytes, access.order)?;
                    let memory = self.shape.device.at(index);
                    for (element, out) in out[..count].iter_mut().enumerate() {
                        out[at] = memory
                            .get(offset + element as u64 * u64::from(access.size), access.size);
                    }
                }
                Target::Shared(owner, place) => {
                    let mut who = Who::thread(&warp.clock, lane);
                    who.atomic = access.order != Order::Weak;
                    let shared = &mut self.blocks[owner].shared;
                    let verdict = shared
                        .holds(place, bytes, bytes)
                        .and_then(|()| shared.note_read(place, bytes, &who));
                    verdict.map_err(|(kind, sentence)| Stop { kind, lane, sentence })?;
                    for (element, out) in out[..count].iter_mut().enumerate() {
                        out[at] = shared
                            .get(place + element as u64 * u64::from(access.size), access.size);
                    }
                }
                Target::Local(place) => {
                    let first = self.local(warp, lane, place, bytes)?;
                    if !warp.local_set[first..first + bytes as usize].iter().all(|set| *set) {
                        return stop(
                            Kind::Uninitialised,
                            lane,
                            "local memory is read that was never written",
                        );
                    }
                    for (element, out) in out[..count].iter_mut().enumerate() {
                        let from = first + element * access.size as usize;
                        out[at] = little(&warp.local[from..from + access.size as usize]);
                    }
                }
                Target::Param(place) => {
                    constant(self.shape.params, (place, lane), access.size, &mut out[..count])?;
                }
                Target::Table(place) => {
                    let tables = &self.shape.kernel.tables;
                    constant(tables, (place, lane), access.size, &mut out[..count])?;
                }
            }
        }
        if access.order != Order::Weak {
            self.acquire(warp, exec, &base, access.address.offset, access.order);
        }
        for (reg, lanes) in access.regs.iter().zip(&mut out) {
            if access.signed && access.size * 8 < access.width {
                let shift = 64 - access.size * 8;
                let mask = u64::MAX >> (64 - access.width);
                *lanes = lanes.map(|word| ((word << shift) as i64 >> shift) as u64 & mask);
            }
            warp.write(*reg, exec, lanes)?;
        }
        Ok(if access.order == Order::Weak { Next::On } else { Next::Pause })
    }

    pub(super) fn store(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        access: &Access,
    ) -> Result<(), Stop> {
        let count = access.regs.len();
        let bytes = u64::from(access.size) * count as u64;
        let mut values = [[0u64; 32]; 8];
        for (value, reg) in values.iter_mut().zip(&access.regs) {
            *value = *warp.word(*reg, exec)?;
        }
        let base = *warp.word(access.address.base, exec)?;
        self.note_banks(exec, &base, access, bytes);
        if access.order != Order::Weak {
            self.release(rank, warp, exec, &base, access.address.offset, access.order);
        }
        for lane in lanes(exec) {
            let address = base[lane as usize].wrapping_add(access.address.offset as u64);
            let at = lane as usize;
            match self.target(rank, lane, access.space, address)? {
                Target::Global(address) => {
                    let atomic = access.order != Order::Weak;
                    let (index, offset) =
                        self.global_write(rank, warp, lane, address, bytes, atomic)?;
                    let memory = self.shape.device.at(index);
                    for (element, value) in values[..count].iter().enumerate() {
                        let to = offset + element as u64 * u64::from(access.size);
                        memory.put(to, access.size, value[at]);
                    }
                }
                Target::Shared(owner, place) => {
                    let mut who = Who::thread(&warp.clock, lane);
                    who.atomic = access.order != Order::Weak;
                    let how = if who.atomic { Written::Atomic } else { Written::Plain };
                    let shared = &mut self.blocks[owner].shared;
                    let verdict = shared
                        .holds(place, bytes, bytes)
                        .and_then(|()| shared.note_write(place, bytes, how, &who));
                    verdict.map_err(|(kind, sentence)| Stop { kind, lane, sentence })?;
                    for (element, value) in values[..count].iter().enumerate() {
                        let to = place + element as u64 * u64::from(access.size);
                        shared.put(to, access.size, value[at]);
                    }
                }
                Target::Local(place) => {
                    let first = self.local(warp, lane, place, bytes)?;
                    warp.local_set[first..first + bytes as usize].fill(true);
                    for (element, value) in values[..count].iter().enumerate() {
                        let from = first + element * access.size as usize;
                        let size = access.size as usize;
                        warp.local[from..from + size]
                            .copy_from_slice(&value[at].to_le_bytes()[..size]);
                    }
                }
                Target::Param(_) | Target::Table(_) => {
                    let text = "a parameter or table is written";
                    return stop(Kind::OutOfBounds, lane, text);
                }
            }
        }
        Ok(())
    }

    fn local(&self, warp: &Warp, lane: u32, place: u64, bytes: u64) -> Result<usize, Stop> {
        let each = self.shape.kernel.local_bytes;
        if place.checked_add(bytes).is_none_or(|end| end > each) {
            let text = format!("{bytes} bytes at {place:#x} of local memory, which has {each}");
            return stop(Kind::OutOfBounds, lane, text);
        }
        if !place.is_multiple_of(bytes) {
            return stop(
                Kind::Misaligned,
                lane,
                format!("local address {place:#x} is no multiple of {bytes}"),
            );
        }
        debug_assert!(warp.local.len() as u64 == each * 32, "each lane has its part");
        Ok((u64::from(lane) * each + place) as usize)
    }

    pub(super) fn atomic(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        atomic: &Atomic,
    ) -> Result<Next, Stop> {
        let a = *warp.word(atomic.a, exec)?;
        let b = *warp.word(atomic.b, exec)?;
        let base = *warp.word(atomic.address.base, exec)?;
        let size = atomic.size;
        self.release(rank, warp, exec, &base, atomic.address.offset, atomic.order);
        let mut old = [0; 32];
        for lane in lanes(exec) {
            let address = base[lane as usize].wrapping_add(atomic.address.offset as u64);
            let at = lane as usize;
            let new = |old: u64| combine(atomic, old, a[at], b[at]);
            match self.target(rank, lane, atomic.space, address)? {
                Target::Global(address) => {
                    let order = Order::Relaxed;
                    self.global_read(rank, warp, lane, address, u64::from(size), order)?;
                    let (index, offset) =
                        self.global_write(rank, warp, lane, address, u64::from(size), true)?;
                    let memory = self.shape.device.at(index);
                    old[at] = memory.get(offset, size);
                    memory.put(offset, size, new(old[at]));
                }
                Target::Shared(owner, place) => {
                    let mut who = Who::thread(&warp.clock, lane);
                    who.atomic = true;
                    let shared = &mut self.blocks[owner].shared;
                    let bytes = u64::from(size);
                    let verdict = shared
                        .holds(place, bytes, bytes)
                        .and_then(|()| shared.note_read(place, bytes, &who))
                        .and_then(|()| shared.note_write(place, bytes, Written::Atomic, &who));
                    verdict.map_err(|(kind, sentence)| Stop { kind, lane, sentence })?;
                    old[at] = shared.get(place, size);
                    shared.put(place, size, new(old[at]));
                }
                _ => {
                    return stop(
                        Kind::OutOfBounds,
                        lane,
                        "an atomic needs global or shared memory",
                    );
                }
            }
        }
        self.acquire(warp, exec, &base, atomic.address.offset, atomic.order);
        warp.write(atomic.dest, exec, &each(exec, |lane| old[lane]))?;
        Ok(Next::Pause)
    }

    pub(super) fn hint(
        &self,
        rank: usize,
        warp: &Warp,
        exec: u32,
        space: Space,
        address: Address,
    ) -> Result<(), Stop> {
        for lane in lanes(exec) {
            let address = self.lane_address(warp, exec, lane, address)?;
            if let Target::Global(address) = self.target(rank, lane, space, address)?
                && self.shape.device.index(address).is_none()
            {
                return stop(
                    Kind::OutOfBounds,
                    lane,
                    format!("a hint names {address:#x}, where nothing is"),
                );
            }
        }
        Ok(())
    }
}

fn combine(atomic: &Atomic, old: u64, a: u64, b: u64) -> u64 {
    let mask = u64::MAX >> (64 - atomic.size * 8);
    let signed = |word: u64| {
        let shift = 64 - atomic.size * 8;
        (word << shift) as i64 >> shift
    };
    let (old, a, b) = (old & mask, a & mask, b & mask);
    let new = match atomic.op {
        AtomicOp::Add => old.wrapping_add(a),
        AtomicOp::AddF32 => {
            u64::from((f32::from_bits(old as u32) + f32::from_bits(a as u32)).to_bits())
        }
        AtomicOp::Min if atomic.signed => signed(old).min(signed(a)) as u64,
        AtomicOp::Max if atomic.signed => signed(old).max(signed(a)) as u64,
        AtomicOp::Min => old.min(a),
        AtomicOp::Max => old.max(a),
        AtomicOp::And => old & a,
        AtomicOp::Or => old | a,
        AtomicOp::Xor => old ^ a,
        AtomicOp::Exchange => a,
        AtomicOp::CompareExchange => {
            if old == a {
                b
            } else {
                old
            }
        }
        AtomicOp::Increment => {
            if old >= a {
                0
            } else {
                old + 1
            }
        }
        AtomicOp::Decrement => {
            if old == 0 || old > a {
                a
            } else {
                old - 1
            }
        }
    };
    new & mask
}

/// Elements from `place` of bytes that never change.
fn constant(
    bytes: &[u8],
    (place, lane): (u64, u32),
    size: u32,
    out: &mut [[u64; 32]],
) -> Result<(), Stop> {
    for (element, out) in out.iter_mut().enumerate() {
        let from = place as usize + element * size as usize;
        match bytes.get(from..from + size as usize) {
            Some(bytes) => out[lane as usize] = little(bytes),
            None => {
                let text = "a parameter or table is read beyond its end";
                return stop(Kind::OutOfBounds, lane, text);
            }
        }
    }
    Ok(())
}

fn little(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}
