//! A `kernels` function as plain data: what the plan builder reads, free of MLIR.

use std::collections::HashMap;

use sail_ir::op::{Attributes, Op};
use sail_ir::shape::Type;

use crate::stage::{Kernels, Module};
use crate::view;

/// Index of a value in [`FunctionView::values`].
pub type ValueId = usize;

/// One function of a sealed `kernels` module.
#[derive(Debug)]
pub struct FunctionView {
    pub name: String,
    pub values: Vec<ValueView>,
    pub arguments: Vec<ValueId>,
    pub ops: Vec<OpView>,
    pub returns: Vec<ValueId>,
}

/// A value: its printed name and its type.
#[derive(Debug)]
pub struct ValueView {
    pub name: String,
    pub ty: Type,
}

/// One op, in program order.
#[derive(Debug)]
pub struct OpView {
    pub op: &'static Op,
    pub operands: Vec<ValueId>,
    pub results: Vec<ValueId>,
    pub attributes: Attributes,
}

/// The functions of `module`, in order.
#[must_use]
pub fn functions(module: &Module<'_, Kernels>) -> Vec<FunctionView> {
    module.functions().into_iter().map(function).collect()
}

fn function(source: view::Function<'_, '_>) -> FunctionView {
    let mut values = Vec::new();
    let mut ids = HashMap::new();
    let mut define = |value: view::Value<'_, '_>| {
        let id = values.len();
        values.push(ValueView { name: value.name(), ty: value.ty() });
        id
    };
    let mut arguments = Vec::new();
    for argument in source.arguments() {
        let id = define(argument);
        ids.insert(argument, id);
        arguments.push(id);
    }
    let mut ops = Vec::new();
    for op in source.ops() {
        let operands = op.operands().iter().map(|value| ids[value]).collect();
        let mut results = Vec::new();
        for result in op.results() {
            let id = define(result);
            ids.insert(result, id);
            results.push(id);
        }
        let row = op.row().expect("a sealed module holds ops of the dialect");
        ops.push(OpView { op: row, operands, results, attributes: op.attributes() });
    }
    let returns = source.results().iter().map(|value| ids[value]).collect();
    FunctionView { name: source.name(), values, arguments, ops, returns }
}

impl FunctionView {
    /// The op that defines `value`, or `None` for an argument.
    #[must_use]
    pub fn producer(&self, value: ValueId) -> Option<&OpView> {
        self.ops.iter().find(|op| op.results.contains(&value))
    }
}
