//! Change a function: what a rule is, why it declines, and the rewriter it is given.

#[cfg(test)]
pub(crate) mod doc;

use melior::Context;
use melior::IrRewriter;
use melior::ir::operation::OperationLike;
use melior::ir::{BlockLike, ValueLike};
use sail_ir::Type;
use sail_ir::op::{Attribute, Attributes};
use sail_ir::ops;

use crate::dialect::{self, Draft};
use crate::view::{Function, Op, Value};

/// One local rewrite: looks at ops called `root`, and either replaces one or declines.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// As in `--explain fuse` and its filetest: `norm_linear`.
    pub name: &'static str,
    /// Without the dialect: `linear`.
    pub root: &'static str,
    pub rewrite: for<'c, 'm> fn(Op<'c, 'm>, &mut Rewriter<'c>) -> Result<(), Decline>,
}

/// Why a rule leaves an op alone: a sentence without a period. A rule has no other way to fail, and
/// changes nothing before it is sure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decline(pub String);

impl Decline {
    pub fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// What one rule did at one op, for `--explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub rule: &'static str,
    pub function: String,
    /// Name of the op's result.
    pub value: String,
    /// `None` where the rule fired.
    pub declined: Option<Decline>,
}

/// Run `rules` on one function until none fires: rules in their order, ops in theirs.
///
/// What fired is recorded as it fires; then, for every op that is left, why each rule with that
/// root declined.
pub fn run<'c>(
    function: Function<'c, '_>,
    rules: &[Rule],
    rewriter: &mut Rewriter<'c>,
) -> Vec<Record> {
    let mut records = Vec::new();
    let record = |rule: &Rule, value: String, declined| {
        let function = function.name();
        Record { rule: rule.name, function, value, declined }
    };
    let mut fired = true;
    while fired {
        fired = false;
        for rule in rules {
            let (mut ops, mut at) = (function.ops(), 0);
            while let Some(op) = ops.get(at).copied() {
                at += 1;
                if !op.is(rule.root) {
                    continue;
                }
                let value = op.label();
                if (rule.rewrite)(op, rewriter).is_ok() {
                    fired = true;
                    records.push(record(rule, value, None));
                    // The list has changed, at this op and before it: go on behind it.
                    let before = ops.len();
                    ops = function.ops();
                    at = (at + ops.len()).saturating_sub(before);
                }
            }
        }
    }
    for rule in rules {
        for op in function.ops().into_iter().filter(|op| op.is(rule.root)) {
            let value = op.label();
            // A root may outlive its rewrite; it has been told of already.
            if records.iter().any(|record| record.rule == rule.name && record.value == value) {
                continue;
            }
            let declined = (rule.rewrite)(op, rewriter).expect_err("no rule fires any more");
            records.push(record(rule, value, Some(declined)));
        }
    }
    records
}

/// What a new op is made of; results get the types of its row's shape rule.
#[derive(Debug)]
pub struct New<'v, 'c, 'm> {
    /// Without the dialect: `norm_linear`.
    pub op: &'static str,
    pub operands: &'v [Value<'c, 'm>],
    pub attributes: Attributes,
    /// Name of its result.
    pub name: String,
}

/// Changes the functions of a module.
///
/// An op that was replaced or erased is gone: whoever holds it must not look at it again. Rules
/// replace their root last, and the driver takes its list of ops anew.
pub struct Rewriter<'c> {
    context: &'c Context,
    mlir: IrRewriter<'c>,
}

impl<'c> Rewriter<'c> {
    #[must_use]
    pub fn new(context: &'c Context) -> Self {
        Self { context, mlir: IrRewriter::new(context) }
    }

