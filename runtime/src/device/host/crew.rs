//! The threads of the host device: each walks all steps of a call, in order, and does its share.
//!
//! Step `s` starts when the counters of the steps it waits for are full. Who computes which of its
//! items is decided by [`Claims`]; items are independent of each other, so results depend neither
//! on that nor on the number of threads.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use half::bf16;
use sail_ir::id::{BufferId, Id};
use sail_ir::plan::{Count, Grid};

use super::bell::Bell;
use super::claims::{self, Claims};
use super::memory::{Memory, plain};
use super::pin;
use super::table::{FunctionTable, Regions, Table};
use crate::device::{Call, DeviceError, Layout, StepTime};

/// How often the caller looks whether somebody wants to stop.
const LOOK: Duration = Duration::from_millis(50);

/// The threads, parked between calls.
pub(super) struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What all threads see.
pub(super) struct Shared {
    table: Table,
    pub regions: Regions,
    workspaces: Vec<Memory>,
    /// The call being carried out.
    call: SharedCall,
    claims: Claims,
    /// Items done of each step.
    done: Vec<Counter>,
    /// Counts calls; a new value starts one.
    begun: AtomicU64,
    /// Threads still at work.
    working: AtomicU32,
    /// The call is to be given up.
    given_up: AtomicBool,
    quit: AtomicBool,
    start: Bell,
    progress: Bell,
    end: Bell,
    times: Option<Times>,
}

/// [`Call`] in atomics; written before `begun` changes, read after.
#[derive(Default)]
struct SharedCall {
    function: AtomicUsize,
    class: AtomicUsize,
    /// First launch and one past the last.
    launches: [AtomicUsize; 2],
    /// In the order of [`Count`].
    counts: [AtomicU32; 3],
}

/// One counter per cache line: different threads fill them at the same time.
#[derive(Default)]
#[repr(align(64))]
struct Counter(AtomicU64);

/// Start and end of each step on each thread, in nanoseconds since the crew was made.
struct Times {
    origin: Instant,
    steps: usize,
    spans: Vec<[AtomicU64; 2]>,
}

impl Crew {
    /// Start one thread for each workspace.
    ///
    /// Refuses when the system starts no more threads.
    pub fn new(
        table: Table,
        regions: Regions,
        workspaces: Vec<Memory>,
        max_steps: usize,
        times: bool,
    ) -> Result<Self, DeviceError> {
        let count = workspaces.len();
        let times = times.then(|| Times::new(max_steps, count));
        let shared = Arc::new(Shared {
            table,
            regions,
            workspaces,
            call: SharedCall::default(),
            claims: Claims::new(max_steps, count),
            done: (0..max_steps).map(|_| Counter::default()).collect(),
            begun: AtomicU64::new(0),
            working: AtomicU32::new(narrow(count)),
            given_up: AtomicBool::new(false),
            quit: AtomicBool::new(false),
            start: Bell::default(),
            progress: Bell::default(),
            end: Bell::default(),
            times,
        });
        let mut crew = Self { shared, threads: Vec::with_capacity(count) };
        let processors = pin::processors();
        for index in 0..count {
            let shared = Arc::clone(&crew.shared);
            let processor =
                if count <= processors.len() { processors.get(index).copied() } else { None };
            let thread = thread::Builder::new().name(format!("sail-{index}")).spawn(move || {
                if let Some(processor) = processor {
                    pin::to(processor);
                }
                shared.done_working();
                shared.serve(index);
            });
            let thread = thread
                .map_err(|error| DeviceError::Threads { wanted: count, because: plain(&error) })?;
            crew.threads.push(thread);
        }
        // A thread that has started has all the memory it ever takes.
        crew.shared.end.wait(|| crew.shared.working.load(Ordering::SeqCst) == 0);
        Ok(crew)
    }

    /// The memory of the device; no thread touches it between calls.
    pub fn regions(&self) -> &Regions {
        &self.shared.regions
    }

    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// # Panics
    ///
    /// When the counts of a call are more than its class, or the memory of the layout, holds.
    pub fn expect_fit(&self, call: &Call, layout: &Layout) {
        let function = self.shared.table.functions[call.function].as_ref();
        let function = function.expect("broken invariant `call.holds`: no room for this function");
        let bound = function.classes[call.class];
        let counted = match function.count {
            Count::Tokens => call.tokens,
            Count::Images => call.images,
            Count::Outputs => call.outputs,
        };
        let fits = counted <= bound
            && call.outputs <= function.max_outputs
            && call.tokens <= layout.max_tokens
            && call.images <= layout.max_images;
        assert!(fits, "broken invariant `call.fits`: {call:?} in class {bound}");
    }

