//! The `sail` dialect in MLIR: a context that knows it, text in, text out, and the words of
//! `sail-ir` (types, attributes, op rows) as MLIR's.
//!
//! One of the two files that touch the raw edges of the MLIR bindings; the other is `rewrite.rs`.
//! MLIR forgets the names of values; here a name is the value's location, which the printer is told
//! to use, so text in = text out (see `names.rs`).

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use melior::Context;
use melior::dialect::{DialectHandle, DialectRegistry};
use melior::ir::attribute::{
    ArrayAttribute, BoolAttribute, FloatAttribute, IntegerAttribute, StringAttribute,
};
use melior::ir::operation::{OperationBuilder, OperationLike, OperationPrintingFlags};
use melior::ir::r#type::IntegerType;
use melior::ir::{self as mlir, AttributeLike, Identifier, Location, ValueLike};
use sail_ir::Type;
use sail_ir::op::{self, Attribute, Attributes, Op};
use sail_ir::{Help, ops};

use crate::names;

/// An MLIR context in which `func` and `sail` ops can be made and read, and nothing else.
///
/// Single-threaded: a model is a few thousand ops.
#[must_use]
pub fn context() -> Context {
    let registry = DialectRegistry::new();
    DialectHandle::func().insert_dialect(&registry);
    // SAFETY: the call has no preconditions and gives a handle that lives as long as the process.
    let irdl = unsafe { DialectHandle::from_raw(mlir_sys::mlirGetDialectHandle__irdl__()) };
    irdl.insert_dialect(&registry);
    let context = Context::new_with_registry(&registry, false);
    context.load_all_available_dialects();
    let loaded = mlir::Module::parse(&context, &ops::irdl())
        .is_some_and(|declared| melior::utility::load_irdl_dialects(&declared));
    assert!(loaded, "sailc: broken invariant `dialect.declared`: MLIR refuses `sail.irdl.mlir`");
    context
}

/// Read a module from text; every value keeps the name it has there.
///
/// `file` is what messages call the text. One op stands on one line. Refuses what MLIR refuses:
/// syntax, unknown ops, missing attributes. Shapes and stages are [`crate::verify`]'s.
pub fn parse<'c>(
    context: &'c Context,
    text: &str,
    file: &str,
) -> Result<mlir::Module<'c>, ParseError> {
    if let Some(at) = text.find('\0') {
        let line = text[..at].lines().count();
        return Err(ParseError::at(file, Some([line, 0]), "the text holds a zero byte".to_owned()));
    }
    let located = names::locate(text, file);
    let (module, heard) = listening(context, || mlir::Module::parse(context, &located));
    module.ok_or_else(|| {
        let unsaid = (None, "MLIR refuses the text".to_owned());
        let (place, message) = heard.into_iter().next().unwrap_or(unsaid);
        ParseError::at(file, place, message)
    })
}

/// Line and column where known, and a message of MLIR's.
pub(crate) type Heard = (Option<[usize; 2]>, String);

/// What MLIR said while `work` ran, in order.
pub(crate) fn listening<T>(context: &Context, work: impl FnOnce() -> T) -> (T, Vec<Heard>) {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let sink = Rc::clone(&heard);
    let handler = context.attach_diagnostic_handler(move |diagnostic| {
        sink.borrow_mut().push((place(diagnostic.location()), diagnostic.to_string()));
        true
    });
    let result = work();
    context.detach_diagnostic_handler(handler);
    (result, heard.take())
}

/// `context` for as long as an op that lives in it: MLIR hands a pass its op without one.
///
/// # Panics
///
/// When `op` lives in another context.
pub(crate) fn context_of_op<'c>(context: &Context, op: mlir::OperationRef<'c, '_>) -> &'c Context {
    assert!(op.context() == *context, "an op of this context");
    // SAFETY: the op borrows its context for 'c, and `context` is that one (asserted above), so it
    // is alive for 'c.
    unsafe { std::mem::transmute::<&Context, &'c Context>(context) }
}

/// The text of a module: functions one after the other, values by name.
#[must_use]
pub fn print(module: &mlir::Module<'_>) -> String {
    print_op(module.as_operation())
}

/// The text of a module that a pass was given.
pub(crate) fn print_op(module: mlir::OperationRef<'_, '_>) -> String {
    let flags = OperationPrintingFlags::new();
    // SAFETY: `flags` owns the object it hands out and outlives the call.
    unsafe { mlir_sys::mlirOpPrintingFlagsPrintNameLocAsPrefix(flags.to_raw()) };
    let text = module.to_string_with_flags(flags).expect("MLIR prints UTF-8");
    // A module's braces and first indentation say nothing.
    let inside = text.trim_end().strip_prefix("module {\n").and_then(|it| it.strip_suffix("}"));
    let lines = inside.unwrap_or(&text).lines();
    lines.map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect()
}

/// Why text is not a module of the dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    pub file: String,
    /// Line and column from 1, where MLIR knows them.
    pub place: Option<[usize; 2]>,
    pub message: String,
}