    /// Put a new op before `before`.
    ///
    /// # Panics
    ///
    /// When operands or attributes do not fit the row of the new op.
    pub fn insert<'m>(&mut self, before: Op<'c, 'm>, new: New<'_, 'c, 'm>) -> Op<'c, 'm> {
        self.insert_typed(before, new, &[])
    }

    /// Give a weight another type: the same sizes in a scheme.
    pub fn set_type(&mut self, value: Value<'c, '_>, ty: &Type) {
        value.0.set_type(dialect::type_to_mlir(self.context, ty));
    }

    /// Put a new weight of type `ty` before `before`.
    pub fn insert_weight<'m>(
        &mut self,
        before: Op<'c, 'm>,
        name: String,
        attributes: Attributes,
        ty: Type,
    ) -> Value<'c, 'm> {
        let new = New { op: "weight", operands: &[], attributes, name };
        self.insert_typed(before, new, &[ty]).result()
    }

    fn insert_typed<'m>(
        &mut self,
        before: Op<'c, 'm>,
        new: New<'_, 'c, 'm>,
        written: &[Type],
    ) -> Op<'c, 'm> {
        let row = ops::lookup(new.op).unwrap_or_else(|| panic!("no op `{}`", new.op));
        let operands: Vec<_> = new.operands.iter().map(|value| value.0).collect();
        let location = dialect::named(self.context, &new.name, before.0.location());
        let draft = Draft { row, operands: &operands, attributes: &new.attributes, written };
        let block = before.0.block().expect("an op of a function stands in its block");
        Op(block.insert_operation_before(before.0, draft.op(self.context, location)))
    }

    /// Let the readers of `op` read `values` instead, erase it, and erase what nobody reads any
    /// more because of that.
    pub fn replace<'m>(&mut self, op: Op<'c, 'm>, values: &[Value<'c, 'm>]) {
        let results = op.results();
        assert_eq!(results.len(), values.len(), "one value for each result of `{}`", op.name());
        for (result, value) in results.into_iter().zip(values) {
            self.mlir.as_rewriter_base().replace_all_uses_with(result.0, value.0);
        }
        self.erase(op);
    }

    /// Erase `op`, which nobody reads, and then the ops it read if it was their last reader.
    fn erase(&mut self, op: Op<'c, '_>) {
        let producers: Vec<_> = op.operands().into_iter().filter_map(Value::owner).collect();
        self.mlir.as_rewriter_base().erase_op(op.0);
        let mut seen = Vec::new();
        for producer in producers {
            if !seen.contains(&producer) {
                seen.push(producer);
                self.erase_if_dead(producer);
            }
        }
    }

    /// Erase `op` if running it does not matter, and then likewise what it read. Says whether.
    pub fn erase_if_dead(&mut self, op: Op<'c, '_>) -> bool {
        let dead = !op.has_effect() && op.results().iter().all(|value| value.readers().is_empty());
        if dead {
            self.erase(op);
        }
        dead
    }

    /// The same op with other operands, in its place.
    pub fn rebuild<'m>(&mut self, op: Op<'c, 'm>, operands: &[Value<'c, 'm>]) -> Op<'c, 'm> {
        let (name, attributes) = (op.label(), op.attributes());
        let new = self.insert(op, New { op: op.name(), operands, attributes, name });
        self.replace(op, &new.results());
        new
    }

    /// One weight made of the paths of several, before `before`.
    ///
    /// Declines when one of `parts` is not a `sail.weight`, is itself joined, or has another type
    /// than the join can have.
    pub fn join_weights<'m>(
        &mut self,
        before: Op<'c, 'm>,
        parts: &[Value<'c, 'm>],
        join: Join,
        name: String,
    ) -> Result<Value<'c, 'm>, Decline> {
        let mut paths = Vec::new();
        for part in parts {
            paths.extend(paths_of(*part, join.part())?);
        }
        let types: Vec<Type> = parts.iter().map(|part| part.ty()).collect();
        let ty = join.ty(&types)?;
        let attributes =
            [("paths", Attribute::Texts(paths)), ("join", Attribute::Text(join.name().to_owned()))];
        Ok(self.insert_weight(before, name, attributes.into_iter().collect(), ty))
    }
}

/// The checkpoint paths of a weight, which must be joined as `expected`.
fn paths_of(value: Value<'_, '_>, expected: &str) -> Result<Vec<String>, Decline> {
    let weight = value.must_be_made_by("weight")?;
    let attributes = weight.attributes();
    match (attributes.get("join"), attributes.get("paths")) {
        (Some(Attribute::Text(join)), Some(Attribute::Texts(paths))) if join == expected => {
            Ok(paths.clone())
        }
        (Some(Attribute::Text(join)), _) => Err(Decline::because(format!(
            "the paths of `%{}` are joined by `{join}`, not by `{expected}`",
            value.name()
        ))),
        _ => Err(Decline::because(format!("`%{}` has no paths", value.name()))),
    }
}