    /// Where the call's rows of an arena buffer are, and how many values.
    ///
    /// # Panics
    ///
    /// When the buffer is not a bf16 buffer of the arena.
    pub fn scratch(&self, call: &Call, buffer: BufferId) -> (*mut bf16, usize) {
        let function = self.shared.table.functions[call.function].as_ref();
        let function = function.expect("broken invariant `call.holds`: no room for this function");
        let buffer = function.scratch[buffer.index()].as_ref();
        let buffer =
            buffer.expect("broken invariant `scratch.arena`: not a bf16 buffer of the arena");
        let rows = match buffer.count {
            Some(Count::Tokens) => call.tokens,
            Some(Count::Images) => call.images,
            Some(Count::Outputs) => call.outputs,
            None => 1,
        };
        let offset = buffer.offset.at(function.classes[call.class]);
        let offset = offset.expect("broken invariant `plan.sizes`: arena");
        (self.shared.regions.arena.at(offset).cast(), rows as usize * buffer.row_values)
    }

    /// Carry out launches of a call; `false` when they were given up because of `stop`.
    pub fn run(&mut self, call: &Call, launches: Range<usize>, stop: &AtomicBool) -> bool {
        let shared = &*self.shared;
        if launches.start == 0 {
            for counter in &shared.done {
                counter.0.store(0, Ordering::SeqCst);
            }
            shared.claims.reset();
        }
        shared.call.store(call, &launches);
        shared.given_up.store(false, Ordering::SeqCst);
        shared.working.store(narrow(self.threads.len()), Ordering::SeqCst);
        shared.begun.fetch_add(1, Ordering::SeqCst);
        shared.start.ring();
        let finished = || shared.working.load(Ordering::SeqCst) == 0;
        while !shared.end.wait_for(LOOK, finished) {
            if stop.load(Ordering::SeqCst) {
                shared.given_up.store(true, Ordering::SeqCst);
                shared.progress.ring();
            }
        }
        !shared.given_up.load(Ordering::SeqCst)
    }

    /// Times of the last call, since the first step began.
    pub fn times(&self, call: &Call, out: &mut Vec<StepTime>) {
        out.clear();
        let (Some(times), Some(function)) =
            (&self.shared.times, &self.shared.table.functions[call.function])
        else {
            return;
        };
        let threads = self.threads.len();
        let spans = |step: usize| {
            let spans = (0..threads).map(move |thread| times.span(thread, step));
            spans.filter(|span| span[1] > 0)
        };
        let steps = 0..function.steps.len();
        let begin = steps.clone().flat_map(spans).map(|span| span[0]).min().unwrap_or_default();
        out.extend(steps.map(|step| {
            spans(step).fold(StepTime { start: u64::MAX, ..StepTime::default() }, |time, span| {
                StepTime {
                    start: time.start.min(span[0] - begin),
                    end: time.end.max(span[1] - begin),
                    busy: time.busy + (span[1] - span[0]),
                }
            })
        }));
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::SeqCst);
        self.shared.start.ring();
        for thread in self.threads.drain(..) {
            // A thread only ends by returning: kernels do not unwind.
            let _ = thread.join();
        }
    }
}

impl SharedCall {
    fn store(&self, call: &Call, launches: &Range<usize>) {
        self.launches[0].store(launches.start, Ordering::SeqCst);
        self.launches[1].store(launches.end, Ordering::SeqCst);
        let Call { function, class, tokens, images, outputs } = *call;
        self.function.store(function, Ordering::SeqCst);
        self.class.store(class, Ordering::SeqCst);
        for (count, value) in self.counts.iter().zip([tokens, images, outputs]) {
            count.store(value, Ordering::SeqCst);
        }
    }

    fn items(&self, grid: &Grid) -> u64 {
        grid.items(self.count(grid.count))
    }

    /// How many there are in this call.
    fn count(&self, count: Count) -> u32 {
        let index = match count {
            Count::Tokens => 0,
            Count::Images => 1,
            Count::Outputs => 2,
        };
        self.counts[index].load(Ordering::Relaxed)
    }
}

