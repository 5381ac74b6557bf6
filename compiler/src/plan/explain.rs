//! What the kernels of a plan are expected to take, function by function, and why each is shaped as it is.

use std::fmt::Write as _;

use sail_ir::id::Id;
use sail_ir::plan::{Count, Function};
use sail_ir::target::Target;
use sail_kernels::Kernel;
use sail_kernels::gpu_model::{Chip, Expected};

use super::build::Draft;

/// Rows of a call that a choice is explained by: an image tile, a prompt, one that is decoded.
const MANY: u32 = 1024;
const DECODED: u32 = 8;

/// Rows for which it is told what a kernel takes, of one for calls of at most `most` rows.
pub(super) fn rows_of(most: u32) -> u32 {
    if most <= DECODED { 1 } else { most.min(MANY) }
}

/// Every function that answers with its kernels; those for looking inside are left out.
#[must_use]
pub fn text(draft: &Draft, target: &Target) -> String {
    let chip = Chip::of(target);
    let mut text = match chip {
        Some(_) => "# Expected times are a model's, not measured.\n".to_owned(),
        None => format!(
            "# Nothing is expected of kernels for `{target}`: `sailc tune` measures them.\n"
        ),
    };
    for function in draft.plan.functions.iter().filter(|it| !it.name.ends_with(".taps")) {
        of_function(&mut text, draft, function, chip.as_ref());
    }
    text
}

fn of_function(text: &mut String, draft: &Draft, function: &Function, chip: Option<&Chip>) {
    let counted = match function.count {
        Count::Images => 1,
        _ => rows_of(function.classes.last().copied().unwrap_or(1)),
    };
    // Only where every token gives logits are as many rows wanted.
    let outputs = if function.name.starts_with("decode") { counted } else { 1 };
    let mut kernels: Vec<(usize, u32)> = Vec::new();
    for (_, step) in function.steps.iter() {
        let kernel = step.kernel.index();
        match kernels.iter_mut().find(|(known, _)| *known == kernel) {
            Some((_, times)) => *times += 1,
            None => kernels.push((kernel, 1)),
        }
    }
    let (mut lines, mut seconds) = (String::new(), 0.0);
    for (at, times) in kernels {
        let kernel = draft.kernels[at].as_ref();
        let count = if kernel.grid().count == Count::Outputs { outputs } else { counted };
        let _ = writeln!(lines, "  {times} x {}", kernel.symbol());
        let config = kernel.shaped().map(|shaped| shaped.config().to_string());
        let expected = chip.map(|chip| expected(kernel, count, chip));
        if let Some((expected, _)) = &expected {
            seconds += f64::from(times) * expected.seconds();
            let _ = writeln!(lines, "      {expected}");
        }
        let reason = expected.and_then(|(_, reason)| reason);
        let why = [config, reason].into_iter().flatten().collect::<Vec<_>>().join(": ");
        if !why.is_empty() {
            let _ = writeln!(lines, "      {why}");
        }
    }
    let what = match function.count {
        Count::Images => "image tile",
        _ => "token",
    };
    let s = if counted == 1 { "" } else { "s" };
    let _ =
        write!(text, "{}: {} steps for {counted} {what}{s}", function.name, function.steps.len());
    if chip.is_some() {
        let _ = write!(text, ", {:.0} us expected one after another", 1e6 * seconds);
    }
    text.push('\n');
    text.push_str(&lines);
}

/// What a call of `count` counted rows takes, and why the kernel is as it is.
fn expected(kernel: &dyn Kernel, count: u32, chip: &Chip) -> (Expected, Option<String>) {
    let rows = kernel.grid().rows(count);
    let narrow = u32::try_from(rows).unwrap_or(u32::MAX);
    match kernel.shaped().and_then(|shaped| shaped.expected(narrow)) {
        Some((expected, reason)) => (expected, Some(reason)),
        None => {
            let least = Expected::least(&kernel.cost(), rows, chip);
            let meet = kernel.scratch().is_some();
            (if meet { least.with_meeting(chip) } else { least }, None)
        }
    }
}