/// How a rule makes one weight of several; see `sail.weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Rows one after the other.
    Concat,
    /// Gate and up, in alternating runs.
    Interleave,
    /// Gates and ups of all experts, each expert's interleaved.
    StackInterleave,
}

impl Join {
    const fn name(self) -> &'static str {
        match self {
            Self::Concat => "concat",
            Self::Interleave => "interleave",
            Self::StackInterleave => "stack_interleave",
        }
    }

    /// How each part must be joined.
    const fn part(self) -> &'static str {
        match self {
            Self::Concat | Self::Interleave => "one",
            Self::StackInterleave => "stack",
        }
    }

    /// The type of the whole: rows (the size before the last) add up, all else is equal.
    fn ty(self, parts: &[Type]) -> Result<Type, Decline> {
        let unlike = || {
            let types: Vec<String> = parts.iter().map(|ty| format!("`{ty}`")).collect();
            Decline::because(format!("weights of types {} do not join", types.join(" and ")))
        };
        let mut whole = parts[0].clone();
        let rows = sizes(&whole).ok_or_else(unlike)?.len().checked_sub(2).ok_or_else(unlike)?;
        for part in &parts[1..] {
            let more = sizes(part).ok_or_else(unlike)?;
            let mut like = sizes(&whole).ok_or_else(unlike)?;
            if more.len() != like.len() || (self != Self::Concat && *part != parts[0]) {
                return Err(unlike());
            }
            like[rows] += more[rows];
            let fits = (0..more.len()).all(|at| at == rows || more[at] == like[at]);
            whole = resized(part, &like).filter(|_| fits).ok_or_else(unlike)?;
        }
        Ok(whole)
    }
}

fn sizes(ty: &Type) -> Option<Vec<u64>> {
    match ty {
        Type::Packed { dims, .. } => Some(dims.clone()),
        Type::Tensor { dims, .. } => {
            dims.iter().map(|dim| sail_ir::op::fixed("", *dim).ok()).collect()
        }
        Type::Cache { .. } => None,
    }
}

fn resized(ty: &Type, sizes: &[u64]) -> Option<Type> {
    match ty {
        Type::Packed { scheme, .. } => Some(Type::Packed { dims: sizes.to_vec(), scheme: *scheme }),
        Type::Tensor { dtype, .. } => Some(Type::fixed(sizes, *dtype)),
        Type::Cache { .. } => None,
    }
}

/// What rules ask of values, with the answer "no" as a reason to decline.
impl<'c, 'm> Value<'c, 'm> {
    /// The op `sail.NAME` that makes it.
    pub fn must_be_made_by(self, name: &str) -> Result<Op<'c, 'm>, Decline> {
        self.made_by(name).ok_or_else(|| {
            Decline::because(format!("`%{}` is not made by `sail.{name}`", self.name()))
        })
    }

    /// Refuses a value that somebody else reads than `reader`, which reads it once: the value must
    /// then exist anyway.
    pub fn must_be_read_only_by(self, reader: Op<'c, 'm>) -> Result<(), Decline> {
        let mut readers = self.readers();
        let first = readers.iter().position(|op| *op == reader);
        first.map(|at| readers.remove(at));
        match readers.first() {
            None => Ok(()),
            Some(other) => Err(Decline::because(format!(
                "`%{}` is also read by `{}`",
                self.name(),
                other.full_name()
            ))),
        }
    }

    /// The op `sail.NAME` that makes it for `reader` alone.
    pub fn must_be_made_for(self, reader: Op<'c, 'm>, name: &str) -> Result<Op<'c, 'm>, Decline> {
        let op = self.must_be_made_by(name)?;
        self.must_be_read_only_by(reader)?;
        Ok(op)
    }
}

/// Makes the header of a rule's file its test; see `rewrite/doc.rs`.
macro_rules! doc_test {
    () => {
        #[cfg(test)]
        mod tests {
            #[test]
            fn the_header_shows_what_the_rule_does() {
                let source = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../", file!()));
                crate::rewrite::doc::check(super::RULE.name, source);
            }
        }
    };
}
pub(crate) use doc_test;
