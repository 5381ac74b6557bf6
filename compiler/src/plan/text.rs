//! The plan as text: stage `plan` of the dialect, one function per entry point.

use std::fmt::Write;

use melior::Context;

use sail_ir::plan::{Buffer, Function, Grid, Place, Plan};

use crate::dialect::{self, ParseError};

/// The plan as MLIR prints it, having read it.
///
/// Refuses what MLIR refuses, which would be a defect of [`module`].
pub fn checked(context: &Context, plan: &Plan) -> Result<String, ParseError> {
    let text = module(plan);
    Ok(dialect::print(&dialect::parse(context, &text, "plan")?))
}

/// The plan as text of the dialect.
#[must_use]
pub fn module(plan: &Plan) -> String {
    let mut text = String::new();
    for function in &plan.functions {
        write_function(&mut text, plan, function).expect("writing to a string cannot fail");
    }
    text
}

fn write_function(text: &mut String, plan: &Plan, function: &Function) -> std::fmt::Result {
    let classes: Vec<String> = function.classes.iter().map(u32::to_string).collect();
    writeln!(
        text,
        "func.func @{:?}() attributes {{sail.arena_bytes = \"{}\", sail.classes = [{}], sail.count = \"{}\", sail.workspace_bytes = {} : i64}} {{",
        function.name,
        function.arena_bytes,
        classes.join(", "),
        format!("{:?}", function.count).to_lowercase(),
        function.workspace_bytes
    )?;
    for (id, buffer) in function.buffers.iter() {
        let (place, offset) = place(&buffer.place);
        let offset = offset.map_or(String::new(), |offset| format!("offset = \"{offset}\", "));
        writeln!(
            text,
            "  \"sail.buffer\"() {{bytes = \"{}\", name = {:?}, {offset}place = {place:?}, type = {:?}}} : () -> ()",
            buffer.bytes,
            unique(function, id.0),
            type_text(buffer)
        )?;
    }
    for launch in &function.launches {
        let [first, end] = launch.steps;
        writeln!(
            text,
            "  \"sail.launch\"() {{end = {end} : i64, first = {first} : i64, rank = {} : i64}} : () -> ()",
            launch.rank
        )?;
    }
    for (id, step) in function.steps.iter() {
        let arguments = step.arguments.iter().map(|id| format!("{:?}", unique(function, id.0)));
        let waits = step.waits.iter().map(|wait| format!("\"{wait}\""));
        writeln!(
            text,
            "  \"sail.step\"() {{arguments = [{}], grid = \"{}\", index = {id} : i64, kernel = {:?}, label = {:?}, waits = [{}]}} : () -> ()",
            arguments.collect::<Vec<_>>().join(", "),
            grid(&step.grid),
            plan.kernels[step.kernel].symbol,
            step.label,
            waits.collect::<Vec<_>>().join(", ")
        )?;
    }
    writeln!(text, "  return\n}}")
}

/// Names repeat (an unfused layer norms twice), numbers do not.
fn unique(function: &Function, id: u32) -> String {
    let name = &function.buffers[sail_ir::id::BufferId(id)].name;
    format!("{name}#{id}")
}

fn place(place: &Place) -> (String, Option<String>) {
    match place {
        Place::Arena { offset } => ("arena".to_owned(), Some(offset.to_string())),
        Place::Weight { weight } => (format!("weight {weight}"), None),
        Place::Cache { layer } => (format!("cache {layer}"), None),
        Place::Control { field } => (format!("control {field:?}").to_lowercase(), None),
        Place::Port { port } => (format!("port {port:?}").to_lowercase(), None),
        Place::Tap { name } => (format!("tap {name}"), None),
        Place::Counters => ("counters".to_owned(), None),
        Place::Choice { layer, of } => (format!("choice {layer} of {of}"), None),
    }
}

fn type_text(buffer: &Buffer) -> String {
    let counted = if buffer.count.is_some() { "?x" } else { "" };
    let dims: String = buffer.row_dims.iter().map(|dim| format!("{dim}x")).collect();
    format!("tensor<{counted}{dims}{}>", buffer.dtype)
}

fn grid(grid: &Grid) -> String {
    let Grid { count, per, rows_per_block, columns, run } = grid;
    let run = if *run == 1 { String::new() } else { format!(" by {run}") };
    format!("{}*{per}/{rows_per_block} x {columns}{run}", format!("{count:?}").to_lowercase())
}
