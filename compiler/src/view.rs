//! What stands in a module, for reading: functions, ops, values, in the words of `sail-ir`.
//!
//! All of these are small copyable handles into a module and live no longer than it does.

use std::hash::{Hash, Hasher};

use melior::ir::attribute::StringAttribute;
use melior::ir::operation::{OperationLike, OperationResult};
use melior::ir::{self as mlir, BlockLike, RegionLike, ValueLike};
use sail_ir::Type;
use sail_ir::op::{Attribute, Attributes, Op as Row};
use sail_ir::ops;

use crate::dialect;

/// The functions of a module, in order.
pub(crate) fn functions<'c, 'm>(module: &'m mlir::Module<'c>) -> Vec<Function<'c, 'm>> {
    functions_of(module.as_operation())
}

/// The functions of the module that `op` is.
pub(crate) fn functions_of<'c, 'm>(op: mlir::OperationRef<'c, 'm>) -> Vec<Function<'c, 'm>> {
    let block = op.region(0).ok().and_then(|region| region.first_block());
    all_ops(block.and_then(|block| block.first_operation()))
        .into_iter()
        .filter(|op| with_identifier(*op, |name| name == "func.func"))
        .map(Function)
        .collect()
}

/// A function of a module.
#[derive(Debug, Clone, Copy)]
pub struct Function<'c, 'm>(mlir::OperationRef<'c, 'm>);

impl<'c, 'm> Function<'c, 'm> {
    /// Its symbol, without `@`.
    #[must_use]
    pub fn name(self) -> String {
        let symbol = self.0.attribute("sym_name").expect("a function has a symbol");
        StringAttribute::try_from(symbol).expect("a symbol is text").value().to_owned()
    }

    /// What it is given.
    #[must_use]
    pub fn arguments(self) -> Vec<Value<'c, 'm>> {
        let Some(block) = self.block() else { return Vec::new() };
        let count = block.argument_count();
        (0..count)
            .map(|index| Value(block.argument(index).expect("below the count").into()))
            .collect()
    }

    /// Its ops in order, the final `return` left out.
    #[must_use]
    pub fn ops(self) -> Vec<Op<'c, 'm>> {
        let ops = all_ops(self.block().and_then(|block| block.first_operation()));
        ops.into_iter().map(Op).filter(|op| !op.is_return()).collect()
    }

    /// What it gives back.
    #[must_use]
    pub fn results(self) -> Vec<Value<'c, 'm>> {
        let last = self.block().and_then(|block| block.terminator());
        last.map(|op| Op(op).operands()).unwrap_or_default()
    }

    fn block(self) -> Option<mlir::BlockRef<'c, 'm>> {
        self.0.region(0).ok()?.first_block()
    }
}

/// An op of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op<'c, 'm>(pub(crate) mlir::OperationRef<'c, 'm>);

