//! Everything about a plan that keeps memory safe and results defined, checked before it runs.

use std::fmt;

use super::{
    ALIGNMENT, Affine, Buffer, ControlField, Count, Function, Kernel, Launch, Place, Plan, Port,
    Step,
};
use crate::dtype::DType;
use crate::id::{BufferId, Id, StepId};

/// Most steps of a function; checking their order takes the square of this in bits.
const MAX_STEPS: usize = 1 << 14;

/// Most experts that rows choose of.
const MAX_CHOICES: u32 = 1 << 16;

/// Which rule a plan breaks, where, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError {
    /// Name of the rule: `plan.disjoint`.
    pub rule: &'static str,
    /// Function, and step or buffer: `prefill, step layers.0.mlp`.
    pub place: String,
    /// Both sides of the disagreement.
    pub because: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` does not hold for {}: {}", self.rule, self.place, self.because)
    }
}

impl std::error::Error for PlanError {}

impl Plan {
    /// Check the plan's rules; the compiler does before it writes, the runtime when it opens.
    ///
    /// 1. *sizes*: no size of any class overflows `u64`; alignments hold;
    /// 2. *classes* ascend from at least one;
    /// 3. *called right*: a step names a kernel and gives it that kernel's pointers; what it
    ///    writes may be written and overlaps no other argument; ids and rows of the control block are
    ///    written by the last step alone;
    /// 4. *inside*: buffers lie in the arena, in their weight, in the cache there is;
    /// 5. *cut*: launches hold every step once, in order, for rank 0;
    /// 6. *backwards*: a step waits only for earlier steps of its launch;
    /// 7. *defined*: a step reads from the arena only what a step before it wrote;
    /// 8. *disjoint*: steps that touch the same bytes of the arena, one of them writing, are
    ///    ordered, and bytes change owner only between the last use and the first.
    pub fn verify(&self) -> Result<(), PlanError> {
        self.verify_tables()?;
        for (index, function) in self.functions.iter().enumerate() {
            let checked = Checked { plan: self, function };
            if self.functions[..index].iter().any(|before| before.name == function.name) {
                return checked.refuse("plan.named", None, "there are two of that name");
            }
            checked.classes()?;
            checked.buffers()?;
            checked.launches()?;
            checked.steps()?;
            super::order::check(&checked)?;
        }
        Ok(())
    }

    /// Kernels start inside the code section and weights lie inside the weights section.
    pub fn verify_inside(&self, code_bytes: u64, weights_bytes: u64) -> Result<(), PlanError> {
        for (_, Kernel { symbol, offset, .. }) in self.kernels.iter() {
            if *offset >= code_bytes {
                return Err(PlanError {
                    rule: "plan.inside",
                    place: format!("kernel `{symbol}`"),
                    because: format!("it starts at byte {offset} of {code_bytes}"),
                });
            }
        }
        for (id, weight) in self.weights.iter() {
            let end = weight.offset.checked_add(weight.bytes);
            if end.is_none_or(|end| end > weights_bytes) {
                return Err(PlanError {
                    rule: "plan.inside",
                    place: format!("weight {id}"),
                    because: format!(
                        "{} bytes at {} do not fit {weights_bytes}",
                        weight.bytes, weight.offset
                    ),
                });
            }
        }
        Ok(())
    }

    fn verify_tables(&self) -> Result<(), PlanError> {
        let refuse = |rule, place: String, because: String| Err(PlanError { rule, place, because });
        for (_, kernel) in self.kernels.iter() {
            let place = || format!("kernel `{}`", kernel.symbol);
            let ascending = kernel.writes.windows(2).all(|pair| pair[0] < pair[1]);
            let known = kernel.writes.iter().all(|argument| *argument < kernel.arguments);
            if !ascending || !known || kernel.writes.is_empty() {
                let because =
                    format!("it writes {:?} of {} pointers", kernel.writes, kernel.arguments);
                return refuse("plan.called_right", place(), because);
            }
        }
        for (id, weight) in self.weights.iter() {
            if weight.offset % ALIGNMENT != 0 {
                let because = format!("it starts at byte {}", weight.offset);
                return refuse("plan.aligned", format!("weight {id}"), because);
            }
            if weight.shard[0] >= weight.shard[1] {
                let because = format!("it is part {} of {}", weight.shard[0], weight.shard[1]);
                return refuse("plan.sharded", format!("weight {id}"), because);
            }
        }
        let cache = &self.cache;
        let least = cache.scheme.block_bytes(cache.head_dim);
        if least.is_none_or(|least| cache.block_bytes < least)
            || !cache.block_bytes.is_multiple_of(ALIGNMENT)
            || cache.block_bytes.checked_mul(u64::from(cache.kv_heads)).is_none()
        {
            let because = format!(
                "a block of {} bytes for {} kv heads of {}",
                cache.block_bytes, cache.kv_heads, cache.head_dim
            );
            return refuse("plan.sizes", "the cache".to_owned(), because);
        }
        Ok(())
    }
}

/// A function being checked.
pub(super) struct Checked<'p> {
    pub plan: &'p Plan,
    pub function: &'p Function,
}

impl Checked<'_> {
    pub(super) fn refuse<T>(
        &self,
        rule: &'static str,
        what: Option<String>,
        because: impl Into<String>,
    ) -> Result<T, PlanError> {
        let place = match what {
            Some(what) => format!("`{}`, {what}", self.function.name),
            None => format!("`{}`", self.function.name),
        };
        Err(PlanError { rule, place, because: because.into() })
    }

    fn classes(&self) -> Result<(), PlanError> {
        let Function { classes, arena_bytes, steps, .. } = self.function;
        if steps.len() > MAX_STEPS {
            return self.refuse("plan.sizes", None, format!("it has {} steps", steps.len()));
        }
        let ascending = classes.windows(2).all(|pair| pair[0] < pair[1]);
        if classes.first().is_none_or(|first| *first == 0) || !ascending {
            return self.refuse("plan.classes", None, format!("its classes are {classes:?}"));
        }
        if arena_bytes.at(self.largest()).is_none() {
            return self.refuse("plan.sizes", None, format!("its arena has {arena_bytes} bytes"));
        }
        Ok(())
    }

    fn largest(&self) -> u32 {
        self.function.classes.last().copied().unwrap_or_default()
    }

    fn buffers(&self) -> Result<(), PlanError> {
        for (id, buffer) in self.function.buffers.iter() {
            let Some(bytes) = buffer.bytes.at(self.largest()) else {
                return self.refuse(
                    "plan.sizes",
                    Some(named(id, buffer)),
                    format!("it has {} bytes", buffer.bytes),
                );
            };
            self.holds_its_rows(id, buffer)?;
            match &buffer.place {
                Place::Arena { offset } => self.inside_arena(id, buffer, *offset)?,
                Place::Weight { weight } => match self.plan.weights.get(*weight) {
                    Some(row) if buffer.bytes.per_row == 0 && bytes <= row.bytes => {}
                    Some(row) => {
                        return self.refuse(
                            "plan.inside",
                            Some(named(id, buffer)),
                            format!("{} bytes of a weight of {}", buffer.bytes, row.bytes),
                        );
                    }
                    None => {
                        return self.refuse(
                            "plan.inside",
                            Some(named(id, buffer)),
                            format!("there is no weight {weight}"),
                        );
                    }
                },
                Place::Cache { layer } if *layer >= self.plan.cache.layers => {
                    return self.refuse(
                        "plan.inside",
                        Some(named(id, buffer)),
                        format!("layer {layer} of {}", self.plan.cache.layers),
                    );
                }
                Place::Choice { of, .. } => self.counted_choice(id, buffer, *of)?,
                Place::Cache { .. }
                | Place::Control { .. }
                | Place::Port { .. }
                | Place::Tap { .. }
                | Place::Counters => {}
            }
        }
        Ok(())
    }

    /// The rows that a call may count fit the bytes, in every class.
    fn holds_its_rows(&self, id: BufferId, buffer: &Buffer) -> Result<(), PlanError> {
        // Ports, the control block and the cache are sized by the runtime, packed weights by
        // their scheme.
        let (Place::Arena { .. } | Place::Tap { .. } | Place::Choice { .. } | Place::Counters) =
            buffer.place
        else {
            return Ok(());
        };
        let row = buffer
            .row_dims
            .iter()
            .try_fold(buffer.dtype.bytes(), |product, dim| product.checked_mul(*dim));
        for class in &self.function.classes {
            let rows = match buffer.count {
                None => 1,
                Some(Count::Outputs) if self.function.count != Count::Outputs => {
                    self.function.max_outputs
                }
                Some(count) if count == self.function.count => *class,
                Some(count) => {
                    return self.refuse(
                        "plan.sizes",
                        Some(named(id, buffer)),
                        format!("nothing bounds its {count:?}"),
                    );
                }
            };
            let needed = row.and_then(|row| row.checked_mul(u64::from(rows)));
            let bytes = buffer.bytes.at(*class);
            if needed.is_none_or(|needed| bytes.is_none_or(|bytes| bytes < needed)) {
                return self.refuse(
                    "plan.sizes",
                    Some(named(id, buffer)),
                    format!(
                        "{} bytes do not hold {rows} rows of {:?}",
                        buffer.bytes, buffer.row_dims
                    ),
                );
            }
        }
        Ok(())
    }

    /// Choices are numbers of rows, below a number that can be counted up to.
    fn counted_choice(&self, id: BufferId, buffer: &Buffer, of: u32) -> Result<(), PlanError> {
        if buffer.dtype == DType::I32 && buffer.count.is_some() && (1..=MAX_CHOICES).contains(&of) {
            return Ok(());
        }
        let because = format!("it chooses of {of}, as {}", buffer.dtype);
        self.refuse("plan.sizes", Some(named(id, buffer)), because)
    }

    fn inside_arena(&self, id: BufferId, buffer: &Buffer, offset: Affine) -> Result<(), PlanError> {
        let Function { arena_bytes, classes, .. } = self.function;
        for class in classes {
            let end = offset.at(*class).zip(buffer.bytes.at(*class));
            let end = end.and_then(|(offset, bytes)| offset.checked_add(bytes));
            if end.is_none_or(|end| arena_bytes.at(*class).is_none_or(|arena| end > arena)) {
                return self.refuse(
                    "plan.inside",
                    Some(named(id, buffer)),
                    format!(
                        "{} bytes at {offset} end beyond the arena's {arena_bytes} in class {class}",
                        buffer.bytes
                    ),
                );
            }
            if offset.at(*class).is_none_or(|offset| offset % ALIGNMENT != 0) {
                return self.refuse(
                    "plan.aligned",
                    Some(named(id, buffer)),
                    format!("it starts at {offset} in class {class}"),
                );
            }
        }
        Ok(())
    }

    /// Launches hold all steps, one after another.
    fn launches(&self) -> Result<(), PlanError> {
        let mut next = 0;
        for Launch { rank, steps: [first, end] } in &self.function.launches {
            if *rank != 0 {
                return self.refuse("plan.cut", None, format!("a launch is for rank {rank}"));
            }
            if first.index() != next || end.index() <= next {
                let because = format!("a launch of steps {first} to {end} follows step {next}");
                return self.refuse("plan.cut", None, because);
            }
            next = end.index();
        }
        let steps = self.function.steps.len();
        if next != steps {
            return self.refuse("plan.cut", None, format!("launches hold {next} of {steps} steps"));
        }
        Ok(())
    }

    fn steps(&self) -> Result<(), PlanError> {
        for (id, step) in self.function.steps.iter() {
            let what = || Some(format!("step {id} `{}`", step.label));
            let Some(kernel) = self.plan.kernels.get(step.kernel) else {
                let because = format!("there is no kernel {}", step.kernel);
                return self.refuse("plan.called_right", what(), because);
            };
            let given = step.arguments.len();
            if given != kernel.arguments as usize {
                let because =
                    format!("`{}` takes {} pointers, not {given}", kernel.symbol, kernel.arguments);
                return self.refuse("plan.called_right", what(), because);
            }
            let unknown =
                step.arguments.iter().find(|id| self.function.buffers.get(**id).is_none());
            if let Some(unknown) = unknown {
                let because = format!("there is no buffer {unknown}");
                return self.refuse("plan.called_right", what(), because);
            }
            let counts = |id: &BufferId| self.function.buffers[*id].place == Place::Counters;
            if kernel.cuda.is_none() && step.arguments.iter().any(counts) {
                let because = format!("`{}` is no CUDA kernel and takes counters", kernel.symbol);
                return self.refuse("plan.called_right", what(), because);
            }
            let grid = step.grid;
            if grid.per == 0 || grid.rows_per_block == 0 || grid.columns == 0 || grid.run == 0 {
                return self.refuse("plan.called_right", what(), format!("its grid is {grid:?}"));
            }
            let launch = self.launch_of(id.index());
            let early = |wait: &&StepId| wait.index() < launch[0] || wait.index() >= id.index();
            if let Some(wait) = step.waits.iter().find(early) {
                let because =
                    format!("it waits for step {wait}; its launch starts at {}", launch[0]);
                return self.refuse("plan.backwards", what(), because);
            }
            self.writes(id, step, kernel)?;
        }
        Ok(())
    }

    /// What a step writes may be written, and is no other argument's memory.
    fn writes(&self, id: StepId, step: &Step, kernel: &Kernel) -> Result<(), PlanError> {
        for argument in &kernel.writes {
            let position = *argument as usize;
            let written = &self.function.buffers[step.arguments[position]];
            let writable = match &written.place {
                Place::Arena { .. }
                | Place::Cache { .. }
                | Place::Tap { .. }
                | Place::Choice { .. }
                | Place::Counters => true,
                Place::Port { port } => !matches!(port, Port::Pixels),
                // Nothing of the call comes after: it becomes the control block of the next call.
                Place::Control { field } => {
                    let last = id.index() + 1 == self.function.steps.len();
                    last && matches!(field, ControlField::Ids | ControlField::Rows)
                }
                Place::Weight { .. } => false,
            };
            let what = || Some(format!("step {id} `{}`", step.label));
            if !writable {
                let because = format!("it writes `{}`, which is not to be written", written.name);
                return self.refuse("plan.called_right", what(), because);
            }
            let mut others =
                step.arguments.iter().enumerate().filter(|(other, _)| *other != position);
            let clash = others.find(|(_, other)| {
                let other = &self.function.buffers[**other];
                self.share_bytes(written, other)
            });
            if let Some((_, other)) = clash {
                let other = &self.function.buffers[*other].name;
                let because = format!("it writes `{}` on top of `{other}`", written.name);
                return self.refuse("plan.disjoint", what(), because);
            }
        }
        Ok(())
    }

    fn share_bytes(&self, a: &Buffer, b: &Buffer) -> bool {
        match (&a.place, &b.place) {
            (Place::Arena { offset: first }, Place::Arena { offset: second }) => {
                self.overlap((*first, a.bytes), (*second, b.bytes))
            }
            (first, second) => first == second,
        }
    }

    /// Do two runs of arena bytes meet in any class?
    pub(super) fn overlap(&self, a: (Affine, Affine), b: (Affine, Affine)) -> bool {
        // Sizes that do not fit were refused with the buffers.
        let span = |(offset, bytes): (Affine, Affine), class| {
            let start = offset.at(class).unwrap_or(0);
            (start, start.saturating_add(bytes.at(class).unwrap_or(u64::MAX)))
        };
        self.function.classes.iter().any(|class| {
            let (a, b) = (span(a, *class), span(b, *class));
            a.0 < b.1 && b.0 < a.1
        })
    }

    fn launch_of(&self, step: usize) -> [usize; 2] {
        let launches = &self.function.launches;
        let index = launches.partition_point(|launch| launch.steps[1].index() <= step);
        launches[index].steps.map(Id::index)
    }
}

fn named(id: BufferId, buffer: &Buffer) -> String {
    format!("buffer {id} `{}`", buffer.name)
}
