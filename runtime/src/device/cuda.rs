//! A GPU of NVIDIA's as a device, through the driver alone.
//!
//! ```text
//! driver    the library, one GPU, what its answers mean
//! code      machine code or PTX → kernels
//! upload    file → weights in the GPU's memory; made: weights that the file has a recipe of
//! regions   all other memory, and its mirrors on this machine
//! table     launches of every (function, class), looked up once
//! stream    the one order of work; graphs of what was done before
//! ```
//!
//! A call is one copy of the control block, the launches of its class, and copies of what the caller
//! reads. The launches of a class are the same in every call (counts stand in the control block), so a
//! call is the launch of one graph: recorded when the device is made for `decode`, and the second time
//! for the others, of which most runs need few.

mod code;
mod driver;
mod error;
mod made;
mod memory;
mod probe;
mod regions;
mod stream;
mod table;
mod upload;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use half::bf16;
use sail_ir::artifact::Artifact;
use sail_ir::id::{BufferId, Id};

use super::{Call, Device, DeviceError, Layout, StepTime};
use crate::trace::Limits;
use code::{Code, Form};
use driver::Context;
pub use error::{CudaError, Pair};
use memory::Pinned;
use regions::{MOST_AHEAD, Mirrors, Regions};
use stream::{Event, Graph, Stream};
use table::{ClassTable, FunctionTable, Source};

/// The first version whose graphs keep that a kernel may start before the one before it has ended.
const EARLY_IN_GRAPHS: Pair = Pair(12, 3);

/// See the module. Fields are dropped in this order: work before what it touches.
pub struct Cuda {
    stream: Stream,
    /// The launches of each function and class.
    graphs: Vec<Vec<Recorded>>,
    functions: Vec<Option<FunctionTable>>,
    /// One before each step and one behind the last; empty unless times may be wanted.
    marks: Vec<Event>,
    /// Whether marks are set: steps are then launched one by one.
    marking: bool,
    times: Vec<StepTime>,
    /// What was looked at between launches and may have been changed: byte of the arena, values.
    looked_at: Option<(u64, usize)>,
    /// Whether the caller has written what rows have seen.
    seen_given: bool,
    /// Why nothing can be done any more.
    lost: Option<CudaError>,
    mirrors: Mirrors,
    regions: Regions,
    code: Code,
    layout: Layout,
    context: Arc<Context>,
}

/// The launches of one class.
enum Recorded {
    Never,
    /// Launched one by one, once.
    Launched,
    Graph(Graph),
}

fn record(class: &ClassTable, stream: &Stream) -> Result<Graph, CudaError> {
    stream.record(|| class.steps.iter().try_for_each(|step| step.ask(stream)))
}

impl Cuda {
    /// Start the driver, hand it the code, allocate, and copy the weights.
    ///
    /// Refuses when there is no driver or no such GPU, when the GPU does not run the code or has
    /// too little memory, and what the driver refuses.
    pub fn new(artifact: &Artifact, layout: &Layout, ordinal: u32) -> Result<Self, DeviceError> {
        let context = Context::open(ordinal)?;
        let code = Code::new(&context, artifact)?;
        let stream = Stream::new(&context)?;
        let regions = Regions::new(artifact, layout, (&code, &stream))?;
        let mirrors = Mirrors::new(&regions, layout, &stream)?;
        let plan = &artifact.manifest().plan;
        let early = code.waits && context.about.driver >= EARLY_IN_GRAPHS;
        let source = Source { plan, layout, code: &code, regions: &regions, early };
        let functions = source.tables()?;
        let marks = if layout.capacity.times { layout.max_steps + 1 } else { 0 };
        let marks = (0..marks).map(|_| Event::new(&context, true));
        let recorded = |function: &Option<FunctionTable>| {
            let record = |class: &ClassTable| match function {
                Some(function) if function.at_load => Ok(Recorded::Graph(record(class, &stream)?)),
                _ => Ok(Recorded::Never),
            };
            let classes = function.iter().flat_map(|function| &function.classes);
            classes.map(record).collect()
        };
        let graphs = functions.iter().map(recorded).collect::<Result<_, CudaError>>()?;
        stream.wait("make the GPU ready")?;
        Ok(Self {
            graphs,
            functions,
            marks: marks.collect::<Result<_, _>>()?,
            marking: layout.capacity.times,
            times: Vec::with_capacity(layout.max_steps),
            looked_at: None,
            seen_given: false,
            lost: None,
            mirrors,
            regions,
            code,
            stream,
            layout: layout.clone(),
            context,
        })
    }

