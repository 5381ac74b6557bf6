//! Execute compiled kernels in tests, benchmarks and tuning (feature `run`); the runtime has its own way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memmap2::{Mmap, MmapMut};
use sail_ir::plan::{ALIGNMENT, Cost, Grid};
use sail_ir::target::Target;

use super::Builder;
use crate::kernel::{EmitError, Kernel, Rows, compile};

/// What a kernel's code is called as; see `kernel.rs`.
// SAFETY: what a caller must keep is said at `Loaded::call`, the only place that calls one.
type Entry = unsafe extern "C" fn(*const *mut u8, *const u32, u64, u64, *mut u8);

/// Byte that fills outputs and workspaces before a run, so that what was not written shows.
const POISON: u8 = 0xa5;

/// Bytes before and after each argument that a kernel must leave alone.
const GUARD: usize = 256;

/// A compiled kernel, ready to be called.
pub struct Loaded {
    code: Mmap,
    entry: usize,
    arguments: usize,
    workspace_bytes: usize,
    grid: Grid,
}

/// Counts of a call, in the order of the control block.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub tokens: u32,
    pub images: u32,
    pub outputs: u32,
    pub pages_per_slot: u32,
}

/// The target of this machine; `None` below `x86-64-v3`.
#[must_use]
pub fn host() -> Option<Target> {
    Target::of_machine(has_feature)
}

/// Whether this machine can run code of `target`.
#[must_use]
pub fn runs_here(target: &Target) -> bool {
    target.features.iter().all(|name| has_feature(name))
}

/// `x86-64-v3`, `x86-64-v4` and what `v4` gains from the bf16 dot product, as far as this machine
/// runs them.
#[must_use]
pub fn targets_here() -> Vec<Target> {
    ["x86-64-v3", "x86-64-v4", "x86-64-v4+avx512vnni+avx512bf16"]
        .into_iter()
        .map(|name| Target::parse(name).expect("these are levels of ours"))
        .filter(runs_here)
        .collect()
}

fn has_feature(name: &str) -> bool {
    macro_rules! ask {
        ($($feature:tt)*) => {
            match name {
                $($feature => std::arch::is_x86_feature_detected!($feature),)*
                _ => false,
            }
        };
    }
    ask!("sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "bmi1" "bmi2" "f16c"
        "lzcnt" "movbe" "avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512vnni"
        "avx512bf16")
}

impl Loaded {
    /// Compile one kernel for `target` and make its code executable. Panics where the compile fails.
    #[must_use]
    pub fn new(kernel: &dyn Kernel, target: &Target) -> Self {
        let code = compile(&[kernel], target, 1).unwrap_or_else(|error| panic!("{error}"));
        let mut map = MmapMut::map_anon(code.bytes.len()).expect("memory for code");
        map.copy_from_slice(&code.bytes);
        Self {
            code: map.make_exec().expect("executable memory"),
            entry: code.offsets[0] as usize,
            arguments: kernel.arguments().len(),
            workspace_bytes: kernel.workspace_bytes() as usize,
            grid: kernel.grid(),
        }
    }

    /// Run all work items in one call, over buffers in the order of the kernel's arguments.
    pub fn run(&self, counts: Counts, buffers: &mut [&mut [u8]]) {
        self.run_split(counts, buffers, 1);
    }

    /// Run all work items in `parts` calls one after the other.
    ///
    /// Every buffer is copied to fresh aligned memory between guards, and back after the run;
    /// panics where the kernel wrote outside one.
    pub fn run_split(&self, counts: Counts, buffers: &mut [&mut [u8]], parts: u64) {
        let mut copies: Vec<Guarded> = buffers.iter().map(|bytes| Guarded::of(bytes)).collect();
        let pointers: Vec<*mut u8> = copies.iter_mut().map(Guarded::pointer).collect();
        let items = self.items(counts);
        for part in 0..parts {
            let mut workspace = Guarded::of(&vec![POISON; self.workspace_bytes]);
            let range = items * part / parts..items * (part + 1) / parts;
            // SAFETY: the copies live until the end of this function and are as large as the
            // buffers, which the caller sized for the kernel's problem.
            unsafe { self.call(counts, &pointers, range, workspace.pointer()) };
            assert!(workspace.is_intact(), "the kernel wrote beyond its workspace");
        }
        for (at, (copy, bytes)) in copies.iter().zip(buffers).enumerate() {
            assert!(copy.is_intact(), "the kernel wrote beyond argument {at}");
            bytes.copy_from_slice(copy.inside());
        }
    }

