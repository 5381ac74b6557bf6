//! Global memory: allocations at addresses with gaps between them, and what is known of each byte.
//!
//! Words are relaxed atomics, so that blocks may run on several threads. Beside each pair of bytes
//! stand two records: its last write and its last read, by launch, block, thread and clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::fault::{Fault, Kind};

/// Bytes that share a record.
const GRAIN: usize = 2;
/// Addresses of global memory begin here.
const FIRST: u64 = 1 << 44;
const GAP: u64 = 1 << 16;

/// Launches a record can tell apart; then records start over.
const LAUNCHES: u32 = 1 << 8;
pub(crate) const MAX_BLOCKS: u64 = 1 << 20;
pub(crate) const MAX_CLOCK: u32 = (1 << 18) - 1;

/// The memory of a device. Launches need it shared; allocating and freeing need it alone.
#[derive(Debug, Default)]
pub struct Device {
    allocations: Vec<Arc<Allocation>>,
    /// For each of them: another device has it, too, and no kernel may write to it here.
    frozen: Vec<bool>,
    end: u64,
    launches: AtomicU32,
    /// Launches up to this one have ended before any later one starts.
    settled: AtomicU32,
}

#[derive(Debug)]
pub(crate) struct Allocation {
    pub base: u64,
    pub bytes: u64,
    words: Vec<AtomicU32>,
    written: Vec<AtomicU64>,
    read: Vec<AtomicU64>,
}

/// Who touched a grain last, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Bytes that were ever written (of write records).
    pub set: u8,
    /// Bytes that the last access touched.
    pub mask: u8,
    /// Several threads touched different bytes: nothing can be said of one of them.
    pub mixed: bool,
    /// Several threads of the block; `clock` then counts the block's barriers.
    pub many: bool,
    /// Several blocks.
    pub blocks: bool,
    /// An atomic or relaxed access.
    pub atomic: bool,
    pub launch: u32,
    pub block: u32,
    pub thread: u32,
    pub clock: u32,
}

impl Record {
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.set)
            | u64::from(self.mask) << 2
            | u64::from(self.mixed) << 4
            | u64::from(self.many) << 5
            | u64::from(self.blocks) << 6
            | u64::from(self.atomic) << 7
            | u64::from(self.launch) << 8
            | u64::from(self.block) << 16
            | u64::from(self.thread) << 36
            | u64::from(self.clock.min(MAX_CLOCK)) << 46
    }

    pub(crate) fn unpack(word: u64) -> Self {
        Self {
            set: (word & 3) as u8,
            mask: (word >> 2 & 3) as u8,
            mixed: word >> 4 & 1 == 1,
            many: word >> 5 & 1 == 1,
            blocks: word >> 6 & 1 == 1,
            atomic: word >> 7 & 1 == 1,
            launch: (word >> 8) as u32 & (LAUNCHES - 1),
            block: (word >> 16) as u32 & (MAX_BLOCKS as u32 - 1),
            thread: (word >> 36) as u32 & 0x3ff,
            clock: (word >> 46) as u32,
        }
    }
}

impl Device {
    pub fn new() -> Self {
        Self { end: FIRST, ..Self::default() }
    }

    /// `bytes` of memory at an address that is a multiple of 256; nothing is written to them.
    pub fn alloc(&mut self, bytes: u64) -> u64 {
        let base = self.end;
        self.end = (base + bytes + GAP).next_multiple_of(256);
        let grains = (bytes as usize).div_ceil(GRAIN);
        self.allocations.push(Arc::new(Allocation {
            base,
            bytes,
            words: zeros(bytes.div_ceil(4) as usize),
            written: zeros(grains),
            read: zeros(grains),
        }));
        self.frozen.push(false);
        base
    }

    /// Give back what [`Device::alloc`] gave; `false` if there is no such allocation.
    pub fn free(&mut self, base: u64) -> bool {
        let found = self.allocations.iter().position(|allocation| allocation.base == base);
        if let Some(at) = found {
            self.allocations.remove(at);
            self.frozen.remove(at);
        }
        found.is_some()
    }

    /// Allocation around `address` with its size.
    pub fn allocation(&self, address: u64) -> Option<(u64, u64)> {
        let found = &self.allocations[self.index(address)?];
        Some((found.base, found.bytes))
    }

    /// Base and size of each allocation.
    pub fn allocations(&self) -> impl Iterator<Item = (u64, u64)> {
        self.allocations.iter().map(|it| (it.base, it.bytes))
    }

