//! The bytes of an allocation, by pages: made when they are first touched, and in a fork copied then.
//!
//! Words are relaxed atomics, so that blocks may run on several threads. Beside each pair of bytes
//! stand two records: its last write and its last read.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Bytes that share a record.
pub(crate) const GRAIN: usize = 2;

/// Bytes of a page: few, as a launch in a fork copies each that it touches.
pub(crate) const PAGE: usize = 4096;

const WORDS: usize = PAGE / 4;
const GRAINS: usize = PAGE / GRAIN;

/// A run of memory that was asked for at once.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub base: u64,
    pub bytes: u64,
    pages: Vec<OnceLock<Box<Page>>>,
    /// What pages are copied from when they are touched.
    under: Option<Arc<Allocation>>,
}

/// Pages of a fork's allocation.
pub(crate) struct Touched(Vec<OnceLock<Box<Page>>>);

#[derive(Debug)]
struct Page {
    words: Box<[AtomicU32]>,
    records: OnceLock<Records>,
    /// What it means that there are no records: all was written by the host, or nothing was.
    whole: AtomicBool,
    /// It is as [`Allocation::fill`] leaves it.
    filled: AtomicBool,
}

#[derive(Debug)]
struct Records {
    written: Box<[AtomicU64]>,
    read: Box<[AtomicU64]>,
}

fn zeros<T: Default>(count: usize) -> Box<[T]> {
    std::iter::repeat_with(T::default).take(count).collect()
}

impl Page {
    fn new() -> Self {
        Self {
            words: zeros(WORDS),
            records: OnceLock::new(),
            whole: AtomicBool::default(),
            filled: AtomicBool::default(),
        }
    }

    fn copied(&self) -> Self {
        let of = |records: &[AtomicU64]| -> Box<[AtomicU64]> {
            records.iter().map(|word| AtomicU64::new(word.load(Relaxed))).collect()
        };
        let records = self.records.get();
        let records = records
            .map(|records| Records { written: of(&records.written), read: of(&records.read) });
        Self {
            words: self.words.iter().map(|word| AtomicU32::new(word.load(Relaxed))).collect(),
            records: records.map_or_else(OnceLock::new, OnceLock::from),
            whole: AtomicBool::new(self.whole.load(Relaxed)),
            filled: AtomicBool::new(self.filled.load(Relaxed)),
        }
    }

    fn records(&self) -> &Records {
        self.records.get_or_init(|| {
            let set = if self.whole.load(Relaxed) { 3 } else { 0 };
            let written = std::iter::repeat_with(|| AtomicU64::new(set)).take(GRAINS).collect();
            Records { written, read: zeros(GRAINS) }
        })
    }

    fn byte(&self, at: usize) -> u8 {
        (self.words[at / 4].load(Relaxed) >> (8 * (at % 4))) as u8
    }