    fn function(&self, index: usize) -> &FunctionTable {
        let function = self.functions[index].as_ref();
        function.expect("broken invariant `call.holds`: no room for this function")
    }

    /// `work`, unless the GPU was lost before; notes when it is lost by this.
    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone().into());
        }
        self.context.make_current()?;
        let result = work(self);
        if let Err(DeviceError::Cuda(error)) = &result
            && error.is_final()
        {
            self.lost = Some(error.clone());
        }
        result
    }

    /// See [`Device::run_ahead`]: the control block is sent once and then kept up by the kernels.
    fn carry_on(&mut self, call: &Call, times: u32, stop: &AtomicBool) -> Result<(), DeviceError> {
        let words = 2 * call.outputs as usize;
        let asked = (|| {
            self.send(call)?;
            self.return_scratch()?;
            if std::mem::take(&mut self.seen_given) {
                let words = self.layout.seen_words as usize * call.outputs as usize;
                self.regions.seen.write(0, &self.mirrors.seen, words, &self.stream)?;
            }
            for turn in 0..times as usize {
                self.launch_all(call, stop)?;
                let Self { regions, mirrors, stream, .. } = self;
                let to = (&mut mirrors.chosen, turn * words);
                regions.chosen.read_to(to, 0, words, stream)?;
            }
            Ok(())
        })();
        self.wait_after(asked, call)?;
        if stop.load(Ordering::SeqCst) { Err(DeviceError::Interrupted) } else { Ok(()) }
    }

    fn carry_out(
        &mut self,
        call: &Call,
        launches: &Range<usize>,
        stop: &AtomicBool,
    ) -> Result<(), DeviceError> {
        let asked = self.ask(call, launches, stop);
        self.wait_after(asked, call)?;
        if stop.load(Ordering::SeqCst) {
            return Err(DeviceError::Interrupted);
        }
        self.take_times(call, launches)
    }

    /// Wait for the end of what was `asked` for a call.
    fn wait_after(
        &mut self,
        asked: Result<(), DeviceError>,
        call: &Call,
    ) -> Result<(), DeviceError> {
        // Also after an error: nothing may run in memory that the caller has back.
        let waited = self.stream.wait("wait for the end of a call");
        // What was asked for before may show itself only now, so the whole call is to blame.
        asked.and_then(|()| Ok(waited?)).map_err(|error| match error {
            DeviceError::Cuda(CudaError::Lost { because, .. }) => {
                let doing = format!("a call of `{}`", self.function(call.function).name);
                CudaError::Lost { doing, because }.into()
            }
            error => error,
        })
    }

    /// Ask for copies and launches of a call.
    fn ask(
        &mut self,
        call: &Call,
        launches: &Range<usize>,
        stop: &AtomicBool,
    ) -> Result<(), DeviceError> {
        let function = self.function(call.function);
        let all = function.launches.len();
        if launches.start == 0 {
            self.send(call)?;
        }
        self.return_scratch()?;
        if *launches == (0..all) && !self.marking {
            self.launch_all(call, stop)?;
        } else {
            let function = self.function(call.function);
            let first = function.launches[launches.start][0];
            let last = function.launches[launches.end - 1][1];
            self.launch(call, first..last, stop)?;
        }
        if launches.end == all { self.fetch(call) } else { Ok(()) }
    }

    /// What the caller has written.
    fn send(&self, call: &Call) -> Result<(), DeviceError> {
        let Mirrors { control, pixels, .. } = &self.mirrors;
        self.regions.control.write(0, control, self.layout.control.words, &self.stream)?;
        if self.function(call.function).reads_pixels {
            let values = self.layout.tile_values as usize * call.images as usize;
            self.regions.pixels.write(0, pixels, values, &self.stream)?;
        }
        Ok(())
    }

    /// All steps: as one graph, from the second time on at the latest.
    fn launch_all(&mut self, call: &Call, stop: &AtomicBool) -> Result<(), DeviceError> {
        let class = &self.function(call.function).classes[call.class];
        let made = match &self.graphs[call.function][call.class] {
            Recorded::Graph(_) if stop.load(Ordering::SeqCst) => {
                return Err(DeviceError::Interrupted);
            }
            Recorded::Graph(graph) => return Ok(self.stream.replay(graph)?),
            Recorded::Never => {
                self.launch(call, 0..class.steps.len(), stop)?;
                Recorded::Launched
            }
            Recorded::Launched => {
                let graph = record(class, &self.stream)?;
                self.stream.replay(&graph)?;
                Recorded::Graph(graph)
            }
        };
        self.graphs[call.function][call.class] = made;
        Ok(())
    }

    fn launch(
        &self,
        call: &Call,
        steps: Range<usize>,
        stop: &AtomicBool,
    ) -> Result<(), DeviceError> {
        let class = &self.function(call.function).classes[call.class];
        let marks: &[Event] = if self.marking { &self.marks } else { &[] };
        for index in steps.clone() {
            if stop.load(Ordering::SeqCst) {
                return Err(DeviceError::Interrupted);
            }
            if let Some(mark) = marks.get(index) {
                mark.mark(&self.stream)?;
            }
            class.steps[index].ask(&self.stream)?;
        }
        if let Some(mark) = marks.get(steps.end) {
            mark.mark(&self.stream)?;
        }
        Ok(())
    }

    /// What the caller reads.
    fn fetch(&mut self, call: &Call) -> Result<(), DeviceError> {
        let function = self.functions[call.function].as_ref();
        let function = function.expect("broken invariant `call.holds`: no room for this function");
        let Self { regions, mirrors, stream, layout, .. } = self;
        if function.writes_logits {
            let values = layout.vocabulary as usize * call.outputs as usize;
            regions.logits.read(0, &mut mirrors.logits, values, stream)?;
        }
        for (tap, row_bytes, count) in &function.taps {
            let rows = u64::from(FunctionTable::rows(call, *count));
            let values = (rows * row_bytes / 4) as usize;
            regions.taps[*tap].read(0, &mut mirrors.taps[*tap], values, stream)?;
        }
        if let Some((row_bytes, count)) = function.choices {
            let values = u64::from(FunctionTable::rows(call, Some(count))) * row_bytes / 4;
            let rows = (layout.choices.len(), values as usize);
            let pitch = regions.choices_pitch;
            regions.choices.read_rows(pitch, &mut mirrors.choices, rows, stream)?;
        }
        Ok(())
    }

    /// Give back what was looked at between launches, as it may have been changed.
    fn return_scratch(&mut self) -> Result<(), DeviceError> {
        let Some((offset, values)) = self.looked_at.take() else { return Ok(()) };
        let scratch = self.mirrors.scratch.as_ref();
        let scratch = scratch.expect("broken invariant `scratch.kept`: nothing was looked at");
        Ok(self.regions.arena.write(offset, scratch, values, &self.stream)?)
    }

    fn take_times(&mut self, call: &Call, launches: &Range<usize>) -> Result<(), DeviceError> {
        if launches.start == 0 {
            self.times.clear();
        }
        if !self.marking || launches.is_empty() {
            return Ok(());
        }
        let function = self.function(call.function);
        let first = function.launches[launches.start][0];
        let last = function.launches[launches.end - 1][1];
        // Parts of a call come one after another; what passes between them counts for nothing.
        let begin = self.times.last().map_or(0, |time| time.end);
        for step in first..last {
            let [start, end] = [step, step + 1]
                .map(|mark| self.marks[mark].since(&self.marks[first]).map(|time| begin + time));
            let (start, end) = (start?, end?);
            self.times.push(StepTime { start, end, busy: end - start });
        }
        Ok(())
    }
}

