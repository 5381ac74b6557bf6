//! Builds the plan of every function of a `kernels` module: buffers, steps, waits, launches.
//!
//! One op becomes one step: the kernel and its config are chosen in [`super::choose`], the arena
//! is laid out in [`super::place`], the waits are found in [`super::order`].

mod buffers;
mod next;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sail_ir::id::{BufferId, Id, IdVec, KernelId, StepId};
use sail_ir::plan::{
    Affine, Buffer, ControlField, Count, Function, Grid, Kernel as PlannedKernel, Launch, Place,
    Plan, Port, Step,
};
use sail_ir::target::Target;
use sail_kernels::gpu_model::Expected;
use sail_kernels::kernel::Before;
use sail_kernels::{Config, Kernel, Shaped};

use super::bounds::Bounds;
use super::choose::{self, Argument, Chosen, Scope};
use super::explain;
use super::flat::{self, FunctionView, OpView};
use super::label;
use super::order::{Accesses, Span, waits};
use super::place::{Request, place, reserved};
use super::weights::{Source, WeightTable};
use crate::error::CompileError;
use crate::lock::Lock;
use crate::placement::Placement;
use crate::stage::{Kernels, Module};

/// `decode` once more, for calls of many rows: other kernels are the best for these.
const WIDE: &str = "decode.wide";

/// `prefill` once more, for calls of few rows.
const SHORT: &str = "prefill.short";

/// A plan whose kernels have no code yet.
pub struct Draft {
    pub plan: Plan,
    /// In the order of `plan.kernels`.
    pub kernels: Vec<Box<dyn Kernel>>,
    /// In the order of `plan.weights`.
    pub sources: Vec<Source>,
    /// Kernels whose config comes from the lock.
    pub pinned: usize,
    /// What was chosen for each problem of a CUDA target, by its name in a lock; without what only those
    /// have who look inside.
    pub chosen: BTreeMap<String, OnGpu>,
}

/// The choice for a problem of a CUDA target.
#[derive(Debug, Clone, PartialEq)]
pub struct OnGpu {
    pub family: String,
    pub config: Config,
    /// What a call is expected to take, and why it was chosen.
    pub expected: Expected,
    pub reason: String,
}

/// What a plan is made for.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    pub target: &'a Target,
    pub bounds: &'a Bounds,
    /// Where experts stand, if that is not their own order.
    pub placement: Option<&'a Placement>,
    /// Configs that take the place of the rules' choice.
    pub lock: Option<&'a Lock>,
}

/// Plan all functions of a module.
///
/// Refuses an op that has no template on the target, and a pinned config that does not fit.
pub fn draft(module: &Module<'_, Kernels>, given: Given<'_>) -> Result<Draft, CompileError> {
    let functions = &flat::functions(module);
    let mut shared = Shared::default();
    let mut planned = Vec::with_capacity(functions.len());
    for view in functions {
        planned.push(FunctionBuilder::new(view, &view.name, given, &mut shared).run()?);
        if view.name == "decode" && !given.bounds.wide_decode.is_empty() {
            planned.push(FunctionBuilder::new(view, WIDE, given, &mut shared).run()?);
        }
        if view.name == "prefill" && !given.bounds.short_prefill.is_empty() {
            planned.push(FunctionBuilder::new(view, SHORT, given, &mut shared).run()?);
        }
    }
    if !shared.without_kernel.is_empty() {
        let ops = shared.without_kernel.into_iter().collect();
        return Err(CompileError::NoTemplate { target: given.target.name.clone(), ops });
    }
    let cache = super::cache::spec(functions, given.bounds)?;
    let Shared { kernels, rows, weights, pinned, chosen, .. } = shared;
    let (weight_rows, sources) = weights.finish();
    let plan = Plan { functions: planned, kernels: rows, weights: weight_rows, cache };
    Ok(Draft { plan, kernels, sources, pinned, chosen })
}

/// What functions have in common: a kernel is emitted once, a weight stored once.
#[derive(Default)]
struct Shared {
    kernels: Vec<Box<dyn Kernel>>,
    rows: IdVec<KernelId, PlannedKernel>,
    by_symbol: HashMap<String, KernelId>,
    weights: WeightTable,
    /// Ops for which the target has no kernel, of all functions.
    without_kernel: BTreeSet<String>,
    /// Kernels whose config comes from the lock.
    pinned: usize,
    chosen: BTreeMap<String, OnGpu>,
}

impl Shared {
    /// Note what was chosen for a problem of a CUDA target.
    fn note(&mut self, kernel: &dyn Kernel) {
        let Some(shaped) = kernel.shaped() else { return };
        let grid = kernel.grid();
        // A token has several rows where it goes through several experts.
        let per = if grid.count == Count::Tokens { grid.per } else { 1 };
        let rows = shaped.most_rows().map_or(1, |most| per * explain::rows_of(most / per));
        if let Some((expected, reason)) = shaped.expected(rows) {
            let (family, config) = (kernel.family().to_owned(), shaped.config());
            self.chosen.insert(shaped.pinned_as(), OnGpu { family, config, expected, reason });
        }
    }