    fn put(&self, at: usize, size: u32, value: u64) {
        if self.filled.load(Relaxed) {
            self.filled.store(false, Relaxed);
        }
        let word = &self.words[at / 4];
        match size {
            8 => {
                word.store(value as u32, Relaxed);
                self.words[at / 4 + 1].store((value >> 32) as u32, Relaxed);
            }
            4 => word.store(value as u32, Relaxed),
            _ => {
                // Neighbours in the word may belong to a block on another thread.
                let shift = 8 * (at % 4);
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

    /// The host writes `data` from byte `at` on.
    fn write(&self, at: usize, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            // Whole words where they fit: copies of weights are large.
            let size = if (at + done).is_multiple_of(4) && data.len() - done >= 4 { 4 } else { 1 };
            let mut word = [0; 8];
            word[..size].copy_from_slice(&data[done..done + size]);
            self.put(at + done, size as u32, u64::from_le_bytes(word));
            done += size;
        }
        if data.len() == PAGE && self.records.get().is_none() {
            self.whole.store(true, Relaxed);
            return;
        }
        let records = self.records();
        for at in at..at + data.len() {
            let grain = &records.written[at / GRAIN];
            let set = grain.load(Relaxed) & 3 | 1 << (at % GRAIN);
            grain.store(set, Relaxed);
        }
    }

    /// Which bytes of a grain were ever written.
    fn set(&self, grain: usize) -> u64 {
        match self.records.get() {
            Some(records) => records.written[grain].load(Relaxed) & 3,
            None if self.whole.load(Relaxed) => 3,
            None => 0,
        }
    }
}

impl Allocation {
    pub(crate) fn new(base: u64, bytes: u64) -> Self {
        let pages = (bytes as usize).div_ceil(PAGE);
        let pages = std::iter::repeat_with(OnceLock::new).take(pages).collect();
        Self { base, bytes, pages, under: None }
    }

    /// One with the same bytes, which it copies where it is touched.
    pub(crate) fn over(under: &Arc<Self>) -> Self {
        Self { under: Some(Arc::clone(under)), ..Self::new(under.base, under.bytes) }
    }

    /// The pages that were touched, without a hold on what they were copied from.
    pub(crate) fn into_touched(self) -> Touched {
        Touched(self.pages)
    }

    /// Take pages that one over this one touched.
    pub(crate) fn absorb(&mut self, touched: Touched) {
        let touched = self.pages.iter_mut().zip(touched.0);
        for (mine, theirs) in touched.filter(|(_, theirs)| theirs.get().is_some()) {
            *mine = theirs;
        }
    }

    fn page(&self, at: usize) -> &Page {
        self.pages[at].get_or_init(|| {
            let under = self.under.as_ref().and_then(|under| under.look(at));
            Box::new(under.map_or_else(Page::new, Page::copied))
        })
    }

    /// A page as it is, if anybody touched it.
    fn look(&self, at: usize) -> Option<&Page> {
        let own = self.pages[at].get().map(Box::as_ref);
        own.or_else(|| self.under.as_ref()?.look(at))
    }

    /// The host writes `data` at `offset`.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) {
        let (mut at, mut rest) = (offset as usize, data);
        while !rest.is_empty() {
            let inside = at % PAGE;
            let (now, later) = rest.split_at(rest.len().min(PAGE - inside));
            self.page(at / PAGE).write(inside, now);
            (at, rest) = (at + now.len(), later);
        }
    }

    /// `bytes` from `offset` on, written or not.
    pub(crate) fn read(&self, offset: u64, bytes: u64) -> Vec<u8> {
        let mut data = Vec::with_capacity(bytes as usize);
        let (mut at, end) = (offset as usize, (offset + bytes) as usize);
        while at < end {
            let stop = end.min((at / PAGE + 1) * PAGE);
            match self.look(at / PAGE) {
                Some(page) => data.extend((at..stop).map(|at| page.byte(at % PAGE))),
                None => data.resize(data.len() + stop - at, 0),
            }
            at = stop;
        }
        data
    }

    /// Was the byte at `offset` ever written?
    pub(crate) fn is_set(&self, offset: usize) -> bool {
        let page = self.look(offset / PAGE);
        page.is_some_and(|page| page.set(offset % PAGE / GRAIN) >> (offset % GRAIN) & 1 == 1)
    }

    /// Forget that the byte at `offset` was written.
    pub(crate) fn forget(&self, offset: usize) {
        let grain = &self.page(offset / PAGE).records().written[offset % PAGE / GRAIN];
        grain.store(grain.load(Relaxed) & !(1 << (offset % GRAIN)), Relaxed);
    }

    /// Whether `is` says so of the record of a write to a page that was touched.
    pub(crate) fn any_written(&self, is: impl Fn(u64) -> bool) -> bool {
        let touched = self.pages.iter().filter_map(|page| page.get()?.records.get());
        touched.flat_map(|it| &it.written).any(|word| is(word.load(Relaxed)))
    }

    /// What was written before is as if the host had written it, and nobody has read it.
    pub(crate) fn start_over(&self) {
        for records in self.pages.iter().filter_map(|page| page.get()?.records.get()) {
            for grain in &records.written {
                grain.store(grain.load(Relaxed) & 3, Relaxed);
            }
            records.read.iter().for_each(|grain| grain.store(0, Relaxed));
        }
    }

    /// Whether it holds the same values as `other`, which lies over the same one, and of the same bytes
    /// it is known that they were written.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let touched =
            |at: &usize| self.pages[*at].get().is_some() || other.pages[*at].get().is_some();
        (0..self.pages.len()).filter(touched).all(|at| {
            let [Some(mine), Some(theirs)] = [self, other].map(|it| it.look(at)) else {
                // One was touched where there is nothing below: by a read, at most.
                let page = self.look(at).or_else(|| other.look(at)).expect("one was touched");
                return (0..GRAINS).all(|grain| page.set(grain) == 0);
            };
            let word = |word: &AtomicU32| word.load(Relaxed);
            mine.words.iter().map(word).eq(theirs.words.iter().map(word))
                && (0..GRAINS).all(|grain| mine.set(grain) == theirs.set(grain))
        })
    }

    /// Count every byte as written: what never was is zero, and so is what would be no number, or one of
    /// 512 or more, as bf16.
    pub(crate) fn fill(&self) {
        const LARGE: u32 = 0x87;
        for page in (0..self.pages.len()).map(|at| self.page(at)) {
            if page.filled.swap(true, Relaxed) {
                continue;
            }
            for word in &page.words {
                let halves = [0, 16].map(|by| (word.load(Relaxed) >> by & 0xffff, by));
                let kept = halves.into_iter().filter(|(half, _)| half >> 7 & 0xff <= LARGE);
                word.store(kept.fold(0, |word, (half, by)| word | half << by), Relaxed);
            }
            match page.records.get() {
                Some(records) => records.written.iter().for_each(|grain| {
                    grain.fetch_or(3, Relaxed);
                }),
                None => page.whole.store(true, Relaxed),
            }
        }
    }

    /// `size` bytes at `offset`, which is a multiple of `size`.
    pub(crate) fn get(&self, offset: u64, size: u32) -> u64 {
        let at = offset as usize % PAGE;
        let Some(page) = self.look(offset as usize / PAGE) else { return 0 };
        let word = u64::from(page.words[at / 4].load(Relaxed));
        match size {
            8 => word | u64::from(page.words[at / 4 + 1].load(Relaxed)) << 32,
            4 => word,
            _ => word >> (8 * (at % 4)) & ((1 << (8 * size)) - 1),
        }
    }

    pub(crate) fn put(&self, offset: u64, size: u32, value: u64) {
        self.page(offset as usize / PAGE).put(offset as usize % PAGE, size, value);
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
        (first..=last).map(move |at| {
            let records = self.page(at / GRAINS).records();
            (&records.written[at % GRAINS], &records.read[at % GRAINS], single)
        })
    }
}