impl Device for Cuda {
    fn describe(&self) -> String {
        let about = &self.context.about;
        format!(
            "cuda:{}, {}, compute capability {}, {}",
            about.ordinal, about.name, about.capability, self.code.form
        )
    }

    fn remark(&self) -> Option<String> {
        let Form::Text { declined: Some(because) } = &self.code.form else {
            return None;
        };
        Some(format!(
            "the CUDA driver assembles the kernels, which takes time at every start\n  \
             because it does not take the machine code in the file: {because}"
        ))
    }

    fn control(&mut self) -> &mut [u32] {
        &mut self.mirrors.control.values_mut()[..self.layout.control.words]
    }

    fn pixels(&mut self) -> &mut [bf16] {
        self.mirrors.pixels.values_mut()
    }

    fn run(
        &mut self,
        call: &Call,
        launches: Range<usize>,
        stop: &AtomicBool,
    ) -> Result<(), DeviceError> {
        self.function(call.function).expect_fit(call, &self.layout);
        self.guarded(|this| this.carry_out(call, &launches, stop))
    }

    fn most_ahead(&self) -> u32 {
        if self.layout.chooses && !self.marking { MOST_AHEAD } else { 0 }
    }

    fn run_ahead(&mut self, call: &Call, times: u32, stop: &AtomicBool) -> Result<(), DeviceError> {
        assert!(times <= self.most_ahead(), "broken invariant `ahead.most`: {times} calls");
        self.function(call.function).expect_fit(call, &self.layout);
        self.guarded(|this| this.carry_on(call, times, stop))
    }