    /// Run items in these calls, all of one thread for one step; argument 0 holds in each what stands
    /// beside it. The buffers get what is there at the end.
    pub fn run_step(
        &self,
        counts: Counts,
        buffers: &mut [&mut [u8]],
        calls: &[(std::ops::Range<u64>, &[u8])],
    ) {
        let mut copies: Vec<Guarded> = buffers.iter().map(|bytes| Guarded::of(bytes)).collect();
        let mut workspace = Guarded::of(&poisoned(self.workspace_bytes));
        workspace.put(&[0; 4]);
        for (items, first) in calls {
            copies[0].put(first);
            let pointers: Vec<*mut u8> = copies.iter_mut().map(Guarded::pointer).collect();
            // SAFETY: as in `run_split`.
            unsafe { self.call(counts, &pointers, items.clone(), workspace.pointer()) };
        }
        for (copy, bytes) in copies.iter().zip(buffers) {
            bytes.copy_from_slice(copy.inside());
        }
    }

    /// Work items of a call with these counts.
    #[must_use]
    pub fn items(&self, counts: Counts) -> u64 {
        self.grid.items(self.counted(counts))
    }

    fn counted(&self, counts: Counts) -> u32 {
        match self.grid.count {
            sail_ir::plan::Count::Tokens => counts.tokens,
            sail_ir::plan::Count::Images => counts.images,
            sail_ir::plan::Count::Outputs => counts.outputs,
        }
    }

    /// Run one thread's share of the items: each call takes half of what is left, but no fewer than
    /// are worth one.
    ///
    /// # Safety
    ///
    /// As for [`call`](Self::call).
    unsafe fn share(
        &self,
        counts: Counts,
        pointers: &Pointers,
        [thread, threads]: [usize; 2],
        workspace: *mut u8,
    ) {
        let (items, thread, threads) = (self.items(counts), thread as u64, threads as u64);
        let least = self.grid.least_items(self.counted(counts));
        let (mut first, end) = (items * thread / threads, items * (thread + 1) / threads);
        if self.workspace_bytes > 0 {
            // SAFETY: the workspace is as large as the kernel's, of which every one has a word.
            unsafe { workspace.cast::<u32>().write(0) };
        }
        while first < end {
            let left = end - first;
            let next = first + left.div_ceil(2).max(least).min(left);
            // SAFETY: the caller vouches for it.
            unsafe { self.call(counts, &pointers.0, first..next, workspace) };
            first = next;
        }
    }

    /// Call the code as the runtime does.
    ///
    /// # Safety
    ///
    /// Every pointer must be 256-byte aligned and its buffer as large as the kernel's problem says
    /// for `counts`; `workspace` must have the kernel's `workspace_bytes`.
    pub unsafe fn call(
        &self,
        counts: Counts,
        pointers: &[*mut u8],
        items: std::ops::Range<u64>,
        workspace: *mut u8,
    ) {
        assert_eq!(pointers.len(), self.arguments, "one buffer for each argument");
        let control = [counts.tokens, counts.images, counts.outputs, counts.pages_per_slot];
        // SAFETY: `entry` is where `compile` says that a function of this signature starts.
        let entry: Entry = unsafe { std::mem::transmute(self.code.as_ptr().add(self.entry)) };
        // SAFETY: the caller vouches for the buffers; `control` has the four words kernels read.
        unsafe {
            entry(pointers.as_ptr(), control.as_ptr(), items.start, items.end, workspace);
        }
    }
}

/// A kernel of one work item, written in place, to try the builder with.
pub struct Snippet<F> {
    pub arguments: &'static [&'static str],
    pub workspace_bytes: u64,
    pub write: F,
}

impl<F: Fn(&mut Builder<'_>) + Sync> Snippet<F> {
    /// A snippet with these arguments and no workspace.
    pub fn new(arguments: &'static [&'static str], write: F) -> Self {
        Self { arguments, workspace_bytes: 0, write }
    }
}

