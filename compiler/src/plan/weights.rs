//! The weights and tables an artifact stores: each once, whoever reads it.

use std::collections::HashMap;

use sail_ir::dtype::DType;
use sail_ir::id::{Id, IdVec, WeightId};
use sail_ir::plan::{ALIGNMENT, Weight};
use sail_ir::scheme::Scheme;
use sail_kernels::packing::{Arrangement, Join, Panels};

/// What the bytes of one stored weight are made from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Product weights in panels.
    Packed(Packed),
    /// Tensors of the checkpoint as they are, row-major bf16, one after another.
    Plain { paths: Vec<String>, dims: Vec<u64> },
    /// Row `p`: cosines, then sines, of `p · theta^(-2i/e)` for `i < e/2`, bf16.
    RopeTable { positions: u64, head_dim: u64, theta: f64 },
    /// The experts of a layer as their weights stand in the file, i32.
    Order(Vec<u32>),
}

/// A product weight: which tensors make it up, and how they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    pub paths: Vec<String>,
    pub join: Join,
    pub scheme: Scheme,
    /// Outputs: of one part of a stack, of all paths together otherwise.
    pub n: u64,
    pub k: u64,
    pub arrangement: Arrangement,
    /// Parts of a stack in the order in which they are stored; empty where that is their own.
    pub order: Vec<u32>,
}

/// Sizes and element type for the plan's buffer row.
#[derive(Debug)]
pub struct Layout {
    pub dims: Vec<u64>,
    pub dtype: DType,
}

impl Packed {
    /// Parts of a stack; 1 of an ordinary weight.
    #[must_use]
    pub fn parts(&self) -> u64 {
        match self.join {
            Join::Stack => self.paths.len() as u64,
            Join::StackInterleave => self.paths.len() as u64 / 2,
            Join::One | Join::Concat | Join::Interleave => 1,
        }
    }

    /// The panels, as far as sizes go: only the tensors know how `Concat` splits its rows.
    #[must_use]
    pub fn panels(&self) -> Panels {
        let rows = match self.join {
            Join::One | Join::Concat => vec![self.n],
            Join::Stack => vec![self.n; self.paths.len()],
            Join::Interleave | Join::StackInterleave => vec![self.n / 2; self.paths.len()],
        };
        self.panels_of(&rows)
    }

    /// The panels of tensors with these rows.
    #[must_use]
    pub fn panels_of(&self, rows: &[u64]) -> Panels {
        Panels::new(self.join, rows, self.arrangement.width())
            .unwrap_or_else(|error| panic!("broken invariant `weights.join`: {error}"))
    }

    /// The panel of [`panels`](Self::panels) that is stored as number `stored`.
    #[must_use]
    pub fn panel(&self, stored: u64) -> u64 {
        if self.order.is_empty() {
            return stored;
        }
        let per_part = self.panels().count() / self.parts();
        let place = usize::try_from(stored / per_part).expect("as many parts as paths");
        u64::from(self.order[place]) * per_part + stored % per_part
    }

    /// Bytes of one panel, or of the codes of one run of rows.
    #[must_use]
    pub fn panel_bytes(&self) -> u64 {
        let width = u64::from(self.arrangement.width());
        match self.arrangement {
            Arrangement::Panels { .. } => self.scheme.packed_bytes(width, self.k, width),
            Arrangement::Rows => width * self.scheme.row_bytes(self.k),
        }
    }

    /// Bytes that a panel adds to what stands behind all of them; none where all is in the panels.
    #[must_use]
    pub fn bytes_behind(&self) -> u64 {
        match self.arrangement {
            Arrangement::Panels { .. } => 0,
            Arrangement::Rows => {
                u64::from(self.arrangement.width()) * self.scheme.bytes_behind(self.k)
            }
        }
    }
}

