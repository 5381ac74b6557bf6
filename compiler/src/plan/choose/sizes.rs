//! Sizes and attributes of an op, as kernels want them.

use sail_ir::Scheme;
use sail_ir::op::Attribute;
use sail_ir::plan::Count;
use sail_ir::shape::{Dim, Type};
use sail_kernels::kernel::Rows;

use super::Scope;

impl Scope<'_> {
    fn dims(&self, value: usize) -> Vec<Dim> {
        match &self.view.values[value].ty {
            Type::Tensor { dims, .. } => dims.clone(),
            Type::Packed { dims, .. } => dims.iter().copied().map(Dim::Fixed).collect(),
            Type::Cache { kv_heads, head_dim } => {
                vec![Dim::Fixed(*kv_heads), Dim::Fixed(*head_dim)]
            }
        }
    }

    /// Known sizes of operand `index`, the counted one left out.
    pub fn operand(&self, index: usize) -> Vec<u32> {
        fixed(&self.dims(self.op.operands[index]))
    }

    /// The scheme of the packed weight that the op reads.
    pub fn scheme(&self) -> Scheme {
        let packed = self.op.operands.iter().find_map(|value| match &self.view.values[*value].ty {
            Type::Packed { scheme, .. } => Some(*scheme),
            _ => None,
        });
        packed.unwrap_or_else(|| panic!("broken invariant `choose.packed`: {}", self.op.op.name))
    }

    /// Is operand `index` stored in panels?
    pub fn is_packed(&self, index: usize) -> bool {
        matches!(self.view.values[self.op.operands[index]].ty, Type::Packed { .. })
    }

    /// Known sizes of result `index`.
    pub fn result(&self, index: usize) -> Vec<u32> {
        fixed(&self.dims(self.op.results[index]))
    }

    /// Rows of operand `index`: all dimensions but the last.
    pub fn rows(&self, index: usize) -> Rows {
        let value = self.op.operands[index];
        let count = self.counts[value].unwrap_or(Count::Tokens);
        let sizes = fixed(&self.dims(value));
        let per = sizes[..sizes.len().saturating_sub(1)].iter().product::<u32>();
        Rows { count, per: per.max(1) }
    }

    /// Counted rows of operand `index` alone: images, whatever a tile holds.
    pub fn counted(&self, index: usize) -> Rows {
        let count = self.counts[self.op.operands[index]].unwrap_or(Count::Tokens);
        Rows { count, per: 1 }
    }

    /// The last size of operand `index`.
    pub fn width(&self, index: usize) -> u32 {
        self.operand(index).last().copied().unwrap_or(1)
    }

    /// The last size of result `index`.
    pub fn result_width(&self, index: usize) -> u32 {
        self.result(index).last().copied().unwrap_or(1)
    }

    /// An integer attribute as a size.
    pub fn size(&self, name: &str) -> u32 {
        match self.op.attributes.get(name) {
            Some(Attribute::Int(value)) => narrow(*value),
            other => panic!("broken invariant `choose.size`: `{name}` is {other:?}"),
        }
    }

    pub fn float(&self, name: &str) -> f64 {
        match self.op.attributes.get(name) {
            Some(Attribute::Float(value)) => *value,
            other => panic!("broken invariant `choose.float`: `{name}` is {other:?}"),
        }
    }

    pub fn flag(&self, name: &str) -> bool {
        matches!(self.op.attributes.get(name), Some(Attribute::Bool(true)))
    }

    pub fn text(&self, name: &str) -> &str {
        match self.op.attributes.get(name) {
            Some(Attribute::Text(value)) => value,
            other => panic!("broken invariant `choose.text`: `{name}` is {other:?}"),
        }
    }

    pub fn texts(&self, name: &str) -> &[String] {
        match self.op.attributes.get(name) {
            Some(Attribute::Texts(values)) => values,
            other => panic!("broken invariant `choose.texts`: `{name}` is {other:?}"),
        }
    }
}

fn fixed(dims: &[Dim]) -> Vec<u32> {
    dims.iter()
        .filter_map(|dim| match dim {
            Dim::Fixed(size) => Some(narrow(*size)),
            Dim::Counted => None,
        })
        .collect()
}

fn narrow<T: TryInto<u32> + Copy + std::fmt::Display>(size: T) -> u32 {
    size.try_into().unwrap_or_else(|_| panic!("broken invariant `choose.narrow`: {size}"))
}