    fn kernel(
        &mut self,
        (kernel, pinned): (Box<dyn Kernel>, bool),
        arguments: &[Argument],
    ) -> KernelId {
        let symbol = kernel.symbol();
        if let Some(id) = self.by_symbol.get(&symbol) {
            return *id;
        }
        let narrow = |count: usize| u32::try_from(count).expect("kernels take few pointers");
        let written = |argument: &Argument| {
            !matches!(argument, Argument::Operand(_) | Argument::PageTable | Argument::Order { .. })
        };
        let writes: Vec<u32> =
            (0..arguments.len()).filter(|at| written(&arguments[*at])).map(narrow).collect();
        assert_eq!(writes, kernel.writes(), "broken invariant `plan.writes`: `{symbol}`");
        let config = kernel.shaped().filter(|_| pinned).map(Shaped::config);
        self.pinned += usize::from(pinned);
        let id = self.rows.push(PlannedKernel {
            symbol: config.map_or(symbol.clone(), |config| format!("{symbol} {config}")),
            family: kernel.family().to_owned(),
            offset: 0,
            arguments: narrow(arguments.len()),
            writes,
            cuda: sail_kernels::ptx::launch(kernel.as_ref()),
        });
        self.kernels.push(kernel);
        self.by_symbol.insert(symbol, id);
        id
    }
}

struct FunctionBuilder<'a> {
    view: &'a FunctionView,
    name: &'a str,
    given: Given<'a>,
    shared: &'a mut Shared,
    /// What the size class bounds.
    count: Count,
    counts: Vec<Option<Count>>,
    buffers: IdVec<BufferId, Buffer>,
    /// The buffer that holds a value, once its producer (or the caller) is known.
    of_value: Vec<Option<BufferId>>,
    page_table: Option<BufferId>,
    steps: IdVec<StepId, Step>,
    accesses: Vec<StepAccess>,
    workspace_bytes: u64,
    place_name: label::Namer,
    /// One more than the last layer in which rows chose experts.
    choices: u32,
    /// The order of the experts of each layer that was asked for.
    orders: HashMap<u32, BufferId>,
}

/// Buffers a step reads and writes.
#[derive(Default)]
struct StepAccess {
    reads: Vec<BufferId>,
    writes: Vec<BufferId>,
}

impl<'a> FunctionBuilder<'a> {
    fn new(
        view: &'a FunctionView,
        name: &'a str,
        given: Given<'a>,
        shared: &'a mut Shared,
    ) -> Self {
        let count = if view.name.starts_with("vision") { Count::Images } else { Count::Tokens };
        Self {
            view,
            name,
            given,
            shared,
            count,
            counts: vec![None; view.values.len()],
            buffers: IdVec::new(),
            of_value: vec![None; view.values.len()],
            page_table: None,
            steps: IdVec::new(),
            accesses: Vec::new(),
            workspace_bytes: 0,
            place_name: label::Namer::default(),
            choices: 0,
            orders: HashMap::new(),
        }
    }

    fn run(mut self) -> Result<Function, CompileError> {
        self.arguments();
        for op in &self.view.ops {
            self.op(op)?;
        }
        self.choose_tokens();
        let arena_bytes = self.place_arena();
        self.find_waits();
        let classes = self.classes().to_vec();
        let launches = self.cut();
        Ok(Function {
            name: self.name.to_owned(),
            count: self.count,
            classes,
            max_outputs: self.max_outputs(),
            arena_bytes,
            workspace_bytes: self.workspace_bytes,
            buffers: self.buffers,
            steps: self.steps,
            launches,
        })
    }

