//! Global memory: allocations at addresses with gaps between them, and what is known of each byte: who
//! wrote and who read it last, by launch, block, thread and clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::fault::{Fault, Kind};
use crate::page::Allocation;

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
    end: u64,
    launches: AtomicU32,
    /// Launches up to this one have ended before any later one starts.
    settled: AtomicU32,
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
        self.allocations.push(Arc::new(Allocation::new(base, bytes)));
        base
    }

    /// Give back what [`Device::alloc`] gave; `false` if there is no such allocation.
    pub fn free(&mut self, base: u64) -> bool {
        let found = self.allocations.iter().position(|allocation| allocation.base == base);
        if let Some(at) = found {
            self.allocations.remove(at);
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
        allocation.write(address - allocation.base, data);
        Ok(())
    }

    /// Copy `bytes` from `address`, written or not.
    ///
    /// # Errors
    ///
    /// [`Kind::OutOfBounds`] if an allocation does not hold all of it.
    pub fn read(&self, address: u64, bytes: u64) -> Result<Vec<u8>, Fault> {
        let allocation = self.holding(address, bytes)?;
        Ok(allocation.read(address - allocation.base, bytes))
    }

    /// Which of `bytes` from `address` on were written by the host or by a kernel.
    ///
    /// # Errors
    ///
    /// [`Kind::OutOfBounds`] if an allocation does not hold all of it.
    pub fn written(&self, address: u64, bytes: u64) -> Result<Vec<bool>, Fault> {
        let allocation = self.holding(address, bytes)?;
        let first = (address - allocation.base) as usize;
        Ok((first..first + bytes as usize).map(|at| allocation.is_set(at)).collect())
    }

    /// Forget that `bytes` from `address` on were written.
    ///
    /// # Errors
    ///
    /// [`Kind::OutOfBounds`] if an allocation does not hold all of it.
    pub fn forget(&self, address: u64, bytes: u64) -> Result<(), Fault> {
        let allocation = self.holding(address, bytes)?;
        let first = (address - allocation.base) as usize;
        (first..first + bytes as usize).for_each(|at| allocation.forget(at));
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

    /// A device with the same memory at the same addresses, of which it copies what it touches. Nothing
    /// may change here as long as it is there.
    #[must_use]
    pub fn fork(&self) -> Self {
        if self.launches.load(Relaxed) + 2 >= LAUNCHES {
            self.start_over();
        }
        let allocations = self.allocations.iter().map(|it| Arc::new(Allocation::over(it)));
        let [launches, settled] =
            [&self.launches, &self.settled].map(|count| AtomicU32::new(count.load(Relaxed)));
        Self { allocations: allocations.collect(), end: self.end, launches, settled }
    }

    /// Become as `fork` is.
    ///
    /// # Panics
    ///
    /// If it is no fork of this device, or if another one is still there.
    pub fn absorb(&mut self, fork: Self) {
        let places = |device: &Self| device.allocations().collect::<Vec<_>>();
        assert_eq!(places(self), places(&fork), "a fork has the same allocations");
        (self.launches, self.settled) = (fork.launches, fork.settled);
        for (mine, theirs) in self.allocations.iter_mut().zip(fork.allocations) {
            let theirs = Arc::into_inner(theirs).expect("nobody else has a fork's memory");
            let touched = theirs.into_touched();
            Arc::get_mut(mine).expect("one fork at a time is absorbed").absorb(touched);
        }
    }

    /// Bases of the allocations that the last launch wrote to.
    #[must_use]
    pub fn touched(&self) -> Vec<u64> {
        let last = self.launches.load(Relaxed);
        let by_last = |word| Record::unpack(word).launch == last;
        let touched = self.allocations.iter().filter(|it| it.any_written(by_last));
        touched.map(|it| it.base).collect()
    }

    /// Whether two forks of one device hold the same values everywhere, and of the same bytes it is known
    /// that they were written.
    #[must_use]
    pub fn same_in(&self, other: &Self) -> bool {
        self.allocations.iter().zip(&other.allocations).all(|(mine, theirs)| mine.same(theirs))
    }

    /// Count every byte of the allocation at `base` as written: what never was is zero, and so is what
    /// would be no number, or one of 512 or more, as bf16.
    pub fn fill(&self, base: u64) {
        if let Some(at) = self.index(base) {
            self.at(at).fill();
        }
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
        self.start_over();
        self.launches.store(1, Relaxed);
        1
    }

    /// What was written before is as if the host had written it.
    fn start_over(&self) {
        self.allocations.iter().for_each(|allocation| allocation.start_over());
        self.launches.store(0, Relaxed);
        self.settled.store(0, Relaxed);
    }
}