impl ParseError {
    fn at(file: &str, place: Option<[usize; 2]>, message: String) -> Self {
        Self { file: file.to_owned(), place, message }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  in `{}`", self.message, self.file)?;
        match self.place {
            Some([line, column]) => write!(f, ", line {line}, column {column}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ParseError {}

impl Help for ParseError {
    fn code(&self) -> &'static str {
        "SC0313"
    }
    fn exit_code(&self) -> u8 {
        3
    }
}

/// The name a location carries, if any.
pub(crate) fn name_of(location: Location<'_>) -> Option<String> {
    if !location.is_name() {
        return None;
    }
    let name = location.name_value();
    name.as_string_ref().as_str().ok().map(str::to_owned)
}

/// Line and column of a location, through the name that may wrap it.
pub(crate) fn place(location: Location<'_>) -> Option<[usize; 2]> {
    if location.is_name() {
        return place(location.name_child_location());
    }
    location.is_file_line_col_range().then(|| {
        [location.file_line_col_range_start_line(), location.file_line_col_range_start_column()]
    })
}

/// A location that carries `name`, at the place of `child`.
pub(crate) fn named<'c>(context: &'c Context, name: &str, child: Location<'c>) -> Location<'c> {
    let child = if child.is_name() { child.name_child_location() } else { child };
    Location::name(context, name, child)
}

/// `ty` as MLIR's.
pub(crate) fn type_to_mlir<'c>(context: &'c Context, ty: &Type) -> mlir::Type<'c> {
    let parsed = mlir::Type::parse(context, &ty.to_string());
    parsed.unwrap_or_else(|| panic!("sailc: broken invariant `dialect.types`: MLIR refuses `{ty}`"))
}

/// MLIR's attributes of an op as those of `row`; the error names the one that is not its.
pub(crate) fn attributes_of<'c: 'a, 'a>(
    op: &impl OperationLike<'c, 'a>,
    row: &Op,
) -> Result<Attributes, String> {
    let mut attributes = Attributes::new();
    for (name, value) in op.attributes() {
        let name = name.as_string_ref().as_str().unwrap_or_default();
        let field = row.attributes.iter().find(|field| field.name == name);
        let field =
            field.ok_or_else(|| format!("`sail.{}` has no attribute `{name}`", row.name))?;
        let value = attribute(value)
            .ok_or_else(|| format!("attribute `{name}` is `{value}`, expected {}", field.kind))?;
        attributes.insert(field.name, value);
    }
    Ok(attributes)
}

/// Asks before it converts: a conversion that fails prints the whole attribute into its error.
fn attribute(value: mlir::Attribute<'_>) -> Option<Attribute> {
    let text = |value: mlir::Attribute<'_>| {
        Some(StringAttribute::try_from(value).ok()?.value().to_owned())
    };
    if value.is_bool() {
        return Some(Attribute::Bool(BoolAttribute::try_from(value).ok()?.value()));
    }
    if value.is_integer() {
        return Some(Attribute::Int(IntegerAttribute::try_from(value).ok()?.value()));
    }
    if value.is_float() {
        return Some(Attribute::Float(FloatAttribute::try_from(value).ok()?.value()));
    }
    if value.is_string() {
        return Some(Attribute::Text(text(value)?));
    }
    if !value.is_array() {
        return None;
    }
    let array = ArrayAttribute::try_from(value).ok()?;
    let texts = (0..array.len())
        .map(|index| text(array.element(index).ok().filter(|element| element.is_string())?));
    Some(Attribute::Texts(texts.collect::<Option<_>>()?))
}

fn attribute_to_mlir<'c>(context: &'c Context, value: &Attribute) -> mlir::Attribute<'c> {
    let text = |value: &String| StringAttribute::new(context, value).into();
    match value {
        Attribute::Int(value) => {
            IntegerAttribute::new(IntegerType::new(context, 64).into(), *value).into()
        }
        Attribute::Float(value) => {
            FloatAttribute::new(context, mlir::Type::float64(context), *value).into()
        }
        Attribute::Bool(value) => BoolAttribute::new(context, *value).into(),
        Attribute::Text(value) => text(value),
        Attribute::Texts(values) => {
            ArrayAttribute::new(context, &values.iter().map(text).collect::<Vec<_>>()).into()
        }
    }
}

/// What a new op is made of.
#[derive(Debug)]
pub(crate) struct Draft<'v, 'c, 'm> {
    pub row: &'static Op,
    pub operands: &'v [mlir::Value<'c, 'm>],
    pub attributes: &'v Attributes,
    /// Result types where the row cannot infer them: the type of a weight.
    pub written: &'v [Type],
}

