//! Everything a call needs, looked up when the device is made: entry points and pointers.

use sail_ir::DType;
use sail_ir::id::Id;
use sail_ir::plan::{Affine, Buffer, Count, Grid, Place, Plan, Port};

use super::memory::{Code, Memory};
use super::weights::Weights;
use crate::device::Layout;

/// The kernels' calling convention: pointers, control block, first item, one past the last item,
/// private scratch.
///
/// # Safety
///
/// The pointers lead to what the plan says, for these items.
pub(super) type Kernel = unsafe extern "sysv64" fn(*const *mut u8, *const u32, u64, u64, *mut u8);

/// All functions of a plan, by index; `None` for those the layout has no room for.
pub(super) struct Table {
    pub functions: Vec<Option<FunctionTable>>,
}

/// Steps of one function, and the pointers they take in each size class.
pub(super) struct FunctionTable {
    pub steps: Vec<StepRow>,
    /// First step and one past the last of each launch.
    pub launches: Vec<[usize; 2]>,
    /// For each class, the arguments of all steps one after another.
    pub pointers: Vec<Pointers>,
    /// Bounds of the classes, and what they bound.
    pub classes: Vec<u32>,
    pub count: Count,
    pub max_outputs: u32,
    /// For each buffer, what it is when it is a bf16 buffer of the arena.
    pub scratch: Vec<Option<Scratch>>,
}

/// A bf16 buffer of the arena.
pub(super) struct Scratch {
    pub offset: Affine,
    pub count: Option<Count>,
    /// Values of one row.
    pub row_values: usize,
}

/// One step, without its pointers.
pub(super) struct StepRow {
    pub kernel: Kernel,
    /// Where in the class's pointers its own start.
    pub arguments: usize,
    pub grid: Grid,
    /// Steps to wait for.
    pub waits: Vec<usize>,
}

/// Pointers into a device's memory.
pub(super) struct Pointers(pub Vec<*mut u8>);

// SAFETY: these are addresses in memory that outlives the table and belongs to the device; who
// may follow them when is the plan's business, which was verified.
unsafe impl Send for Pointers {}
// SAFETY: as above.
unsafe impl Sync for Pointers {}

/// The memory that pointers go to.
pub(super) struct Regions {
    pub weights: Weights,
    pub arena: Memory,
    pub control: Memory,
    pub pixels: Memory,
    /// What `vision` writes.
    pub new_features: Memory,
    /// What `prefill` reads.
    pub features: Memory,
    pub logits: Memory,
    pub chosen: Memory,
    pub seen: Memory,
    /// The pool of each layer.
    pub layers: Vec<Memory>,
    pub taps: Vec<Memory>,
    pub choices: Vec<Memory>,
}

impl Table {
    /// Look everything up. Expects a verified plan and memory of at least the layout's sizes.
    pub fn new(plan: &Plan, layout: &Layout, code: &Code, regions: &Regions) -> Self {
        let functions = plan.functions.iter().map(|function| {
            layout.holds(function).then(|| {
                let mut arguments = 0;
                let steps = function.steps.iter().map(|(_, step)| {
                    let kernel = &plan.kernels[step.kernel];
                    let row = StepRow {
                        kernel: entry(code, kernel.offset),
                        arguments,
                        grid: step.grid,
                        waits: step.waits.iter().map(|wait| wait.index()).collect(),
                    };
                    arguments += step.arguments.len();
                    row
                });
                let steps = steps.collect();
                let pointers = function.classes.iter().map(|class| {
                    let buffers: Vec<*mut u8> = function
                        .buffers
                        .iter()
                        .map(|(_, buffer)| {
                            let writes_features = function.name.starts_with("vision");
                            resolve(&buffer.place, *class, plan, layout, regions, writes_features)
                        })
                        .collect();
                    let steps = function.steps.iter();
                    let ids = steps.flat_map(|(_, step)| &step.arguments);
                    Pointers(ids.map(|id| buffers[id.index()]).collect())
                });
                FunctionTable {
                    steps,
                    launches: function
                        .launches
                        .iter()
                        .map(|launch| launch.steps.map(Id::index))
                        .collect(),
                    pointers: pointers.collect(),
                    classes: function.classes.clone(),
                    count: function.count,
                    max_outputs: function.max_outputs,
                    scratch: function.buffers.iter().map(|(_, buffer)| scratch(buffer)).collect(),
                }
            })
        });
        Self { functions: functions.collect() }
    }
}

fn scratch(buffer: &Buffer) -> Option<Scratch> {
    let row_values = usize::try_from(buffer.row_dims.iter().product::<u64>()).ok()?;
    match buffer.place {
        Place::Arena { offset } if buffer.dtype == DType::Bf16 => {
            Some(Scratch { offset, count: buffer.count, row_values })
        }
        _ => None,
    }
}

fn resolve(
    place: &Place,
    class: u32,
    plan: &Plan,
    layout: &Layout,
    regions: &Regions,
    writes_features: bool,
) -> *mut u8 {
    match place {
        Place::Arena { offset } => {
            let offset = offset.at(class).expect("broken invariant `plan.sizes`: arena");
            regions.arena.at(offset)
        }
        Place::Weight { weight } => regions.weights.at(plan.weights[*weight].offset),
        Place::Cache { layer } => regions.layers[*layer as usize].start(),
        Place::Control { field } => regions.control.at(4 * layout.control.start(*field) as u64),
        Place::Port { port: Port::Pixels } => regions.pixels.start(),
        Place::Port { port: Port::Features } if writes_features => regions.new_features.start(),
        Place::Port { port: Port::Features } => regions.features.start(),
        Place::Port { port: Port::Logits } => regions.logits.start(),
        Place::Port { port: Port::Chosen } => regions.chosen.start(),
        Place::Port { port: Port::Seen } => regions.seen.start(),
        Place::Tap { name } => {
            let index = layout.tap(name).expect("broken invariant `layout.taps`: a tap is missing");
            regions.taps[index].start()
        }
        Place::Choice { layer, .. } => {
            let index = layout.choice(*layer).expect("broken invariant `layout.choices`: none");
            regions.choices[index].start()
        }
        Place::Counters => panic!("broken invariant `plan.called_right`: machine code counts none"),
    }
}

fn entry(code: &Code, offset: u64) -> Kernel {
    // SAFETY: the plan's kernels start inside the code (`Plan::verify_inside`), and the code is
    // what the compiler wrote for them, by its hash: functions of this signature.
    unsafe { std::mem::transmute::<*const u8, Kernel>(code.at(offset)) }
}
