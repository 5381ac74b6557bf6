//! What an op row is: name, operands, attributes, results, the stages it may appear in, its shape rule.
//!
//! Four readers use the rows of [`crate::ops::OPS`]: the importer (to name and type results), the
//! verifier (to compare them), the printed IRDL dialect, and the eager interpreter (to allocate).

use std::collections::BTreeMap;
use std::fmt;

use crate::dtype::DType;
use crate::shape::{Dim, Type};

/// One op of the dialect.
#[derive(Debug)]
pub struct Op {
    /// Without the dialect: `linear` for `sail.linear`.
    pub name: &'static str,
    /// One sentence for the op table.
    pub summary: &'static str,
    pub operands: &'static [&'static str],
    /// Operands that `lower` appends: absent before the `kernels` stage, present in it.
    pub lowered: &'static [&'static str],
    /// Which operands are weights of products: tensors at first, packed from stage `packed` on.
    pub packed: &'static [&'static str],
    /// Operands that may be packed from stage `packed` on, in a scheme that keeps the values, since
    /// the op only moves them.
    pub moved: &'static [&'static str],
    pub attributes: &'static [Field],
    pub results: &'static [&'static str],
    pub legal_in: Stages,
    /// The operand whose counted rows the results have.
    pub rows_of: usize,
    /// Shape rule: the types of the results.
    pub infer: fn(&Operands<'_>) -> Result<Vec<Type>, ShapeError>,
}

impl Op {
    /// What most rows have in common: one result `y` with the rows of the first operand, legal in
    /// every stage.
    pub const ROW: Self = Self {
        name: "",
        summary: "",
        operands: &[],
        lowered: &[],
        packed: &[],
        moved: &[],
        attributes: &[],
        results: &["y"],
        legal_in: Stages::GRAPH.and_later(),
        rows_of: 0,
        infer: |_| Err(ShapeError::new("this row has no shape rule")),
    };

    /// Name of operand `index`, those that `lower` appends included.
    #[must_use]
    pub fn operand_name(&self, index: usize) -> Option<&'static str> {
        self.operands.iter().chain(self.lowered).nth(index).copied()
    }
}

/// An attribute that an op must have, or may have.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
}

impl Field {
    #[must_use]
    pub const fn required(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: true }
    }

    #[must_use]
    pub const fn optional(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: false }
    }
}

/// What an attribute holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Int,
    Float,
    Bool,
    Text,
    Texts,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int => "an integer",
            Self::Float => "a float",
            Self::Bool => "`true` or `false`",
            Self::Text => "a text",
            Self::Texts => "a list of texts",
        })
    }
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
}

impl Attribute {
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Int(_) => Kind::Int,
            Self::Float(_) => Kind::Float,
            Self::Bool(_) => Kind::Bool,
            Self::Text(_) => Kind::Text,
            Self::Texts(_) => Kind::Texts,
        }
    }
}

/// Attributes by name, in the order MLIR prints them (sorted).
pub type Attributes = BTreeMap<&'static str, Attribute>;

/// The stages in which an op is legal, as a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stages(u8);

impl Stages {
    pub const GRAPH: Self = Self(1);
    pub const FUSED: Self = Self(2);
    pub const PACKED: Self = Self(4);
    pub const KERNELS: Self = Self(8);
    /// Memory and steps; none of the ops that have values.
    pub const PLAN: Self = Self(16);

    /// This stage and every later one but the plan, which has ops of its own.
    #[must_use]
    pub const fn and_later(self) -> Self {
        let from_here_up = !(self.0 - 1);
        Self(from_here_up & 0b1111)
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn contains(self, stage: Self) -> bool {
        self.0 & stage.0 == stage.0
    }
}

/// What a shape rule may look at: operand types and attributes, by the names of the row.
#[derive(Debug)]
pub struct Operands<'a> {
    pub op: &'a Op,
    pub types: &'a [Type],
    pub attributes: &'a Attributes,
    /// Result types as written on the op; empty where results are to be inferred. Only the rule
    /// of `weight` looks at them: nothing else in the text says a weight's shape.
    pub written: &'a [Type],
}