    /// Size classes of the function.
    fn classes(&self) -> &'a [u32] {
        match (self.count, self.name) {
            (Count::Images, _) => &self.given.bounds.vision,
            (_, "decode") => &self.given.bounds.decode,
            (_, WIDE) => &self.given.bounds.wide_decode,
            (_, SHORT) => &self.given.bounds.short_prefill,
            (_, "prefill.taps") => &self.given.bounds.tapped_prefill,
            _ => &self.given.bounds.prefill,
        }
    }

    /// One launch for the whole function: threads meet at counters, not at its end. Tapped
    /// functions are cut before every choice of experts, so that a golden's choice can be put in.
    fn cut(&mut self) -> Vec<Launch> {
        let tapped = self.view.name.ends_with(".taps");
        let cuts = |step: &Step| tapped && self.shared.rows[step.kernel].family == "route";
        let mut starts: Vec<StepId> =
            self.steps.iter().filter(|(_, step)| cuts(step)).map(|(id, _)| id).collect();
        starts.insert(0, StepId::new(0));
        starts.push(StepId::new(self.steps.len()));
        starts.dedup();
        let launches: Vec<Launch> =
            starts.windows(2).map(|pair| Launch { rank: 0, steps: [pair[0], pair[1]] }).collect();
        for launch in &launches {
            let [first, end] = launch.steps;
            for step in first.index()..end.index() {
                // What earlier launches did is done.
                self.steps[StepId::new(step)].waits.retain(|wait| *wait >= first);
            }
        }
        launches
    }

    fn max_outputs(&self) -> u32 {
        let largest = |classes: &[u32]| classes.last().copied().unwrap_or(1);
        match self.name {
            "decode" => largest(&self.given.bounds.decode),
            WIDE => largest(&self.given.bounds.wide_decode),
            "prefill.taps" => largest(&self.given.bounds.tapped_prefill), // all rows are looked at
            _ => self.given.bounds.max_outputs,
        }
    }

    fn arguments(&mut self) {
        for value in &self.view.arguments {
            let name = self.view.values[*value].name.as_str();
            let (place, count) = match name {
                "pixels" => (Place::Port { port: Port::Pixels }, Count::Images),
                "features" => (Place::Port { port: Port::Features }, Count::Images),
                "ids" => (Place::Control { field: ControlField::Ids }, Count::Tokens),
                "rows" => (Place::Control { field: ControlField::Rows }, Count::Tokens),
                "image_rows" => (Place::Control { field: ControlField::ImageRows }, Count::Tokens),
                "outputs" => (Place::Control { field: ControlField::OutputRows }, Count::Outputs),
                other => panic!("broken invariant `plan.arguments`: unknown argument `{other}`"),
            };
            self.counts[*value] = Some(count);
            let buffer = self.buffer_of(*value, place);
            self.of_value[*value] = Some(buffer);
        }
    }

    fn op(&mut self, op: &OpView) -> Result<(), CompileError> {
        let count = op.operands.get(op.op.rows_of).and_then(|value| self.counts[*value]);
        for result in &op.results {
            if self.view.values[*result].ty.is_counted() {
                self.counts[*result] = count;
            }
        }
        let Given { target, bounds, placement, lock } = self.given;
        let scope = Scope {
            view: self.view,
            op,
            counts: &self.counts,
            target,
            cache: bounds.cache,
            placement,
            lock,
            most: [self.classes().last().copied().unwrap_or(1), self.max_outputs()],
        };
        let chosen = match choose::choose(&scope) {
            // All such ops are told at once; what reads this one's results has buffers to read.
            Err(CompileError::NoTemplate { ops, .. }) => {
                self.shared.without_kernel.extend(ops);
                for result in &op.results {
                    self.of_value[*result] = Some(self.result_buffer(op, *result));
                }
                return Ok(());
            }
            chosen => chosen?,
        };
        match chosen {
            Chosen::Weight(source) => {
                let value = op.results[0];
                let name = self.view.values[value].name.clone();
                self.of_value[value] = Some(self.weight(name, source));
            }
            Chosen::Cache { layer } => {
                let value = op.results[0];
                let buffer = self.buffers.push(Buffer {
                    name: self.view.values[value].name.clone(),
                    place: Place::Cache { layer },
                    dtype: sail_ir::DType::Bf16,
                    bytes: Affine::default(), // the pool is sized at load
                    row_dims: Vec::new(),
                    count: None,
                });
                self.of_value[value] = Some(buffer);
            }
            Chosen::Step { kernel, arguments, pinned } => {
                self.step(op, (kernel, pinned), &arguments);
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        op: &OpView,
        (kernel, pinned): (Box<dyn Kernel>, bool),
        arguments: &[Argument],
    ) {
        for result in &op.results {
            self.of_value[*result] = Some(self.result_buffer(op, *result));
        }
        let label = self.place_name.label(self.view, op);
        let mut access = StepAccess::default();
        let mut buffers = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let buffer = match argument {
                Argument::Operand(index) => {
                    let buffer = self.of_value[op.operands[*index]].unwrap_or_else(|| {
                        panic!("broken invariant `plan.defined`: {}", op.op.name)
                    });
                    access.reads.push(buffer);
                    buffer
                }
                Argument::Result(index) => {
                    let buffer = self.of_value[op.results[*index]].expect("made above");
                    access.writes.push(buffer);
                    buffer
                }
                Argument::Choice { of } => {
                    let buffer = self.of_value[op.results[0]].expect("made above");
                    let layer = label::layer_number(&label).unwrap_or(self.choices);
                    self.choices = layer + 1;
                    self.buffers[buffer].place = Place::Choice { layer, of: *of };
                    access.writes.push(buffer);
                    buffer
                }
                Argument::Order { layer } => self.order(*layer),
                Argument::PageTable => self.page_table(),
                Argument::Tap => {
                    let buffer = self.tap_buffer(op);
                    access.writes.push(buffer);
                    buffer
                }
                Argument::Scratch | Argument::Counters => {
                    let buffer = self.scratch_buffer(&label, kernel.as_ref(), argument);
                    access.writes.push(buffer);
                    buffer
                }
            };
            buffers.push(buffer);
        }
        if let Some(before) = kernel.before() {
            let made = self.step_before(&label, before, &buffers);
            buffers[0] = made;
            access.reads.push(made);
        }
        self.workspace_bytes = self.workspace_bytes.max(kernel.workspace_bytes());
        let (grid, cost): (Grid, _) = (kernel.grid(), kernel.cost());
        if !self.view.name.ends_with(".taps") {
            self.shared.note(kernel.as_ref());
        }
        let kernel = self.shared.kernel((kernel, pinned), arguments);
        self.steps.push(Step { label, kernel, arguments: buffers, grid, waits: Vec::new(), cost });
        self.accesses.push(access);
    }

    /// The step that makes the first argument of the next one out of some of its `buffers`; gives where
    /// that stands.
    fn step_before(&mut self, label: &str, before: Before, buffers: &[BufferId]) -> BufferId {
        let Before { kernel, takes, row_bytes } = before;
        let (grid, cost) = (kernel.grid(), kernel.cost());
        let made = (format!("{label}.input"), sail_ir::DType::Bf16);
        let place = Place::Arena { offset: Affine::default() };
        let made = self.own_buffer(made, place, row_bytes, grid);
        let mut arguments: Vec<BufferId> =
            takes.iter().map(|position| buffers[*position as usize]).collect();
        let access = StepAccess { reads: arguments.clone(), writes: vec![made] };
        arguments.push(made);
        let of_op = (0..takes.len()).map(Argument::Operand).chain([Argument::Result(0)]);
        let kernel = self.shared.kernel((kernel, false), &of_op.collect::<Vec<_>>());
        let label = label.to_owned();
        self.steps.push(Step { label, kernel, arguments, grid, waits: Vec::new(), cost });
        self.accesses.push(access);
        made
    }

    fn place_arena(&mut self) -> Affine {
        let mut alive: BTreeMap<BufferId, (usize, usize)> = BTreeMap::new();
        for (step, access) in self.accesses.iter().enumerate() {
            for buffer in access.reads.iter().chain(&access.writes) {
                if matches!(self.buffers[*buffer].place, Place::Arena { .. }) {
                    alive.entry(*buffer).or_insert((step, step)).1 = step;
                }
            }
        }
        let requests: Vec<Request> = alive
            .iter()
            .map(|(buffer, (first, last))| {
                let bytes = self.buffers[*buffer].bytes;
                let bytes =
                    Affine { per_row: reserved(bytes.per_row), fixed: reserved(bytes.fixed) };
                Request { bytes, alive: *first..=*last }
            })
            .collect();
        let placement = place(&requests);
        for (buffer, offset) in alive.keys().zip(placement.offsets) {
            self.buffers[*buffer].place = Place::Arena { offset };
        }
        placement.arena_bytes
    }

    fn find_waits(&mut self) {
        let spans = |buffers: &[BufferId]| buffers.iter().map(|id| self.span(*id)).collect();
        let accesses: Vec<Accesses> = self
            .accesses
            .iter()
            .map(|access| Accesses { reads: spans(&access.reads), writes: spans(&access.writes) })
            .collect();
        for (step, earlier) in waits(&accesses).into_iter().enumerate() {
            self.steps[StepId::new(step)].waits = earlier.into_iter().map(StepId::new).collect();
        }
    }

    /// The bytes of a buffer, as far as two buffers can share them.
    fn span(&self, id: BufferId) -> Span {
        const GROWING: u64 = 0;
        const FIXED: u64 = 1;
        const COUNTERS: u64 = 2;
        const CACHES: u64 = 3;
        let buffer = &self.buffers[id];
        let whole = |storage| Span { storage, start: 0, end: u64::MAX };
        let others = CACHES + 1_000_000;
        match &buffer.place {
            Place::Arena { offset } if buffer.bytes.per_row > 0 => Span {
                storage: GROWING,
                start: offset.per_row,
                end: offset.per_row + reserved(buffer.bytes.per_row),
            },
            Place::Arena { offset } => Span {
                storage: FIXED,
                start: offset.fixed,
                end: offset.fixed + reserved(buffer.bytes.fixed),
            },
            Place::Counters => whole(COUNTERS),
            Place::Cache { layer } => whole(CACHES + u64::from(*layer)),
            _ => whole(others + u64::from(id.0)),
        }
    }
}
