//! Global memory: bounds, alignment, what was written, and races inside and between blocks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Machine;
use crate::code::Order;
use crate::device::Record;
use crate::fault::{Kind, Stop, stop};
use crate::order::lanes;
use crate::warp::{Lanes, Warp};

impl Machine<'_> {
    fn place(
        &self,
        warp: &mut Warp,
        lane: u32,
        address: u64,
        bytes: u64,
        align: u64,
    ) -> Result<(usize, u64), Stop> {
        let device = self.shape.device;
        let near = device.allocation_at(warp.near);
        let inside = near.is_some_and(|it| address.wrapping_sub(it.base) < it.bytes);
        if !inside {
            match device.index(address) {
                Some(found) => warp.near = found,
                None => {
                    let text = format!("no allocation is at global address {address:#x}");
                    return stop(Kind::OutOfBounds, lane, text);
                }
            }
        }
        let found = device.at(warp.near);
        let offset = address - found.base;
        if found.bytes - offset < bytes {
            let text = format!(
                "{bytes} bytes at offset {offset} of an allocation of {} bytes",
                found.bytes
            );
            return stop(Kind::OutOfBounds, lane, text);
        }
        if !address.is_multiple_of(align) {
            let text = format!("global address {address:#x} is no multiple of {align}");
            return stop(Kind::Misaligned, lane, text);
        }
        Ok((warp.near, offset))
    }

    fn mine(&self, rank: usize, warp: &Warp, lane: u32, mask: u8, atomic: bool) -> Record {
        Record {
            mask,
            atomic,
            launch: self.shape.launch,
            block: self.blocks[rank].linear,
            thread: warp.index * 32 + lane,
            clock: warp.clock.now,
            ..Record::default()
        }
    }

    /// Is what `record` says before what `lane` does now?
    fn before(&self, rank: usize, warp: &Warp, lane: u32, record: &Record) -> bool {
        if record.launch != self.shape.launch {
            return true;
        }
        let block = &self.blocks[rank];
        let (their_warp, their_lane) = (record.thread / 32, record.thread % 32);
        if record.block == block.linear {
            if record.many {
                return record.clock < block.era || block.partial;
            }
            let agent = rank as u32 * self.shape.warps() + their_warp;
            return warp.clock.after(lane, agent, their_lane, record.clock);
        }
        let sister = self.blocks.iter().position(|it| it.linear == record.block);
        if let Some(sister) = sister {
            let agent = sister as u32 * self.shape.warps() + their_warp;
            return record.many || warp.clock.after(lane, agent, their_lane, record.clock);
        }
        if record.many || record.blocks {
            // Blocks that talk may have been ordered through words this record has no room for.
            return self.shape.kernel.talks;
        }
        let rank = self.shape.rank_of(record.block);
        let agent = rank * self.shape.warps() + their_warp;
        warp.clock.after_block(lane, record.block, agent, their_lane, record.clock)
    }

    /// Look at and note a read of `bytes`; gives the allocation and the offset in it.
    pub(super) fn global_read(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        lane: u32,
        address: u64,
        bytes: u64,
        order: Order,
    ) -> Result<(usize, u64), Stop> {
        let (index, offset) = self.place(warp, lane, address, bytes, bytes)?;
        self.note_global_read(rank, warp, lane, (index, offset), bytes, order != Order::Weak)?;
        Ok((index, offset))
    }

    /// The same for bytes that hardware reads, at any multiple of `align`.
    pub(super) fn global_read_run(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        lane: u32,
        (address, bytes, align): (u64, u64, u64),
    ) -> Result<(usize, u64), Stop> {
        let place = self.place(warp, lane, address, bytes, align)?;
        self.note_global_read(rank, warp, lane, place, bytes, false)?;
        Ok(place)
    }

    fn note_global_read(
        &mut self,
        rank: usize,
        warp: &Warp,
        lane: u32,
        (index, offset): (usize, u64),
        bytes: u64,
        relaxed: bool,
    ) -> Result<(), Stop> {
        let launch = u64::from(self.shape.launch);
        for (written, read, mask) in self.shape.device.at(index).grains(offset, bytes) {
            let word = written.load(Relaxed);
            if word as u8 & mask != mask {
                let text =
                    format!("offset {offset} of an allocation is read but was never written");
                return stop(Kind::Uninitialised, lane, text);
            }
            let earlier = word >> 8 & 0xff;
            if !warp.waited && earlier != launch && !self.shape.device.has_settled(earlier as u32) {
                let text = "what an earlier kernel wrote is read before `griddepcontrol.wait`";
                return stop(Kind::Race, lane, text);
            }
            if word >> 8 & 0xff == launch {
                let record = Record::unpack(word);
                let fine = record.mask & mask == 0
                    || record.mixed
                    || record.atomic && relaxed
                    || self.before(rank, warp, lane, &record);
                if !fine {
                    return self.race(lane, &record, offset, "reads what", "wrote");
                }
            }
            self.note_reader(rank, warp, lane, read, mask, relaxed);
        }
        Ok(())
    }

    fn note_reader(
        &self,
        rank: usize,
        warp: &Warp,
        lane: u32,
        read: &AtomicU64,
        mask: u8,
        relaxed: bool,
    ) {
        let mine = self.mine(rank, warp, lane, mask, relaxed);
        let word = read.load(Relaxed);
        let packed = mine.pack();
        if word == packed {
            return;
        }
        let old = Record::unpack(word);
        if old.launch != mine.launch || old.block == mine.block && old.thread == mine.thread {
            let both = Record {
                mask: mask | if old.launch == mine.launch { old.mask } else { 0 },
                ..mine
            };
            read.store(both.pack(), Relaxed);
            return;
        }
        let mixed = old.mixed || old.mask != mask;
        let both = Record { mask: old.mask | mask, mixed, atomic: old.atomic && relaxed, ..mine };
        let new = if old.blocks || old.block != mine.block {
            Record { blocks: true, many: true, ..both }
        } else if self.before(rank, warp, lane, &old) {
            // Who is after this reader is after all those.
            mine
        } else {
            Record { many: true, clock: self.blocks[rank].era, ..both }
        };
        let new = new.pack();
        if new != word {
            read.store(new, Relaxed);
        }
    }

    /// Look at and note a write of `bytes`; gives the allocation and the offset in it.
    pub(super) fn global_write(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        lane: u32,
        address: u64,
        bytes: u64,
        atomic: bool,
    ) -> Result<(usize, u64), Stop> {
        self.global_write_run(rank, warp, lane, (address, bytes, bytes), atomic)
    }

    pub(super) fn global_write_run(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        lane: u32,
        (address, bytes, align): (u64, u64, u64),
        atomic: bool,
    ) -> Result<(usize, u64), Stop> {
        let (index, offset) = self.place(warp, lane, address, bytes, align)?;
        if !warp.waited {
            let text = "global memory is written before `griddepcontrol.wait`";
            return stop(Kind::Race, lane, text);
        }
        for (written, read, mask) in self.shape.device.at(index).grains(offset, bytes) {
            let mut mine = self.mine(rank, warp, lane, mask, atomic);
            let old = Record::unpack(written.load(Relaxed));
            mine.set = old.set | mask;
            if old.launch == mine.launch
                && !self.before(rank, warp, lane, &old)
                && !(old.atomic && atomic)
            {
                if old.mask & mask != 0 && !old.mixed {
                    return self.race(lane, &old, offset, "overwrites what", "wrote");
                }
                mine.mixed = true;
                mine.mask |= old.mask;
            }
            let reader = Record::unpack(read.load(Relaxed));
            if reader.launch == mine.launch
                && reader.mask & mask != 0
                && !reader.mixed
                && !(reader.atomic && atomic)
                && !self.before(rank, warp, lane, &reader)
            {
                return self.race(lane, &reader, offset, "writes what", "reads");
            }
            written.store(mine.pack(), Relaxed);
        }
        Ok((index, offset))
    }

    #[cold]
    fn race<T>(
        &self,
        lane: u32,
        record: &Record,
        offset: u64,
        verb: &str,
        theirs: &str,
    ) -> Result<T, Stop> {
        let who = match (record.blocks, record.many) {
            (true, _) => "other blocks".to_owned(),
            (_, true) => format!("several threads of block {}", record.block),
            _ => format!("thread {} of block {}", record.thread, record.block),
        };
        let text = format!(
            "{verb} {who} {theirs} at offset {offset} of an allocation, and nothing orders the two"
        );
        stop(Kind::Race, lane, text)
    }

    /// Lanes learn what was published through the words they read.
    pub(super) fn acquire(
        &mut self,
        warp: &mut Warp,
        exec: u32,
        base: &Lanes,
        offset: i64,
        order: Order,
    ) {
        let words = self.words.borrow();
        if words.is_empty() {
            return;
        }
        for lane in lanes(exec) {
            let address = base[lane as usize].wrapping_add(offset as u64);
            let Some(known) = words.get(&address) else { continue };
            if order.acquires() {
                warp.clock.learn(1 << lane, warp.live, known);
            } else {
                warp.clock.see(1 << lane, known);
            }
        }
    }

    /// Lanes publish through the words they write, if they release or have fenced before.
    pub(super) fn release(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        base: &Lanes,
        offset: i64,
        order: Order,
    ) {
        for lane in lanes(exec) {
            if !order.releases() && warp.clock.fenced >> lane & 1 == 0 {
                continue;
            }
            let address = base[lane as usize].wrapping_add(offset as u64);
            let known = warp.clock.publish(1 << lane, warp.live, self.blocks[rank].linear);
            self.words.borrow_mut().entry(address).or_default().join(&known);
        }
    }

    pub(super) fn fence(&mut self, warp: &mut Warp, exec: u32) {
        warp.clock.fence(exec, warp.live);
    }
}