impl Operands<'_> {
    /// Type of the operand called `name`.
    ///
    /// # Panics
    ///
    /// When the row has no such operand: the rule and its row disagree.
    #[must_use]
    pub fn ty(&self, name: &str) -> &Type {
        let mut names = self.op.operands.iter().chain(self.op.lowered);
        let index = names.position(|operand| *operand == name);
        &self.types[index.unwrap_or_else(|| panic!("`{}` has no operand `{name}`", self.op.name))]
    }

    /// Does the op have the operand `name`, one of those that `lower` appends?
    #[must_use]
    pub fn is_lowered(&self) -> bool {
        self.types.len() > self.op.operands.len()
    }

    /// Sizes of a bf16 activation of any rank from one up, the counted one included.
    pub fn activation(&self, name: &str) -> Result<Vec<Dim>, ShapeError> {
        self.tensor(name, DType::Bf16)
    }

    /// Sizes of a bf16 activation, which must have `N` dimensions.
    pub fn dims<const N: usize>(&self, name: &str) -> Result<[Dim; N], ShapeError> {
        ranked(name, self.activation(name)?)
    }

    /// Last size of a bf16 activation, and the sizes before it.
    pub fn rows_and_width(&self, name: &str) -> Result<(Vec<Dim>, u64), ShapeError> {
        let mut dims = self.activation(name)?;
        let width = dims.pop().ok_or_else(|| ShapeError::new(format!("`{name}` has no size")))?;
        Ok((dims, fixed(name, width)?))
    }

    /// Sizes of an i32 tensor, which must have `N` dimensions.
    pub fn indices<const N: usize>(&self, name: &str) -> Result<[Dim; N], ShapeError> {
        ranked(name, self.tensor(name, DType::I32)?)
    }

    /// Sizes of the weight of a product, packed or not, which must have `N` dimensions.
    pub fn weight<const N: usize>(&self, name: &str) -> Result<[u64; N], ShapeError> {
        ranked(name, self.weight_dims(name)?)
    }

    /// The weight of a product as `[rows, rest]`, where `rest` is the product of further sizes.
    pub fn weight_matrix(&self, name: &str) -> Result<[u64; 2], ShapeError> {
        match self.weight_dims(name)?.as_slice() {
            [rows, rest @ ..] if !rest.is_empty() => Ok([*rows, rest.iter().product()]),
            _ => Err(ShapeError::new(format!("`{name}` has one dimension, expected two or more"))),
        }
    }

    fn weight_dims(&self, name: &str) -> Result<Vec<u64>, ShapeError> {
        match self.ty(name) {
            Type::Packed { dims, .. } => Ok(dims.clone()),
            _ => self.activation(name)?.into_iter().map(|dim| fixed(name, dim)).collect(),
        }
    }

    /// Length of a bf16 vector: the weight of a norm, a bias.
    pub fn vector(&self, name: &str) -> Result<u64, ShapeError> {
        let [length] = self.dims(name)?;
        fixed(name, length)
    }

    fn tensor(&self, name: &str, expected: DType) -> Result<Vec<Dim>, ShapeError> {
        match self.ty(name) {
            Type::Tensor { dims, dtype } if *dtype == expected => Ok(dims.clone()),
            other => Err(ShapeError::new(format!(
                "`{name}` is `{other}`, expected a tensor of {expected}"
            ))),
        }
    }

    /// Kv heads and values per head of a cache operand.
    pub fn cache(&self, name: &str) -> Result<(u64, u64), ShapeError> {
        match self.ty(name) {
            Type::Cache { kv_heads, head_dim } => Ok((*kv_heads, *head_dim)),
            other => Err(ShapeError::new(format!("`{name}` is `{other}`, expected a cache"))),
        }
    }

    /// An integer attribute as a size.
    pub fn size(&self, name: &str) -> Result<u64, ShapeError> {
        match self.attributes.get(name) {
            Some(Attribute::Int(value)) => u64::try_from(*value)
                .map_err(|_| ShapeError::new(format!("`{name}` is {value}, expected a size"))),
            _ => Err(ShapeError::new(format!("attribute `{name}` is expected"))),
        }
    }

    /// The list of texts called `name`, empty when absent.
    #[must_use]
    pub fn texts(&self, name: &str) -> &[String] {
        match self.attributes.get(name) {
            Some(Attribute::Texts(values)) => values,
            _ => &[],
        }
    }

    /// A text attribute.
    pub fn text(&self, name: &str) -> Result<&str, ShapeError> {
        match self.attributes.get(name) {
            Some(Attribute::Text(value)) => Ok(value),
            _ => Err(ShapeError::new(format!("attribute `{name}` is expected"))),
        }
    }
}