impl Shared {
    /// A thread's life: wait for a call, walk it, say so.
    fn serve(&self, thread: usize) {
        let mut seen = 0;
        loop {
            self.start.wait(|| {
                self.begun.load(Ordering::SeqCst) != seen || self.quit.load(Ordering::SeqCst)
            });
            if self.quit.load(Ordering::SeqCst) {
                return;
            }
            seen += 1;
            self.walk(thread);
            self.done_working();
        }
    }

    fn done_working(&self) {
        if self.working.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.end.ring();
        }
    }

    fn walk(&self, thread: usize) {
        let function = self.table.functions[self.call.function.load(Ordering::SeqCst)]
            .as_ref()
            .expect("broken invariant `call.holds`: no room for this function");
        let pointers = &function.pointers[self.call.class.load(Ordering::SeqCst)].0;
        let [from, to] = [0, 1].map(|at| self.call.launches[at].load(Ordering::SeqCst));
        let launches = &function.launches[from..to];
        for (index, [first, end]) in launches.iter().enumerate() {
            for step in *first..*end {
                if !self.step(thread, function, pointers, step) {
                    return;
                }
            }
            let last = index + 1 == launches.len();
            if !last && !(*first..*end).all(|step| self.await_step(function, step)) {
                return;
            }
        }
    }

    /// Do this thread's part of a step; `false` when the call is given up.
    fn step(
        &self,
        thread: usize,
        function: &FunctionTable,
        pointers: &[*mut u8],
        index: usize,
    ) -> bool {
        let row = &function.steps[index];
        let rows = self.call.count(row.grid.count);
        let (items, least) = (row.grid.items(rows), row.grid.least_items(rows));
        let step = claims::Step { index, items, least };
        let next = || self.claims.own(step, thread).or_else(|| self.claims.others(step, thread));
        let mut range = next();
        if range.is_some() && !row.waits.iter().all(|wait| self.await_step(function, *wait)) {
            return false;
        }
        let mut span = [0, 0];
        if range.is_some() {
            // SAFETY: the workspace is this thread's own, aligned, and has at least a word.
            unsafe { self.workspaces[thread].start().cast::<u32>().write(0) };
        }
        while let Some([first, end]) = range {
            let start = self.times.as_ref().map(Times::now);
            // SAFETY: the entry is a kernel of this artifact and takes these pointers
            // (`Plan::verify`: called right), which lead to memory that the plan proved large enough
            // for this class (inside) and that `Crew` owns; steps which touch the same bytes are
            // ordered by the waits above (disjoint). The workspace is this thread's own and large
            // enough by the layout.
            unsafe {
                (row.kernel)(
                    pointers[row.arguments..].as_ptr(),
                    self.regions.control.start().cast(),
                    first,
                    end,
                    self.workspaces[thread].start(),
                );
            }
            if let (Some(times), Some(start)) = (&self.times, start) {
                span = [if span[1] == 0 { start } else { span[0] }, times.now()];
            }
            let before = self.done[index].0.fetch_add(end - first, Ordering::SeqCst);
            if before + (end - first) == items {
                self.progress.ring();
            }
            range = next();
        }
        if let Some(times) = &self.times {
            times.note(thread, index, span);
        }
        true
    }

    /// Wait until a step is done; `false` when the call is given up.
    ///
    /// A step without items is done when the steps it waits for are.
    fn await_step(&self, function: &FunctionTable, index: usize) -> bool {
        let row = &function.steps[index];
        let items = self.call.items(&row.grid);
        if items == 0 {
            return row.waits.iter().all(|wait| self.await_step(function, *wait));
        }
        let given_up = || self.given_up.load(Ordering::SeqCst);
        let done = || self.done[index].0.load(Ordering::SeqCst) == items;
        self.progress.wait(|| done() || given_up());
        !given_up()
    }
}

impl Times {
    fn new(steps: usize, threads: usize) -> Self {
        let spans = (0..steps * threads).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect();
        Self { origin: Instant::now(), steps, spans }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn note(&self, thread: usize, step: usize, span: [u64; 2]) {
        for (cell, value) in self.spans[thread * self.steps + step].iter().zip(span) {
            cell.store(value, Ordering::SeqCst);
        }
    }

    fn span(&self, thread: usize, step: usize) -> [u64; 2] {
        let [start, end] = &self.spans[thread * self.steps + step];
        [start.load(Ordering::SeqCst), end.load(Ordering::SeqCst)]
    }
}

fn narrow(threads: usize) -> u32 {
    u32::try_from(threads).expect("fewer than 2^32 threads")
}