impl<F: Fn(&mut Builder<'_>) + Sync> Kernel for Snippet<F> {
    fn family(&self) -> &'static str {
        "snippet"
    }

    fn symbol(&self) -> String {
        "snippet".to_owned()
    }

    fn arguments(&self) -> &'static [&'static str] {
        self.arguments
    }

    fn writes(&self) -> &'static [u32] {
        &[]
    }

    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(u32::MAX, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        self.workspace_bytes
    }

    fn cost(&self) -> Cost {
        Cost::default()
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        (self.write)(k);
        Ok(())
    }
}

/// Kernels of one problem over the same buffers, timed in turn by several threads.
pub struct Race {
    threads: usize,
    /// Copies of each argument; weights have several, so that they come from memory as in a model.
    buffers: Vec<Vec<Guarded>>,
}

/// Bytes of all copies of a weight together: more than most caches.
const WEIGHT_BYTES: usize = 256 << 20;

/// Most copies of a weight.
const MOST_COPIES: usize = 64;

impl Race {
    /// Place copies of `buffers`, in the order of the arguments; `weight` says which of them a model
    /// has one of for each layer.
    #[must_use]
    pub fn new(threads: usize, buffers: &[Vec<u8>], weight: Option<usize>) -> Self {
        let copies = |at: usize, bytes: &[u8]| match weight {
            Some(weight) if weight == at => {
                (WEIGHT_BYTES / bytes.len().max(1)).clamp(1, MOST_COPIES)
            }
            _ => 1,
        };
        let buffers = buffers.iter().enumerate().map(|(at, bytes)| {
            (0..copies(at, bytes)).map(|_| Guarded::of(bytes)).collect::<Vec<_>>()
        });
        Self { threads: threads.max(1), buffers: buffers.collect() }
    }

    /// Let argument `at` hold these bytes, no more than it was placed with.
    ///
    /// # Panics
    ///
    /// When they are more.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        for copy in &mut self.buffers[at] {
            assert!(bytes.len() <= copy.length, "argument {at} has {} bytes", copy.length);
            copy.put(bytes);
        }
    }

    /// What argument `at` holds.
    #[must_use]
    pub fn get(&self, at: usize) -> &[u8] {
        self.buffers[at][0].inside()
    }

    /// Run both kernels `rounds` times, one after the other, and give the times of each round. Which
    /// is first changes from round to round, so that what drifts meets both alike.
    ///
    /// Work is cut as the host device cuts it, but nobody takes work of another thread. Expects
    /// buffers for at least these counts.
    ///
    /// # Panics
    ///
    /// When the kernels have other arguments than there are buffers.
    pub fn run(
        &mut self,
        counts: Counts,
        kernels: [&Loaded; 2],
        rounds: usize,
    ) -> Vec<[Duration; 2]> {
        let pointers: Vec<Pointers> = (0..MOST_COPIES)
            .map(|copy| {
                let of = |copies: &mut Vec<Guarded>| {
                    let copy = copy % copies.len();
                    copies[copy].pointer()
                };
                Pointers(self.buffers.iter_mut().map(of).collect())
            })
            .collect();
        let order = |round: usize| if round.is_multiple_of(2) { [0, 1] } else { [1, 0] };
        let meeting = Meeting::of(self.threads);
        let work = |thread: usize| {
            let bytes = kernels.iter().map(|kernel| kernel.workspace_bytes).max().unwrap_or(0);
            let mut workspace = Guarded::of(&poisoned(bytes));
            let mut times = vec![[Duration::ZERO; 2]; rounds];
            for (round, times) in times.iter_mut().enumerate() {
                for (turn, which) in order(round).into_iter().enumerate() {
                    let pointers = &pointers[(2 * round + turn) % MOST_COPIES];
                    meeting.wait();
                    let start = Instant::now();
                    // SAFETY: the buffers outlive the scope below and are as large as those the
                    // caller sized for the problem; threads take different items, which write
                    // different bytes; the workspace is this thread's own.
                    unsafe {
                        kernels[which].share(
                            counts,
                            pointers,
                            [thread, self.threads],
                            workspace.pointer(),
                        );
                    }
                    meeting.wait();
                    times[which] = start.elapsed();
                }
            }
            times
        };
        thread::scope(|scope| {
            let work = &work;
            for thread in 1..self.threads {
                scope.spawn(move || work(thread));
            }
            work(0)
        })
    }
}

/// Where threads wait for each other, awake: to be woken takes longer than many a kernel.
struct Meeting {
    threads: usize,
    arrived: AtomicUsize,
}