impl Source {
    /// Bytes in the weights section.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Packed(packed) => {
                packed.panels().count() * (packed.panel_bytes() + packed.bytes_behind())
            }
            Self::Plain { dims, .. } => dims.iter().product::<u64>() * DType::Bf16.bytes(),
            Self::RopeTable { positions, head_dim, .. } => {
                positions * head_dim * DType::Bf16.bytes()
            }
            Self::Order(order) => order.len() as u64 * DType::I32.bytes(),
        }
    }

    /// Sizes as the kernels see them.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let (dims, dtype) = match self {
            Self::Packed(packed) => match packed.join {
                Join::Stack | Join::StackInterleave => {
                    (vec![packed.parts(), packed.n, packed.k], DType::I8)
                }
                _ => (vec![packed.n, packed.k], DType::I8),
            },
            Self::Plain { dims, .. } => (dims.clone(), DType::Bf16),
            Self::RopeTable { positions, head_dim, .. } => {
                (vec![*positions, *head_dim], DType::Bf16)
            }
            Self::Order(order) => (vec![order.len() as u64], DType::I32),
        };
        Layout { dims, dtype }
    }

    /// The layout in words, for `inspect`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Packed(packed) => {
                let stack = match packed.parts() {
                    1 => String::new(),
                    parts => format!("{parts} x "),
                };
                let join = match packed.join {
                    Join::Interleave | Join::StackInterleave => {
                        format!(", interleaved by {}", packed.arrangement.width() / 2)
                    }
                    _ => String::new(),
                };
                let Packed { n, k, scheme, arrangement, order, .. } = packed;
                let arranged = match arrangement {
                    Arrangement::Panels { width } => format!("panels of {width}"),
                    Arrangement::Rows => format!("rows of {} bytes", scheme.row_bytes(*k)),
                };
                let order = if order.is_empty() { "" } else { ", most used first" };
                format!("{stack}[{n}, {k}] {scheme} {arranged}{join}{order}")
            }
            Self::Plain { dims, .. } => format!("{dims:?} bf16 rows"),
            Self::RopeTable { positions, head_dim, theta } => {
                format!("[{positions}, {head_dim}] bf16 cosines and sines, theta {theta}")
            }
            Self::Order(order) => format!("[{}] i32 experts as they are stored", order.len()),
        }
    }

    fn paths(&self) -> &[String] {
        match self {
            Self::Packed(packed) => &packed.paths,
            Self::Plain { paths, .. } => paths,
            Self::RopeTable { .. } | Self::Order(_) => &[],
        }
    }

    /// Two sources with one key are the same bytes.
    fn key(&self) -> String {
        let order = match self {
            Self::Packed(Packed { order, .. }) | Self::Order(order) => order.as_slice(),
            Self::Plain { .. } | Self::RopeTable { .. } => &[],
        };
        format!("{} {} {order:?}", self.describe(), self.paths().join(" "))
    }
}

/// Collects weights in the order of first use.
#[derive(Debug, Default)]
pub struct WeightTable {
    rows: IdVec<WeightId, Weight>,
    sources: Vec<Source>,
    known: HashMap<String, WeightId>,
    end: u64,
}

impl WeightTable {
    /// The row of `source` and its bytes.
    pub fn add(&mut self, source: Source) -> (WeightId, u64) {
        let bytes = source.bytes();
        let key = source.key();
        if let Some(id) = self.known.get(&key) {
            return (*id, bytes);
        }
        let id = WeightId::new(self.rows.len());
        self.rows.push(Weight {
            paths: source.paths().to_vec(),
            shard: [0, 1],
            layout: source.describe(),
            offset: self.end,
            bytes,
        });
        self.end = (self.end + bytes).next_multiple_of(ALIGNMENT);
        self.sources.push(source);
        self.known.insert(key, id);
        (id, bytes)
    }

    /// The table of the plan, and where each row's bytes come from.
    #[must_use]
    pub fn finish(self) -> (IdVec<WeightId, Weight>, Vec<Source>) {
        (self.rows, self.sources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(join: Join, n: u64) -> Source {
        Source::Packed(Packed {
            paths: vec!["a".to_owned(), "b".to_owned()],
            join,
            scheme: Scheme::Bf16,
            n,
            k: 7,
            arrangement: Arrangement::Panels { width: 32 },
            order: Vec::new(),
        })
    }

    #[test]
    fn parts_of_a_stack_are_stored_in_their_order_whole() {
        let mut stack = Packed {
            paths: ["a", "b", "c"].map(str::to_owned).to_vec(),
            join: Join::Stack,
            scheme: Scheme::Bf16,
            n: 40,
            k: 7,
            arrangement: Arrangement::Panels { width: 32 },
            order: Vec::new(),
        };
        let panels = |stack: &Packed| (0..6).map(|at| stack.panel(at)).collect::<Vec<_>>();
        assert_eq!(panels(&stack), [0, 1, 2, 3, 4, 5]);
        stack.order = vec![2, 0, 1];
        assert_eq!(panels(&stack), [4, 5, 0, 1, 2, 3]);
    }

    #[test]
    fn a_weight_read_twice_is_stored_once() {
        let mut table = WeightTable::default();
        let first = table.add(packed(Join::Concat, 40));
        assert_eq!(first, table.add(packed(Join::Concat, 40)));
        let other = table.add(packed(Join::Interleave, 40));
        assert_ne!(first.0, other.0);
        let (rows, sources) = table.finish();
        assert_eq!((rows.len(), sources.len()), (2, 2));
        assert_eq!(rows[other.0].offset, first.1);
    }

    #[test]
    fn rows_are_whole_runs_and_what_they_need_stands_behind() {
        let Source::Packed(panels) = packed(Join::Concat, 40) else { unreachable!() };
        let rows = |scheme| {
            Source::Packed(Packed { arrangement: Arrangement::Rows, scheme, ..panels.clone() })
        };
        assert_eq!(rows(Scheme::Bf16).bytes(), 48 * 128);
        assert_eq!(rows(Scheme::Int8).bytes(), 48 * (128 + 4));
        assert_eq!(rows(Scheme::Int8).describe(), "[40, 7] int8 rows of 128 bytes");
    }

    #[test]
    fn panels_are_whole_and_an_odd_inner_size_is_padded_to_a_pair() {
        assert_eq!(packed(Join::Concat, 40).bytes(), 2 * 32 * 8 * 2);
        assert_eq!(packed(Join::Interleave, 2 * 17).bytes(), 2 * 32 * 8 * 2);
    }
}
