//! Is a module legal in a stage? Op rows' shape rules and stage legality, over MLIR.
//!
//! MLIR has checked syntax, known ops, required attributes and that values are defined before
//! they are read; shapes, further attributes and stages are checked here, at every seam.

use std::collections::BTreeSet;
use std::fmt;

use melior::Context;
use melior::ir as mlir;
use melior::ir::operation::OperationLike;
use sail_ir::op::{self, Op as Row};
use sail_ir::{Help, Type};

use crate::dialect;
use crate::stage::Stage;
use crate::view::{self, Function, Op};

/// Refuses a module in which an op is unknown, not legal in `S`, has attributes or types that its
/// row does not give it, or reads a weight that is packed too early or too late.
pub fn module<S: Stage>(context: &Context, mlir: &mlir::Module<'_>) -> Result<(), VerifyErrors> {
    let mut violations = structure(context, mlir);
    if violations.is_empty() {
        for function in view::functions(mlir) {
            violations.extend(function_violations::<S>(function));
        }
    }
    match violations.is_empty() {
        true => Ok(()),
        false => Err(VerifyErrors { stage: S::NAME, violations }),
    }
}

/// What a module does against the rules of a stage, in the order of its ops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyErrors {
    pub stage: &'static str,
    pub violations: Vec<Violation>,
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Function, value and op: ``@prefill`, `%y`, `sail.linear``.
    pub at: String,
    /// Line and column of the text, where it was read from one.
    pub place: Option<[usize; 2]>,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  in {}", self.message, self.at)?;
        match self.place {
            Some([line, _]) => write!(f, ", line {line}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for VerifyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, rest) = self.violations.split_first().expect("errors are not empty");
        write!(f, "{first}\n  because stage `{}` has other rules", self.stage)?;
        match rest.len() {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl std::error::Error for VerifyErrors {}

impl Help for VerifyErrors {
    fn code(&self) -> &'static str {
        "SC0314"
    }
    fn hint(&self) -> Option<String> {
        self.violations.first()?.hint.clone()
    }
    fn exit_code(&self) -> u8 {
        3
    }
}

/// What MLIR's own verifier says of the module.
fn structure(context: &Context, mlir: &mlir::Module<'_>) -> Vec<Violation> {
    let verify = || mlir.as_operation().verify();
    let (sound, mut heard) = dialect::listening(context, verify);
    if !sound && heard.is_empty() {
        heard.push((None, "MLIR refuses the module".to_owned()));
    }
    let violation =
        |(place, message)| Violation { at: "the module".to_owned(), place, message, hint: None };
    heard.into_iter().map(violation).collect()
}

fn function_violations<S: Stage>(function: Function<'_, '_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for op in function.ops() {
        if let Err(Refusal { message, hint }) = op_refusal::<S>(op) {
            let at = format!("`@{}`, `%{}`, `{}`", function.name(), op.label(), op.full_name());
            violations.push(Violation { at, place: op.place(), message, hint });
        }
    }
    if violations.is_empty() {
        violations.extend(cache_violations(function));
    }
    violations
}

/// A changed cache is the same storage: the value before the change must not be read after it, and
/// a layer has one cache.
fn cache_violations(function: Function<'_, '_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut refuse = |op: Op<'_, '_>, message: String| {
        let at = format!("`@{}`, `%{}`, `{}`", function.name(), op.label(), op.full_name());
        violations.push(Violation { at, place: op.place(), message, hint: None });
    };
    let mut layers = BTreeSet::new();
    for op in function.ops() {
        if op.is("cache") && !layers.insert(op.size("layer")) {
            refuse(op, format!("layer {} has a cache already", op.size("layer")));
        }
        for value in op.results().into_iter().filter(|it| matches!(it.ty(), Type::Cache { .. })) {
            let readers = value.readers();
            let Some(changed) = readers.iter().position(|reader| reader.has_effect()) else {
                continue;
            };
            for late in &readers[changed + 1..] {
                let by = readers[changed].full_name();
                refuse(*late, format!("`%{}` is read after `{by}` changed it", value.name()));
            }
        }
    }
    violations
}

struct Refusal {
    message: String,
    hint: Option<String>,
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self { message, hint: None }
    }
}

fn op_refusal<S: Stage>(op: Op<'_, '_>) -> Result<(), Refusal> {
    let Some(row) = op.row() else {
        return Err(format!("`{}` is no op of the dialect", op.full_name()).into());
    };
    if !row.legal_in.contains(S::STAGES) {
        return Err(format!("`sail.{}` is not legal in stage `{}`", row.name, S::NAME).into());
    }
    let operands = types(op.operands().into_iter().map(|value| value.try_ty()))?;
    let written = types(op.results().into_iter().map(|value| value.try_ty()))?;
    operand_count::<S>(row, operands.len())?;
    packing::<S>(row, &operands)?;
    let attributes = op.try_attributes()?;
    let inferred = op::infer_written(row, &operands, &attributes, &written)
        .map_err(|error| Refusal { message: error.message, hint: error.hint })?;
    if inferred != written {
        let [inferred, written] = [inferred, written].map(|types| list(&types));
        return Err(format!("the results are {written}, the shape rule gives {inferred}").into());
    }
    Ok(())
}

fn types(types: impl Iterator<Item = Result<Type, String>>) -> Result<Vec<Type>, String> {
    types.collect()
}

fn operand_count<S: Stage>(row: &Row, found: usize) -> Result<(), String> {
    let extra = if S::LOWERED { row.lowered.len() } else { 0 };
    let expected = row.operands.len() + extra;
    if found != expected {
        let (name, stage) = (row.name, S::NAME);
        return Err(format!(
            "`sail.{name}` has {found} operands, it takes {expected} in stage `{stage}`"
        ));
    }
    Ok(())
}

fn packing<S: Stage>(row: &Row, operands: &[Type]) -> Result<(), String> {
    for (index, ty) in operands.iter().enumerate() {
        let name = row.operand_name(index).unwrap_or_default();
        let expected = S::PACKED && row.packed.contains(&name);
        let found = matches!(ty, Type::Packed { .. });
        if S::PACKED && row.moved.contains(&name) {
            if let Type::Packed { scheme, .. } = ty
                && !scheme.keeps_values()
            {
                return Err(format!("`{name}` is `{ty}`, which does not keep the values"));
            }
        } else if found != expected {
            let must = if expected { "must be packed" } else { "must not be packed" };
            return Err(format!("`{name}` is `{ty}` and {must} in stage `{}`", S::NAME));
        }
    }
    Ok(())
}

fn list(types: &[Type]) -> String {
    let types: Vec<String> = types.iter().map(|ty| format!("`{ty}`")).collect();
    if types.is_empty() { "none".to_owned() } else { types.join(", ") }
}

#[cfg(test)]
mod tests {
    use crate::dialect;
    use crate::stage::{Graph, Kernels, Module, Packed, Stage};

    fn refusal<S: Stage>(body: &str) -> String {
        let context = dialect::context();
        let text = format!(
            "func.func @f(%x: tensor<?x64xbf16>, %w: tensor<96x64xbf16>, %rows: tensor<?x2xi32>) {{\n{body}\n  return\n}}\n"
        );
        let error = Module::<S>::parse(&context, &text, "f.mlir").unwrap_err();
        error.to_string().lines().take(2).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_result_of_another_type_than_the_rule_gives_is_named() {
        let text = refusal::<Graph>(
            r#"  %y = "sail.linear"(%x, %w) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x95xbf16>"#,
        );
        assert_eq!(
            text,
            "the results are `tensor<?x95xbf16>`, the shape rule gives `tensor<?x96xbf16>`\n  in `@f`, `%y`, `sail.linear`, line 2"
        );
    }

    #[test]
    fn an_op_of_a_later_stage_is_refused() {
        let text = refusal::<Graph>(
            r#"  %y = "sail.columns"(%x) {first = 0 : i64, count = 8 : i64} : (tensor<?x64xbf16>) -> tensor<?x8xbf16>"#,
        );
        assert!(text.starts_with("`sail.columns` is not legal in stage `graph`"), "{text}");
    }

    #[test]
    fn a_weight_that_is_not_packed_in_time_is_refused() {
        let text = refusal::<Packed>(
            r#"  %y = "sail.linear"(%x, %w) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>"#,
        );
        assert!(text.contains("must be packed in stage `packed`"), "{text}");
    }

    #[test]
    fn an_op_that_was_not_lowered_is_refused() {
        let text = refusal::<Kernels>(
            r#"  %y = "sail.rope"(%x, %rows) {head_dim = 16 : i64, theta = 1.0 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>"#,
        );
        assert!(text.starts_with("`sail.rope` has 2 operands, it takes 3"), "{text}");
    }

    #[test]
    fn an_unknown_attribute_is_refused() {
        let text = refusal::<Graph>(
            r#"  %y = "sail.silu"(%x) {fast = true} : (tensor<?x64xbf16>) -> tensor<?x64xbf16>"#,
        );
        assert!(text.starts_with("`sail.silu` has no attribute `fast`"), "{text}");
    }

    #[test]
    fn a_cache_is_not_read_once_it_was_changed() {
        let text = refusal::<Graph>(
            r#"  %c = "sail.cache"() {layer = 0 : i64, kv_heads = 1 : i64, head_dim = 64 : i64} : () -> !sail.kv_cache<[1, 64]>
  %d = "sail.cache_write"(%c, %x, %x, %rows) : (!sail.kv_cache<[1, 64]>, tensor<?x64xbf16>, tensor<?x64xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[1, 64]>
  %y = "sail.attention"(%x, %c, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[1, 64]>, tensor<?x2xi32>) -> tensor<?x64xbf16>"#,
        );
        assert!(text.starts_with("`%c` is read after `sail.cache_write` changed it"), "{text}");
    }

    #[test]
    fn a_value_read_before_it_is_made_is_refused() {
        let text = refusal::<Graph>(
            r#"  %y = "sail.silu"(%z) : (tensor<?x64xbf16>) -> tensor<?x64xbf16>
  %z = "sail.silu"(%x) : (tensor<?x64xbf16>) -> tensor<?x64xbf16>"#,
        );
        assert!(text.contains("dominate"), "{text}");
    }
}