    fn seen(&mut self) -> &mut [u32] {
        self.seen_given = true;
        self.mirrors.seen.values_mut()
    }

    fn chosen(&self) -> &[u32] {
        self.mirrors.chosen.values()
    }

    fn scratch(&mut self, call: &Call, buffer: BufferId) -> Result<&mut [bf16], DeviceError> {
        let function = self.function(call.function);
        let buffer = function.scratch[buffer.index()].as_ref();
        let buffer =
            buffer.expect("broken invariant `scratch.arena`: not a bf16 buffer of the arena");
        let rows = FunctionTable::rows(call, buffer.count) as usize;
        let values = rows * buffer.row_values;
        let offset = buffer.offset.at(function.classes[call.class].bound);
        let offset = offset.expect("broken invariant `plan.sizes`: arena");
        self.guarded(|this| {
            let held = this.mirrors.scratch.as_ref().map_or(0, |held| held.values().len());
            if held < values {
                this.mirrors.scratch =
                    Some(Pinned::new(&this.context, "values between launches", values as u64)?);
            }
            let scratch = this.mirrors.scratch.as_mut();
            let scratch = scratch.expect("broken invariant `scratch.kept`: made above");
            this.regions.arena.read(offset, scratch, values, &this.stream)?;
            this.stream.wait("look at values between launches")?;
            this.looked_at = Some((offset, values));
            Ok(())
        })?;
        let scratch = self.mirrors.scratch.as_mut();
        let scratch = scratch.expect("broken invariant `scratch.kept`: made above");
        Ok(&mut scratch.values_mut()[..values])
    }

    fn keep_features(&mut self, first: u32, tiles: u32) -> Result<(), DeviceError> {
        let tile = self.layout.tile_rows * self.layout.feature_width;
        let [offset, bytes] = [first, tiles].map(|tiles| u64::from(tiles) * tile * 2);
        self.guarded(|this| {
            let Self { regions, mirrors, stream, .. } = this;
            regions.features.take(offset, &regions.new_features, bytes, stream)?;
            let kept = ((offset + bytes) / 2) as usize;
            regions.features.read(0, &mut mirrors.features, kept, stream)?;
            Ok(stream.wait("keep features")?)
        })
    }

    fn features(&self) -> &[bf16] {
        self.mirrors.features.values()
    }

    fn logits(&self) -> &[bf16] {
        self.mirrors.logits.values()
    }

    fn tap(&self, index: usize) -> &[f32] {
        self.mirrors.taps[index].values()
    }

    fn choice(&self, index: usize) -> &[u32] {
        let start = self.regions.choices_pitch as usize / 4 * index;
        let values = self.layout.choices[index].1 as usize / 4;
        &self.mirrors.choices.values()[start..start + values]
    }

    fn times(&self) -> &[StepTime] {
        &self.times
    }

    fn want_times(&mut self, wanted: bool) -> bool {
        self.marking = wanted && !self.marks.is_empty();
        true
    }

    fn limits(&mut self) -> Option<Result<Limits, DeviceError>> {
        Some(self.guarded(|this| probe::limits(&this.stream)))
    }
}