impl<'c, 'm> Op<'c, 'm> {
    /// Its row in the op table; `None` for MLIR's own ops.
    #[must_use]
    pub fn row(self) -> Option<&'static Row> {
        with_identifier(self.0, |name| ops::lookup(name.strip_prefix("sail.")?))
    }

    /// Without the dialect: `linear`; MLIR's own ops are called in full: `func.return`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().map_or("func.return", |row| row.name)
    }

    /// With the dialect: `sail.linear`.
    #[must_use]
    pub fn full_name(self) -> String {
        with_identifier(self.0, str::to_owned)
    }

    #[must_use]
    pub fn is(self, name: &str) -> bool {
        self.row().is_some_and(|row| row.name == name)
    }

    pub(crate) fn is_return(self) -> bool {
        with_identifier(self.0, |name| name == "func.return")
    }

    /// What it reads, in the order of its row.
    #[must_use]
    pub fn operands(self) -> Vec<Value<'c, 'm>> {
        let count = self.0.operand_count();
        (0..count).map(|index| Value(self.0.operand(index).expect("below the count"))).collect()
    }

    /// The operand its row calls `name`.
    ///
    /// # Panics
    ///
    /// When the row has no such operand, or it is one that `lower` has not appended yet.
    #[must_use]
    pub fn operand(self, name: &str) -> Value<'c, 'm> {
        let row = self.row().expect("only ops of the dialect have named operands");
        let mut names = row.operands.iter().chain(row.lowered);
        let index = names.position(|operand| *operand == name);
        let value = index.and_then(|index| self.0.operand(index).ok());
        Value(value.unwrap_or_else(|| panic!("`sail.{}` has no operand `{name}`", row.name)))
    }

    /// What it makes, in the order of its row.
    #[must_use]
    pub fn results(self) -> Vec<Value<'c, 'm>> {
        let count = self.0.result_count();
        let result = |index| self.0.result(index).expect("below the count");
        (0..count).map(|index| Value(result(index).into())).collect()
    }

    /// Its only result.
    #[must_use]
    pub fn result(self) -> Value<'c, 'm> {
        Value(self.0.result(0).expect("an op with a result").into())
    }

    /// Its attributes; the error names one that its row does not have.
    pub fn try_attributes(self) -> Result<Attributes, String> {
        dialect::attributes_of(&self.0, self.row().ok_or("not an op of the dialect")?)
    }

    /// Its attributes, in a verified module.
    #[must_use]
    pub fn attributes(self) -> Attributes {
        let attributes = self.try_attributes();
        attributes.unwrap_or_else(|error| panic!("sailc: broken invariant `module.ops`: {error}"))
    }

    /// An integer attribute as a size, in a verified module.
    #[must_use]
    pub fn size(self, name: &str) -> u64 {
        match self.attributes().get(name) {
            Some(Attribute::Int(value)) if *value >= 0 => *value as u64,
            other => panic!("`sail.{}`: `{name}` is {other:?}, not a size", self.name()),
        }
    }

    /// A float attribute, in a verified module.
    #[must_use]
    pub fn float(self, name: &str) -> f64 {
        match self.attributes().get(name) {
            Some(Attribute::Float(value)) => *value,
            other => panic!("`sail.{}`: `{name}` is {other:?}, not a number", self.name()),
        }
    }

    /// The name of what it makes, or of what it reads when it makes nothing.
    #[must_use]
    pub fn label(self) -> String {
        if let Some(name) = dialect::name_of(self.0.location()) {
            return name;
        }
        match self.operands().first() {
            Some(value) if self.0.result_count() == 0 => value.name(),
            _ => String::new(),
        }
    }

    /// Line and column of the text it was read from.
    #[must_use]
    pub fn place(self) -> Option<[usize; 2]> {
        dialect::place(self.0.location())
    }

    /// Does running it matter even when nobody reads what it makes?
    #[must_use]
    pub fn has_effect(self) -> bool {
        let is_cache = |value: &Value<'_, '_>| matches!(value.ty(), Type::Cache { .. });
        let changes_a_cache =
            || self.operands().iter().any(is_cache) && self.results().iter().any(is_cache);
        self.0.result_count() == 0 || changes_a_cache()
    }

    /// Does it stand before `other`, in the same function?
    #[must_use]
    pub fn is_before(self, other: Self) -> bool {
        self.0.is_before_in_block(other.0)
    }
}

/// A value: an argument of a function or a result of an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'c, 'm>(pub(crate) mlir::Value<'c, 'm>);

impl Hash for Value<'_, '_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_raw().ptr.hash(state);
    }
}

impl<'c, 'm> Value<'c, 'm> {
    /// Its type, in a verified module.
    #[must_use]
    pub fn ty(self) -> Type {
        dialect::type_of(self.0)
    }

    /// Its type; the error says what it is when it is none of the dialect's.
    pub fn try_ty(self) -> Result<Type, String> {
        self.0.r#type().to_string().parse()
    }

    /// Its name in the text, without `%`. Results of one op share a name, so
    /// [`Self::index`] tells them apart.
    #[must_use]
    pub fn name(self) -> String {
        dialect::name_of(self.0.location()).unwrap_or_default()
    }

    /// Which result of its op it is; 0 for an argument.
    #[must_use]
    pub fn index(self) -> usize {
        self.as_result().map_or(0, |result| result.result_number())
    }

    /// The op that makes it; `None` for an argument.
    #[must_use]
    pub fn owner(self) -> Option<Op<'c, 'm>> {
        Some(Op(self.as_result()?.owner()))
    }

    /// Asks before it converts: a conversion that fails prints the value into its error.
    fn as_result(self) -> Option<OperationResult<'c, 'm>> {
        self.0.is_operation_result().then(|| OperationResult::try_from(self.0).ok())?
    }

    /// The op `sail.NAME` that makes it.
    #[must_use]
    pub fn made_by(self, name: &str) -> Option<Op<'c, 'm>> {
        self.owner().filter(|op| op.is(name))
    }

    /// The ops that read it, in their order, `return` included; twice an op that reads it twice.
    #[must_use]
    pub fn readers(self) -> Vec<Op<'c, 'm>> {
        let mut uses = dialect::uses(self.0);
        uses.sort_by(|(one, at), (other, other_at)| match one == other {
            true => at.cmp(other_at),
            false if one.is_before_in_block(*other) => std::cmp::Ordering::Less,
            false => std::cmp::Ordering::Greater,
        });
        uses.into_iter().map(|(op, _)| Op(op)).collect()
    }
}

fn all_ops<'c, 'm>(first: Option<mlir::OperationRef<'c, 'm>>) -> Vec<mlir::OperationRef<'c, 'm>> {
    std::iter::successors(first, |op| op.next_in_block()).collect()
}

fn with_identifier<T>(op: mlir::OperationRef<'_, '_>, look: impl FnOnce(&str) -> T) -> T {
    look(op.name().as_string_ref().as_str().unwrap_or_default())
}