impl<'c> Draft<'_, 'c, '_> {
    /// A detached op whose results have the types of the row's shape rule, named by `location`.
    ///
    /// # Panics
    ///
    /// When the rule refuses: whoever drafts an op has seen that its operands fit.
    pub(crate) fn op(&self, context: &'c Context, location: Location<'c>) -> mlir::Operation<'c> {
        let types: Vec<Type> = self.operands.iter().map(|value| type_of(*value)).collect();
        let results = op::infer_written(self.row, &types, self.attributes, self.written);
        let results = results.unwrap_or_else(|error| {
            let name = name_of(location).unwrap_or_default();
            panic!("sailc: broken invariant `op.fits`: `{name}`: `sail.{}`: {error}", self.row.name)
        });
        let results: Vec<_> = results.iter().map(|ty| type_to_mlir(context, ty)).collect();
        let attributes: Vec<_> = (self.attributes.iter())
            .map(|(name, value)| {
                (Identifier::new(context, name), attribute_to_mlir(context, value))
            })
            .collect();
        OperationBuilder::new(&format!("sail.{}", self.row.name), location)
            .add_operands(self.operands)
            .add_results(&results)
            .add_attributes(&attributes)
            .build()
            .expect("an op without inferred types is always built")
    }
}

/// The type of a value of the dialect.
///
/// # Panics
///
/// When it is none of the dialect's; a verified module has no such value.
pub(crate) fn type_of(value: mlir::Value<'_, '_>) -> Type {
    let text = value.r#type().to_string();
    text.parse().unwrap_or_else(|error| panic!("sailc: broken invariant `module.types`: {error}"))
}

/// Ops that read `value`, with the operand they read it as, in no order.
pub(crate) fn uses<'c, 'm>(value: mlir::Value<'c, 'm>) -> Vec<(mlir::OperationRef<'c, 'm>, usize)> {
    let mut found = Vec::new();
    // SAFETY: `value` is alive for 'm, and nothing changes the module inside this function, so
    // every use and its owner stay valid while the list is walked; a null use ends it and is not
    // looked into. Owners live as long as the module they stand in.
    unsafe {
        let mut at = mlir_sys::mlirValueGetFirstUse(value.to_raw());
        while !mlir_sys::mlirOpOperandIsNull(at) {
            let owner = mlir::OperationRef::from_raw(mlir_sys::mlirOpOperandGetOwner(at));
            found.push((owner, mlir_sys::mlirOpOperandGetOperandNumber(at) as usize));
            at = mlir_sys::mlirOpOperandGetNextUse(at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
func.func @f(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>) -> tensor<?x96xbf16> {
  %layers.0.w = \"sail.weight\"() {join = \"one\", paths = [\"a//b\"]} : () -> !sail.packed<[96, 64], \"bf16\">
  %h = \"sail.rms_norm\"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  %y = \"sail.linear\"(%h, %layers.0.w) : (tensor<?x64xbf16>, !sail.packed<[96, 64], \"bf16\">) -> tensor<?x96xbf16>
  \"sail.tap\"(%y) {name = \"y\"} : (tensor<?x96xbf16>) -> ()
  return %y : tensor<?x96xbf16>
}
func.func @f.taps(%logits: tensor<?x8xbf16>) -> tensor<?x2xi32> {
  %route:2 = \"sail.route\"(%logits) {renormalize = true, top_k = 2 : i64} : (tensor<?x8xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  return %route#0 : tensor<?x2xi32>
}
";

    #[test]
    fn text_in_is_text_out() {
        let context = context();
        let module = parse(&context, TEXT, "f.mlir").unwrap();
        assert_eq!(print(&module), TEXT);
    }

    #[test]
    fn refuses_an_unknown_op_with_its_line() {
        let context = context();
        let text = "func.func @f() {\n  \"sail.softmax\"() : () -> ()\n  return\n}\n";
        let error = parse(&context, text, "f.mlir").unwrap_err();
        assert_eq!(error.place.map(|place| place[0]), Some(2));
        assert!(error.message.contains("softmax"), "{error}");
    }

    #[test]
    fn refuses_a_missing_attribute_with_its_line() {
        let context = context();
        let text = "func.func @f(%x: tensor<?x8xbf16>) {\n  %y = \"sail.columns\"(%x) {first = 0} : (tensor<?x8xbf16>) -> tensor<?x8xbf16>\n  return\n}\n";
        let error = parse(&context, text, "f.mlir").unwrap_err();
        assert_eq!(
            error.to_string(),
            "'sail.columns' op attribute \"count\" is expected but not provided\n  in `f.mlir`, line 2, column 3"
        );
    }

    #[test]
    fn refuses_a_zero_byte() {
        let context = context();
        assert!(parse(&context, "func.func\n @f(\0", "f.mlir").is_err());
    }
}