impl Meeting {
    fn of(threads: usize) -> Self {
        Self { threads, arrived: AtomicUsize::new(0) }
    }

    /// Wait until all threads have come as often as this one.
    fn wait(&self) {
        let arrived = self.arrived.fetch_add(1, Ordering::AcqRel) + 1;
        let all = arrived.next_multiple_of(self.threads);
        let mut turns = 0_u32;
        while self.arrived.load(Ordering::Acquire) < all {
            turns = turns.wrapping_add(1);
            match turns.is_multiple_of(256) {
                true => thread::yield_now(), // there may be fewer processors than threads
                false => std::hint::spin_loop(),
            }
        }
    }
}

/// Where the arguments of a call are.
struct Pointers(Vec<*mut u8>);

// SAFETY: addresses of memory that outlives the threads; who may write where is the kernel's
// business, whose items are independent of each other.
unsafe impl Sync for Pointers {}

/// A kernel with its buffers in place, to be run again and again by one thread.
pub struct Prepared {
    loaded: Loaded,
    counts: Counts,
    buffers: Vec<Guarded>,
    workspace: Guarded,
}

impl Prepared {
    /// Compile `kernel` and place copies of `buffers`, in the order of its arguments.
    #[must_use]
    pub fn new(kernel: &dyn Kernel, target: &Target, counts: Counts, buffers: &[Vec<u8>]) -> Self {
        let loaded = Loaded::new(kernel, target);
        let workspace = Guarded::of(&poisoned(loaded.workspace_bytes));
        let buffers = buffers.iter().map(|bytes| Guarded::of(bytes)).collect();
        Self { loaded, counts, buffers, workspace }
    }

    /// Run all work items, as the first call of a step: nothing is left of the last run.
    pub fn run(&mut self) {
        if self.loaded.workspace_bytes > 0 {
            self.workspace.put(&[0; 4]);
        }
        let pointers: Vec<*mut u8> = self.buffers.iter_mut().map(Guarded::pointer).collect();
        let items = 0..self.loaded.items(self.counts);
        // SAFETY: the buffers live as long as `self` and are as large as those the caller sized for
        // the kernel's problem.
        unsafe { self.loaded.call(self.counts, &pointers, items, self.workspace.pointer()) };
    }

    /// Whether nothing was written beside the buffers and the workspace.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.workspace.is_intact() && self.buffers.iter().all(Guarded::is_intact)
    }
}

/// A copy of some bytes, aligned, with guard bytes around it.
struct Guarded {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Guarded {
    fn of(bytes: &[u8]) -> Self {
        let alignment = ALIGNMENT as usize;
        let mut memory = vec![POISON; bytes.len() + 2 * GUARD + alignment];
        let start = GUARD + (memory.as_ptr() as usize + GUARD).wrapping_neg() % alignment;
        memory[start..start + bytes.len()].copy_from_slice(bytes);
        Self { memory, start, length: bytes.len() }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.memory[self.start..][..bytes.len()].copy_from_slice(bytes);
    }

    fn pointer(&mut self) -> *mut u8 {
        self.memory[self.start..].as_mut_ptr()
    }

    fn inside(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }

    fn is_intact(&self) -> bool {
        let outside = self.memory[..self.start].iter();
        outside.chain(&self.memory[self.start + self.length..]).all(|byte| *byte == POISON)
    }
}

/// bf16 numbers as the bytes a kernel reads.
#[must_use]
pub fn bf16_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect()
}

/// The numbers in bf16 bytes that a kernel wrote.
#[must_use]
pub fn bf16_values(bytes: &[u8]) -> Vec<f32> {
    let pairs = bytes.chunks_exact(2);
    pairs.map(|pair| half::bf16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect()
}

/// f32 numbers as the bytes a kernel reads.
#[must_use]
pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The numbers in f32 bytes that a kernel wrote.
#[must_use]
pub fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// i32 numbers as the bytes a kernel reads.
#[must_use]
pub fn i32_bytes(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The numbers in i32 bytes that a kernel wrote.
#[must_use]
pub fn i32_values(bytes: &[u8]) -> Vec<i32> {
    bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Buffers of unwritten bytes.
#[must_use]
pub fn poisoned(bytes: usize) -> Vec<u8> {
    vec![POISON; bytes]
}

/// Numbers in -1 .. 1 from a seed, the same everywhere (splitmix64).
#[must_use]
pub fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..count).map(|_| (next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}