/// The size of `dim`, which must be known when compiling.
pub fn fixed(name: &str, dim: Dim) -> Result<u64, ShapeError> {
    match dim {
        Dim::Fixed(size) => Ok(size),
        Dim::Counted => {
            Err(ShapeError::new(format!("`{name}` has a counted size where a known one is needed")))
        }
    }
}

fn ranked<T, const N: usize>(name: &str, dims: Vec<T>) -> Result<[T; N], ShapeError> {
    let rank = dims.len();
    dims.try_into()
        .map_err(|_| ShapeError::new(format!("`{name}` has {rank} dimensions, expected {N}")))
}

/// Refuses two sizes that must be equal and are not; `#` in the sentences stands for the size.
pub fn equal(what: &str, found: u64, other: &str, expected: u64) -> Result<(), ShapeError> {
    if found == expected {
        return Ok(());
    }
    let what = what.replace('#', &found.to_string());
    Err(ShapeError::new(format!("{what}, {}", other.replace('#', &expected.to_string()))))
}

/// Refuses two operands whose types must be equal and are not.
pub fn same_type(operands: &Operands<'_>, one: &str, other: &str) -> Result<(), ShapeError> {
    let (a, b) = (operands.ty(one), operands.ty(other));
    if a == b {
        return Ok(());
    }
    Err(ShapeError::new(format!("`{one}` is `{a}`, `{other}` is `{b}`")))
}

/// Why a shape rule refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeError {
    pub message: String,
    pub hint: Option<String>,
}

impl ShapeError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ShapeError {}

/// Check attributes against the row, then apply the shape rule.
///
/// Refuses a missing, unknown or wrongly typed attribute, a wrong number of operands, and
/// whatever the rule refuses.
pub fn infer(op: &Op, types: &[Type], attributes: &Attributes) -> Result<Vec<Type>, ShapeError> {
    infer_written(op, types, attributes, &[])
}

/// Like [`infer`], for an op whose result types are already written: the verifier's reading.
pub fn infer_written(
    op: &Op,
    types: &[Type],
    attributes: &Attributes,
    written: &[Type],
) -> Result<Vec<Type>, ShapeError> {
    let least = op.operands.len();
    if types.len() != least && types.len() != least + op.lowered.len() {
        return Err(ShapeError::new(format!(
            "`sail.{}` takes {} operands, found {}",
            op.name,
            op.operands.len(),
            types.len()
        )));
    }
    for field in op.attributes {
        match attributes.get(field.name) {
            Some(value) if value.kind() != field.kind => {
                return Err(ShapeError::new(format!(
                    "attribute `{}` is {}, expected {}",
                    field.name,
                    value.kind(),
                    field.kind
                )));
            }
            None if field.required => {
                return Err(ShapeError::new(format!("attribute `{}` is expected", field.name)));
            }
            _ => {}
        }
    }
    if let Some(unknown) =
        attributes.keys().find(|name| op.attributes.iter().all(|field| field.name != **name))
    {
        return Err(ShapeError::new(format!("`sail.{}` has no attribute `{unknown}`", op.name)));
    }
    (op.infer)(&Operands { op, types, attributes, written })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_stages_include_this_one_and_none_before() {
        assert!(Stages::FUSED.and_later().contains(Stages::KERNELS));
        assert!(Stages::FUSED.and_later().contains(Stages::FUSED));
        assert!(!Stages::FUSED.and_later().contains(Stages::GRAPH));
    }
}