    /// Copy `data` to `address`; its bytes count as written.
    ///
    /// # Errors
    ///
    /// [`Kind::OutOfBounds`] if an allocation does not hold all of it.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), Fault> {
        let allocation = self.holding(address, data.len() as u64)?;
        let start = address - allocation.base;
        let mut at = 0;
        while at < data.len() {
            // Whole words where they fit: copies of weights are large.
            let size =
                if (start + at as u64).is_multiple_of(4) && data.len() - at >= 4 { 4 } else { 1 };
            let mut word = [0; 8];
            word[..size].copy_from_slice(&data[at..at + size]);
            allocation.put(start + at as u64, size as u32, u64::from_le_bytes(word));
            at += size;
        }
        let first = (address - allocation.base) as usize;
        for at in first..first + data.len() {
            let grain = &allocation.written[at / GRAIN];
            let mut record = Record::unpack(grain.load(Relaxed));
            record = Record { set: record.set | 1 << (at % GRAIN), ..Record::default() };
            grain.store(record.pack(), Relaxed);
        }
        Ok(())
    }

    /// Copy `bytes` from `address`, written or not.
    ///
    /// # Errors
    ///
    /// [`Kind::OutOfBounds`] if an allocation does not hold all of it.
    pub fn read(&self, address: u64, bytes: u64) -> Result<Vec<u8>, Fault> {
        let allocation = self.holding(address, bytes)?;
        let first = address - allocation.base;
        Ok((first..first + bytes).map(|at| allocation.get(at, 1) as u8).collect())
    }

    /// Which of `bytes` from `address` on were written by the host or by a kernel.
    ///
    /// # Errors
    ///
    /// [`Kind::OutOfBounds`] if an allocation does not hold all of it.
    pub fn written(&self, address: u64, bytes: u64) -> Result<Vec<bool>, Fault> {
        let allocation = self.holding(address, bytes)?;
        let first = (address - allocation.base) as usize;
        let set = |at: usize| allocation.written[at / GRAIN].load(Relaxed) >> (at % GRAIN) & 1 == 1;
        Ok((first..first + bytes as usize).map(set).collect())
    }

    /// Forget that `bytes` from `address` on were written.
    ///
    /// # Errors
    ///
    /// [`Kind::OutOfBounds`] if an allocation does not hold all of it.
    pub fn forget(&self, address: u64, bytes: u64) -> Result<(), Fault> {
        let allocation = self.holding(address, bytes)?;
        let first = (address - allocation.base) as usize;
        for at in first..first + bytes as usize {
            let grain = &allocation.written[at / GRAIN];
            grain.store(grain.load(Relaxed) & !(1 << (at % GRAIN)), Relaxed);
        }
        Ok(())
    }

    /// What was launched so far has ended before anything that is launched later starts, programmatic
    /// launches too: a copy, say, stands between them in the stream.
    pub fn settle(&self) {
        self.settled.store(self.launches.load(Relaxed), Relaxed);
    }

    /// Has a launch ended before any that is going on has started?
    pub(crate) fn has_settled(&self, launch: u32) -> bool {
        launch <= self.settled.load(Relaxed)
    }

    fn holding(&self, address: u64, bytes: u64) -> Result<&Allocation, Fault> {
        let found = self.index(address).map(|at| self.at(at));
        found.filter(|it| it.base + it.bytes - address >= bytes).ok_or_else(|| {
            let sentence = format!("no allocation holds {bytes} bytes at {address:#x}");
            Fault::new(Kind::OutOfBounds, sentence)
        })
    }

    /// A device with the same memory at the same addresses: a copy of each allocation that `own` takes
    /// by its base; the others are shared, and there a kernel that writes to one breaks a rule.
    #[must_use]
    pub fn fork(&self, own: impl Fn(u64) -> bool) -> Self {
        let frozen: Vec<bool> = self.allocations.iter().map(|it| !own(it.base)).collect();
        let allocations = self.allocations.iter().zip(&frozen);
        let allocations = allocations.map(|(it, frozen)| match frozen {
            true => Arc::clone(it),
            false => Arc::new(it.copied()),
        });
        let [launches, settled] =
            [&self.launches, &self.settled].map(|count| AtomicU32::new(count.load(Relaxed)));
        Self { allocations: allocations.collect(), frozen, end: self.end, launches, settled }
    }

    /// Bases of the allocations that the last launch wrote to.
    #[must_use]
    pub fn touched(&self) -> Vec<u64> {
        let last = self.launches.load(Relaxed);
        let by_last = |word: &AtomicU64| Record::unpack(word.load(Relaxed)).launch == last;
        let touched = self.allocations.iter().filter(|it| it.written.iter().any(by_last));
        touched.map(|it| it.base).collect()
    }

    /// Whether the allocation at `base` holds the same values here and in `other`, and of the same bytes
    /// it is known there and here that they were written.
    #[must_use]
    pub fn same_in(&self, other: &Self, base: u64) -> bool {
        let [Some(mine), Some(theirs)] = [self, other].map(|it| it.index(base).map(|at| it.at(at)))
        else {
            return false;
        };
        let word = |word: &AtomicU32| word.load(Relaxed);
        let set = |grain: &AtomicU64| grain.load(Relaxed) & 3;
        mine.bytes == theirs.bytes
            && mine.words.iter().map(word).eq(theirs.words.iter().map(word))
            && mine.written.iter().map(set).eq(theirs.written.iter().map(set))
    }

    /// Count every byte of the allocation at `base` as written: what never was is zero, and so is what
    /// would be no number, or one of 512 or more, as bf16.
    pub fn fill(&self, base: u64) {
        const LARGE: u32 = 0x87;
        let Some(at) = self.index(base) else { return };
        let allocation = self.at(at);
        for word in &allocation.words {
            let halves = [0, 16].map(|by| (word.load(Relaxed) >> by & 0xffff, by));
            let kept = halves.into_iter().filter(|(half, _)| half >> 7 & 0xff <= LARGE);
            word.store(kept.fold(0, |word, (half, by)| word | half << by), Relaxed);
        }
        for grain in &allocation.written {
            grain.fetch_or(3, Relaxed);
        }
    }

    pub(crate) fn is_frozen(&self, index: usize) -> bool {
        self.frozen[index]
    }

    pub(crate) fn index(&self, address: u64) -> Option<usize> {
        let at = self.allocations.partition_point(|it| it.base <= address).checked_sub(1)?;
        let found = &self.allocations[at];
        (address - found.base < found.bytes).then_some(at)
    }

    pub(crate) fn allocation_at(&self, index: usize) -> Option<&Allocation> {
        self.allocations.get(index).map(Arc::as_ref)
    }

    pub(crate) fn at(&self, index: usize) -> &Allocation {
        &self.allocations[index]
    }

    /// Number of the next launch, from 1 to `LAUNCHES - 1`.
    pub(crate) fn next_launch(&self) -> u32 {
        let launch = self.launches.fetch_add(1, Relaxed) + 1;
        if launch < LAUNCHES {
            return launch;
        }
        // Records start over: what was written before is as if the host had written it.
        for allocation in &self.allocations {
            for grain in &allocation.written {
                grain.store(grain.load(Relaxed) & 3, Relaxed);
            }
            for grain in &allocation.read {
                grain.store(0, Relaxed);
            }
        }
        self.launches.store(1, Relaxed);
        self.settled.store(0, Relaxed);
        1
    }
}

