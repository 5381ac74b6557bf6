//! Types of values: tensors with at most one counted dimension, packed weights, caches.
//!
//! Every type prints as MLIR spells it and is read back from that text, so the importer, the
//! verifier and the file tests share one form:
//!
//! ```text
//! tensor<?x2048xbf16>            tokens (or outputs) × width
//! tensor<?x1024x1536xbf16>       images × patches × width
//! !sail.packed<[6144, 2048], "bf16">
//! !sail.kv_cache<[8, 128]>          kv heads, values per head
//! ```

use std::fmt;
use std::str::FromStr;

use crate::dtype::DType;
use crate::scheme::Scheme;

/// One dimension. Only the first of a tensor may be counted at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Known when compiling.
    Fixed(u64),
    /// Rows of one call: tokens, images or outputs; prints `?`.
    Counted,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Counted => f.write_str("?"),
        }
    }
}

/// The type of a value of the dialect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Type {
    Tensor {
        dims: Vec<Dim>,
        dtype: DType,
    },
    /// A weight in the bit layout of `scheme`; `dims` are those of the checkpoint's tensor.
    Packed {
        dims: Vec<u64>,
        scheme: Scheme,
    },
    /// Keys and values of one layer, of all slots.
    Cache {
        kv_heads: u64,
        head_dim: u64,
    },
}

impl Type {
    /// `[?, rest…]` of `dtype`: rows counted at run time.
    #[must_use]
    pub fn rows(rest: &[u64], dtype: DType) -> Self {
        let dims =
            std::iter::once(Dim::Counted).chain(rest.iter().copied().map(Dim::Fixed)).collect();
        Self::Tensor { dims, dtype }
    }

    /// A bf16 activation: `rows` (any number of sizes, perhaps counted) of `width` values.
    #[must_use]
    pub fn of_width(mut rows: Vec<Dim>, width: u64) -> Self {
        rows.push(Dim::Fixed(width));
        Self::Tensor { dims: rows, dtype: DType::Bf16 }
    }

    /// A tensor whose every size is known.
    #[must_use]
    pub fn fixed(sizes: &[u64], dtype: DType) -> Self {
        Self::Tensor { dims: sizes.iter().copied().map(Dim::Fixed).collect(), dtype }
    }

    /// Elements of one counted row, or of the whole tensor when nothing is counted.
    ///
    /// `None` for a cache, or when the product does not fit `u64`.
    #[must_use]
    pub fn elements_per_row(&self) -> Option<u64> {
        match self {
            Self::Tensor { dims, .. } => product(dims.iter().filter_map(|dim| match dim {
                Dim::Fixed(size) => Some(*size),
                Dim::Counted => None,
            })),
            Self::Packed { dims, .. } => product(dims.iter().copied()),
            Self::Cache { .. } => None,
        }
    }

    /// Does the first dimension count rows of the call?
    #[must_use]
    pub fn is_counted(&self) -> bool {
        matches!(self, Self::Tensor { dims, .. } if dims.first() == Some(&Dim::Counted))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor { dims, dtype } => {
                f.write_str("tensor<")?;
                for dim in dims {
                    write!(f, "{dim}x")?;
                }
                write!(f, "{dtype}>")
            }
            Self::Packed { dims, scheme } => {
                let dims: Vec<String> = dims.iter().map(u64::to_string).collect();
                write!(f, "!sail.packed<[{}], \"{scheme}\">", dims.join(", "))
            }
            Self::Cache { kv_heads, head_dim } => {
                write!(f, "!sail.kv_cache<[{kv_heads}, {head_dim}]>")
            }
        }
    }
}

impl FromStr for Type {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a type of the dialect");
        let inside = |prefix: &str| text.strip_prefix(prefix)?.strip_suffix('>');
        if let Some(body) = inside("tensor<") {
            return tensor(body).ok_or_else(bad);
        }
        if let Some(body) = inside("!sail.packed<") {
            let (dims, scheme) =
                body.strip_prefix('[').and_then(|rest| rest.split_once("], ")).ok_or_else(bad)?;
            let dims = dims
                .split(", ")
                .map(|size| number(size).ok_or_else(bad))
                .collect::<Result<_, _>>()?;
            return Ok(Self::Packed { dims, scheme: scheme.trim_matches('"').parse()? });
        }
        if let Some(body) = inside("!sail.kv_cache<[") {
            let body = body.strip_suffix(']').ok_or_else(bad)?;
            let (kv_heads, head_dim) = body.split_once(", ").ok_or_else(bad)?;
            return Ok(Self::Cache {
                kv_heads: number(kv_heads).ok_or_else(bad)?,
                head_dim: number(head_dim).ok_or_else(bad)?,
            });
        }
        Err(bad())
    }
}

fn product(mut sizes: impl Iterator<Item = u64>) -> Option<u64> {
    sizes.try_fold(1_u64, |product, size| product.checked_mul(size))
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn tensor(body: &str) -> Option<Type> {
    let mut parts: Vec<&str> = body.split('x').collect();
    let dtype = parts.pop()?.parse().ok()?;
    let mut dims = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        dims.push(match part {
            "?" if index == 0 => Dim::Counted,
            _ => Dim::Fixed(part.parse().ok()?),
        });
    }
    Some(Type::Tensor { dims, dtype })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_back_from_its_own_text() {
        for text in [
            "tensor<?x2048xbf16>",
            "tensor<?x1024x1536xbf16>",
            "tensor<6144xf32>",
            "tensor<bf16>",
            "!sail.packed<[6144, 2048], \"bf16\">",
            "!sail.kv_cache<[8, 128]>",
        ] {
            let ty: Type = text.parse().expect(text);
            assert_eq!(ty.to_string(), text);
        }
    }

    #[test]
    fn refuses_a_count_that_is_not_first_and_unknown_words() {
        for text in [
            "tensor<4x?xbf16>",
            "tensor<4xf17>",
            "!sail.pack<[1], \"bf16\">",
            "memref<4xi8>",
            "!sail.kv_cache<8, 128>",
        ] {
            assert!(text.parse::<Type>().is_err(), "{text}");
        }
    }
}
