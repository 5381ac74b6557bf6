//! A function of a plan as a table for people.

use std::fmt;

use super::{Count, Function, Launch, Plan, Step};
use crate::id::Id;

/// One function at one size class; its `Display` is a header line and one line per step.
///
/// ```text
/// plan decode   class 1 of [1]   arena 0.70 MB   workspace 0.10 MB per thread   226 steps in 1 launches
///  step  label           kernel                       items       bytes    operations  waits
///    12  layers.0.mlp    gate_up_silu.bf16.n12288       192    50.33 MB     0.050 GOP  11
/// ```
///
/// Bytes and operations are those a step cannot do without, attention counted at no position.
pub struct Listing<'p> {
    plan: &'p Plan,
    function: &'p Function,
    class: u32,
}

impl Plan {
    /// `function` at `class`, or at its largest class.
    #[must_use]
    pub fn listing<'p>(&'p self, function: &'p Function, class: Option<u32>) -> Listing<'p> {
        let class = class.or(function.classes.last().copied()).unwrap_or_default();
        Listing { plan: self, function, class }
    }
}

impl Listing<'_> {
    fn rows(&self, count: Count) -> u32 {
        match count {
            Count::Outputs if self.function.count != Count::Outputs => {
                self.function.max_outputs.min(self.class)
            }
            _ => self.class,
        }
    }

    fn step_lines(&self, f: &mut fmt::Formatter<'_>, launch: &Launch) -> fmt::Result {
        let label_width = widest(self.function.steps.iter().map(|(_, step)| step.label.len()));
        let kernel_width = widest(self.plan.kernels.iter().map(|(_, kernel)| kernel.symbol.len()));
        writeln!(
            f,
            "{:>5}  {:label_width$}  {:kernel_width$}  {:>8}  {:>10}  {:>12}  waits",
            "step", "label", "kernel", "items", "bytes", "operations"
        )?;
        let [first, end] = launch.steps.map(Id::index);
        for (id, step) in self.function.steps.iter().skip(first).take(end - first) {
            let rows = self.rows(step.grid.count);
            let costed = step.grid.rows(rows);
            writeln!(
                f,
                "{:>5}  {:label_width$}  {:kernel_width$}  {:>8}  {:>10}  {:>12}  {}",
                id.0,
                step.label,
                self.plan.kernels[step.kernel].symbol,
                step.grid.items(rows),
                megabytes(step.cost.bytes(costed, 0)),
                billions(step.cost.operations_by_kind(costed, 0).iter().sum()),
                waits(step),
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Function { name, arena_bytes, workspace_bytes, steps, launches, .. } = self.function;
        writeln!(
            f,
            "plan {name}   class {} of {:?}   arena {}   workspace {} per thread   {} steps in {} launches",
            self.class,
            self.function.classes,
            megabytes(arena_bytes.at(self.class).unwrap_or(u64::MAX)),
            megabytes(*workspace_bytes),
            steps.len(),
            launches.len(),
        )?;
        launches.iter().try_for_each(|launch| self.step_lines(f, launch))
    }
}

fn waits(step: &Step) -> String {
    if step.waits.is_empty() {
        return "-".to_owned();
    }
    step.waits.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn widest(widths: impl Iterator<Item = usize>) -> usize {
    widths.max().unwrap_or_default().max(6)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

fn billions(operations: u64) -> String {
    format!("{:.3} GOP", operations as f64 / 1e9)
}
