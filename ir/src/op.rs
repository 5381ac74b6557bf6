//! What an op row is: name, operands, attributes, results, the stages it may appear in, its shape rule.
//!
//! Four readers use the rows of [`crate::ops::OPS`]: the importer (to name and type results), the
//! verifier (to compare them), the printed IRDL dialect, and the eager interpreter (to allocate).

use std::collections::BTreeMap;
use std::fmt;

use crate::shape::{Dim, Type};

/// One op of the dialect.
#[derive(Debug)]
pub struct Op {
    /// Without the dialect: `linear` for `sail.linear`.
    pub name: &'static str,
    /// One sentence for the op table.
    pub summary: &'static str,
    pub operands: &'static [&'static str],
    pub attributes: &'static [Field],
    pub results: &'static [&'static str],
    pub legal_in: Stages,
    /// The operand whose counted rows the results have.
    pub rows_of: usize,
    /// Shape rule: the types of the results.
    pub infer: fn(&Operands<'_>) -> Result<Vec<Type>, ShapeError>,
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
    pub const PLAN: Self = Self(16);

    /// This stage and every later one but `plan`, which has its own ops.
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
}

impl Operands<'_> {
    /// Type of the operand called `name`.
    ///
    /// # Panics
    ///
    /// When the row has no such operand: the rule and its row disagree.
    #[must_use]
    pub fn ty(&self, name: &str) -> &Type {
        let index = self.op.operands.iter().position(|operand| *operand == name);
        &self.types[index.unwrap_or_else(|| panic!("`{}` has no operand `{name}`", self.op.name))]
    }

    /// Sizes of a tensor or packed operand, which must have `N` dimensions.
    pub fn dims<const N: usize>(&self, name: &str) -> Result<[Dim; N], ShapeError> {
        let dims = match self.ty(name) {
            Type::Tensor { dims, .. } => dims.clone(),
            Type::Packed { dims, .. } => dims.iter().copied().map(Dim::Fixed).collect(),
            Type::Cache { .. } => {
                return Err(ShapeError::new(format!("`{name}` is a cache, not a tensor")));
            }
        };
        let rank = dims.len();
        dims.try_into()
            .map_err(|_| ShapeError::new(format!("`{name}` has {rank} dimensions, expected {N}")))
    }

    /// Like [`Self::dims`], with every size known.
    pub fn sizes<const N: usize>(&self, name: &str) -> Result<[u64; N], ShapeError> {
        let mut sizes = [0; N];
        for (size, dim) in sizes.iter_mut().zip(self.dims::<N>(name)?) {
            *size = fixed(name, dim)?;
        }
        Ok(sizes)
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
    if types.len() != op.operands.len() {
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
                    "attribute `{}` is {:?}, expected {:?}",
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
    (op.infer)(&Operands { op, types, attributes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_stages_never_include_the_plan() {
        assert!(Stages::FUSED.and_later().contains(Stages::KERNELS));
        assert!(!Stages::FUSED.and_later().contains(Stages::GRAPH));
        assert!(!Stages::GRAPH.and_later().contains(Stages::PLAN));
    }
}