impl Allocation {
    fn copied(&self) -> Self {
        let copied = |records: &[AtomicU64]| -> Vec<AtomicU64> {
            records.iter().map(|word| AtomicU64::new(word.load(Relaxed))).collect()
        };
        let words = self.words.iter().map(|word| AtomicU32::new(word.load(Relaxed)));
        Self {
            base: self.base,
            bytes: self.bytes,
            words: words.collect(),
            written: copied(&self.written),
            read: copied(&self.read),
        }
    }

    /// `size` bytes at `offset`, which is a multiple of `size`.
    pub(crate) fn get(&self, offset: u64, size: u32) -> u64 {
        let word = u64::from(self.words[(offset / 4) as usize].load(Relaxed));
        match size {
            8 => word | u64::from(self.words[(offset / 4) as usize + 1].load(Relaxed)) << 32,
            4 => word,
            _ => word >> (8 * (offset % 4)) & ((1 << (8 * size)) - 1),
        }
    }

    pub(crate) fn put(&self, offset: u64, size: u32, value: u64) {
        let word = &self.words[(offset / 4) as usize];
        match size {
            8 => {
                word.store(value as u32, Relaxed);
                self.words[(offset / 4) as usize + 1].store((value >> 32) as u32, Relaxed);
            }
            4 => word.store(value as u32, Relaxed),
            _ => {
                // Neighbours in the word may belong to a block on another thread.
                let shift = 8 * (offset % 4);
                let mask = (((1u64 << (8 * size)) - 1) << shift) as u32;
                let bits = ((value << shift) as u32) & mask;
                let mut old = word.load(Relaxed);
                while let Err(now) =
                    word.compare_exchange_weak(old, old & !mask | bits, Relaxed, Relaxed)
                {
                    old = now;
                }
            }
        }
    }

    /// Records of the grains of `size` bytes at `offset`, and which bytes of each are meant.
    pub(crate) fn grains(
        &self,
        offset: u64,
        size: u64,
    ) -> impl Iterator<Item = (&AtomicU64, &AtomicU64, u8)> {
        let first = offset as usize / GRAIN;
        let last = (offset + size - 1) as usize / GRAIN;
        let single = if size == 1 { 1u8 << (offset as usize % GRAIN) } else { 3 };
        (first..=last).map(move |at| (&self.written[at], &self.read[at], single))
    }
}

fn zeros<T: Default>(count: usize) -> Vec<T> {
    std::iter::repeat_with(T::default).take(count).collect()
}
