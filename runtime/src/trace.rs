//! What each step of each call took, against what the machine could do.
//!
//! One line of JSON for each call (`--trace FILE`):
//!
//! ```text
//! {"function":"decode","class":1,"tokens":1,"images":0,"outputs":1,"seconds":0.012,"steps":[
//!   {"label":"layers.0.mlp","kernel":"linear…","bytes":…,"operations":…,"start":…,"seconds":…,
//!    "busy":…,"share":…}]}
//! ```
//!
//! `share` is the time the step's bytes and operations need at the machine's measured limits,
//! whichever is longer, over the time it took: 1 is the limit. Steps that wait for nothing of each
//! other run at the same time, so their times may overlap; `busy` sums over threads.

use std::ops::AddAssign;

use sail_ir::plan::{Count, Plan, Step};
use serde::Serialize;

use crate::device::Call;
use crate::execute::{Attention, Done};

/// What the machine can do, measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// Bytes that all threads together read from memory in a second.
    pub read_bytes: f64,
    /// bf16 multiplications and additions that all threads together do in a second.
    pub operations: f64,
    /// The same, of 8-bit integers.
    pub byte_operations: f64,
}

/// One carried out call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallTrace {
    pub function: String,
    /// Bound of the size class.
    pub class: u32,
    pub tokens: u32,
    pub images: u32,
    pub outputs: u32,
    /// From the start of the first step to the end of the last.
    pub seconds: f64,
    pub steps: Vec<StepTrace>,
}

/// One step of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepTrace {
    pub label: String,
    pub kernel: String,
    pub family: String,
    /// Bytes and operations it cannot do without.
    pub bytes: u64,
    pub operations: u64,
    /// Since the call began.
    pub start: f64,
    pub seconds: f64,
    /// Time on all threads together.
    pub busy: f64,
    /// Of the machine's limit.
    pub share: f64,
}

/// Work that a step cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    pub bytes: u64,
    /// In floats.
    pub operations: u64,
    /// In 8-bit integers.
    pub byte_operations: u64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.operations += other.operations;
        self.byte_operations += other.byte_operations;
    }
}

impl Work {
    /// The work of a step in what was done.
    #[must_use]
    pub fn of(step: &Step, done: &Done) -> Self {
        Self::counted(step, &done.call, done.attention)
    }

    fn counted(step: &Step, call: &Call, attention: Attention) -> Self {
        let rows = step.grid.rows(match step.grid.count {
            Count::Tokens => call.tokens,
            Count::Images => call.images,
            Count::Outputs => call.outputs,
        });
        let [operations, byte_operations] = step.cost.operations_by_kind(rows, attention.looks);
        Self { bytes: step.cost.bytes(rows, attention.positions), operations, byte_operations }
    }

    /// Of all kinds.
    #[must_use]
    pub fn all_operations(&self) -> u64 {
        self.operations + self.byte_operations
    }

    /// Seconds that reading needs at the limits.
    #[must_use]
    pub fn reading(&self, limits: &Limits) -> f64 {
        self.bytes as f64 / limits.read_bytes
    }

    /// Seconds that computing needs at the limits.
    #[must_use]
    pub fn computing(&self, limits: &Limits) -> f64 {
        let seconds = |operations: u64, limit: f64| match operations {
            0 => 0.0,
            some => some as f64 / limit,
        };
        seconds(self.operations, limits.operations)
            + seconds(self.byte_operations, limits.byte_operations)
    }

    /// Seconds that this needs at the limits.
    #[must_use]
    pub fn floor(&self, limits: &Limits) -> f64 {
        self.reading(limits).max(self.computing(limits))
    }
}

impl CallTrace {
    /// What was told about a call of `plan`.
    #[must_use]
    pub fn new(plan: &Plan, done: &Done, limits: &Limits) -> Self {
        let Call { class, tokens, images, outputs, .. } = done.call;
        let steps = done.function.steps.iter().zip(done.times).map(|((_, step), time)| {
            let work = Work::of(step, done);
            let kernel = &plan.kernels[step.kernel];
            let ran = time.start != u64::MAX;
            let seconds = if ran { (time.end - time.start) as f64 / 1e9 } else { 0.0 };
            StepTrace {
                label: step.label.clone(),
                kernel: kernel.symbol.clone(),
                family: kernel.family.clone(),
                bytes: work.bytes,
                operations: work.all_operations(),
                start: if ran { time.start as f64 / 1e9 } else { 0.0 },
                seconds,
                busy: time.busy as f64 / 1e9,
                share: if seconds > 0.0 { work.floor(limits) / seconds } else { 0.0 },
            }
        });
        let steps: Vec<StepTrace> = steps.collect();
        Self {
            function: done.function.name.clone(),
            class: done.function.classes[class],
            tokens,
            images,
            outputs,
            seconds: steps.iter().map(|step| step.start + step.seconds).fold(0.0, f64::max),
            steps,
        }
    }

    /// A table for people: one line per step.
    #[must_use]
    pub fn table(&self) -> String {
        let Self { function, tokens, images, outputs, seconds, .. } = self;
        let mut text = format!(
            "{function}  tokens {tokens}  images {images}  outputs {outputs}  {:.3} ms\n",
            seconds * 1e3
        );
        for step in &self.steps {
            text.push_str(&format!(
                "  {:<28} {:<44} {:>9.3} ms {:>9.2} MB {:>8.3} GOP {:>5.0} %\n",
                step.label,
                step.kernel,
                step.seconds * 1e3,
                step.bytes as f64 / 1e6,
                step.operations as f64 / 1e9,
                step.share * 100.0,
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use sail_ir::id::KernelId;
    use sail_ir::plan::{Arithmetic, Cost, Grid};

    use super::*;

    #[test]
    fn work_counts_weights_once_rows_by_row_and_attention_by_position() {
        let step = Step {
            label: "layers.0.attn".to_owned(),
            kernel: KernelId(0),
            arguments: Vec::new(),
            grid: Grid { count: Count::Tokens, per: 2, rows_per_block: 4, columns: 1, run: 1 },
            waits: Vec::new(),
            cost: Cost {
                weight_bytes: 1000,
                row_bytes: 10,
                row_operations: 7,
                position_operations: 3,
                position_bytes: 2,
                ..Cost::default()
            },
        };
        let call = Call { function: 0, class: 0, tokens: 4, images: 0, outputs: 1 };
        let work = Work::counted(&step, &call, Attention { positions: 4, looks: 10 });
        assert_eq!(work, Work { bytes: 1088, operations: 86, byte_operations: 0 });
        let limits = Limits { read_bytes: 1088.0, operations: 43.0, byte_operations: 56.0 };
        assert_eq!(work.floor(&limits), 2.0);
        let mut bytes = step.clone();
        bytes.cost.arithmetic = Arithmetic::Bytes;
        let work = Work::counted(&bytes, &call, Attention { positions: 4, looks: 10 });
        assert_eq!(work, Work { bytes: 1088, operations: 30, byte_operations: 56 });
        assert_eq!(work.floor(&limits), 30.0 / 43.0 + 1.0);
        let none = Call { tokens: 0, ..call };
        assert_eq!(Work::counted(&step, &none, Attention::default()), Work::default());
    }
}
