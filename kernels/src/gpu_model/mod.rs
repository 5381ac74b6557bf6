//! Which shape a kernel of a CUDA target has, and what it is expected to take: bytes, operations,
//! occupancy and waves. The only place where such a shape is chosen by rule.
//!
//! | way | of | what is chosen | by |
//! | --- | --- | --- | --- |
//! | `rows` | products of few rows | warps, runs, blocks of a multiprocessor, what is kept | [`FewRows`] |
//! | `tile` | products of many | the tile | [`Tiled`] |
//! | `wgmma` | the same on `sm_90` | columns, stages | [`ByWarpgroups`] |
//! | `mixed` | the same where the weight has fewer bits than the rows | columns, rows | [`ByMixed`] |
//! | `rows` | few rows of an expert | as of products | [`RowsOfExperts`] |
//! | `wgmma` | many rows of experts on `sm_90` | columns, stages | [`WarpgroupsOfExperts`] |
//! | `mixed` | the same where the weights have fewer bits than the rows | columns, rows | [`MixedOfExperts`] |
//! | `tile` | many rows of experts elsewhere | the tile | [`TilesOfExperts`] |
//! | `alone` | attention of few rows | blocks of a row and head, their warps | [`Alone`] |
//! | `wgmma` | attention of many on `sm_90` | blocks that share steps | [`SharedSteps`] |
//!
//! Three times are reckoned with, which pass beside each other: bytes from memory, bytes from the
//! second-level cache to the multiprocessors, products; then what a kernel's beginning and end take. What
//! a chip does in a second is in [`CHIPS`]. `tests/numerics/expected.rs` holds the sum against what an
//! H200 took (`benches/results/gpu-kernels.jsonl`).

pub mod attention;
pub mod experts;
mod experts_ways;
mod mixed;
pub mod product;
pub(crate) mod router;
mod tiles;

use std::fmt;

use sail_ir::plan::Cost;
use sail_ir::target::Target;

use crate::config::{Config, Parameter};
use crate::cost::{Estimate, MachineLimits};

pub use attention::{Alone, SharedSteps};
pub use experts_ways::{MixedOfExperts, RowsOfExperts, TilesOfExperts, WarpgroupsOfExperts};
pub use mixed::ByMixed;
pub use product::{ByWarpgroups, FewRows, Tiled};

/// What a chip is reckoned with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chip {
    target: &'static str,
    /// Multiprocessors.
    pub processors: u32,
    /// Cycles of a multiprocessor in a second of work.
    pub cycles: f64,
    /// Bytes from memory in a second.
    pub memory: f64,
    /// Bytes from the second-level cache to one multiprocessor in a cycle.
    pub cache: f64,
    /// Operations in bf16 of one multiprocessor's matrix units in a cycle; in bytes twice as many.
    pub products: f64,
    /// Seconds of a kernel's beginning and end, between two others of a graph.
    pub ends: f64,
    /// Seconds of blocks that meet: parts written, counted, read by the last one.
    pub meeting: f64,
}

/// `sm_90` as an H200 was measured (2026-11-26, the root README and `benches/results`): a copy moved
/// 4,241 GB/s, products reached 0.7 of the 4,096 operations a cycle of the data sheet, 32 to 43 bytes a
/// cycle came to a multiprocessor. `sm_80` is an A100's data sheet by the same shares: nobody has measured it.
const CHIPS: [Chip; 2] = [
    Chip {
        target: "sm_80",
        processors: 108,
        cycles: 1.41e9,
        memory: 1.8e12,
        cache: 38.0,
        products: 0.7 * 2048.0,
        ends: 4e-6,
        meeting: 2e-6,
    },
    Chip {
        target: "sm_90",
        processors: 132,
        cycles: 1.755e9,
        memory: 4.241e12,
        cache: 38.0,
        products: 0.7 * 4096.0,
        ends: 4e-6,
        meeting: 2e-6,
    },
];

/// Position at which rows of attention are taken to be, where nothing else is known.
pub const POSITION: u64 = 2047;

impl Chip {
    /// What the CUDA `target` is reckoned with; `None` of an x86-64 target.
    #[must_use]
    pub fn of(target: &Target) -> Option<Self> {
        let row = CHIPS.into_iter().find(|chip| chip.target == target.name)?;
        let processors = target.gpu()?.processors;
        assert_eq!(row.processors, processors, "broken invariant `chip.processors`: {target}");
        Some(row)
    }

    fn read(&self, bytes: u64) -> f64 {
        bytes as f64 / self.memory
    }

    /// `bytes` from the cache to the multiprocessor that has most to read.
    fn fed(&self, bytes: u64) -> f64 {
        bytes as f64 / (self.cache * self.cycles)
    }

    /// `operations` of the multiprocessor that has most to do.
    fn multiplied(&self, operations: u64, of_bytes: bool) -> f64 {
        let each = if of_bytes { 2.0 } else { 1.0 } * self.products;
        operations as f64 / (each * self.cycles)
    }
}

/// A way to carry out a problem, for calls of a class, and what can be chosen about it.
pub trait Way: Send + Sync {
    /// As in the table of the module.
    fn name(&self) -> &'static str;

    /// Most rows of the calls it is for.
    fn most_rows(&self) -> u32;

    /// What the rule chooses.
    fn config(&self) -> Config;

    /// What can be chosen instead, in the order of the config.
    fn space(&self) -> Vec<Parameter>;

    /// Does a combination of these values fit the target?
    fn fits(&self, config: &Config) -> bool;

    /// What it takes with `config` for so many rows.
    fn expected(&self, config: &Config, rows: u32) -> Expected;

    /// Why the rule chooses as it does, as half a sentence.
    fn reason(&self) -> String;
}

/// What a kernel is expected to take for some rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    pub rows: u32,
    /// Thread blocks with work, and how often all multiprocessors take some; 0 where nobody reckons so.
    pub blocks: u32,
    pub waves: u32,
    /// Seconds of bytes from memory, of bytes from the cache, of products, of beginning and end.
    pub parts: [f64; 4],
}

impl Expected {
    /// The longest of what passes beside each other, and the ends.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        let [memory, cache, products, ends] = self.parts;
        memory.max(cache).max(products) + ends
    }

    /// What a kernel without a choice cannot do without: each input once, each output once.
    #[must_use]
    pub fn least(cost: &Cost, rows: u64, chip: &Chip) -> Self {
        let of_all = f64::from(chip.processors) * chip.products * chip.cycles;
        let limits = MachineLimits {
            bytes_per_second: chip.memory,
            operations_per_second: of_all,
            byte_operations_per_second: 2.0 * of_all,
        };
        let attends = cost.position_bytes > 0 || cost.position_operations > 0;
        let positions = if attends { POSITION + 1 } else { 0 };
        let estimate = Estimate::of(cost, rows, positions);
        let memory = Estimate { operations: 0, byte_operations: 0, ..estimate }.floor(&limits);
        let products = Estimate { bytes: 0, ..estimate }.floor(&limits);
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        Self { rows, blocks: 0, waves: 0, parts: [memory, 0.0, products, chip.ends] }
    }

    /// The same where blocks meet.
    #[must_use]
    pub fn with_meeting(mut self, chip: &Chip) -> Self {
        self.parts[3] += chip.meeting;
        self
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, blocks, waves, parts } = self;
        let [memory, cache, products, ends] = parts.map(|seconds| 1e6 * seconds);
        let all = 1e6 * self.seconds();
        let s = |count: u32| if count == 1 { "" } else { "s" };
        write!(f, "{all:.1} us for {rows} row{}: memory {memory:.1}", s(*rows))?;
        if cache > 0.0 {
            write!(f, ", cache {cache:.1}")?;
        }
        write!(f, ", products {products:.1}, ends {ends:.1}")?;
        if *blocks > 0 {
            write!(f, "; {blocks} block{} in {waves} wave{}", s(*blocks), s(*waves))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_adds_up() {
        let expected =
            Expected { rows: 1, blocks: 256, waves: 1, parts: [3.96e-6, 0.0, 0.4e-6, 4e-6] };
        assert_eq!(
            expected.to_string(),
            "8.0 us for 1 row: memory 4.0, products 0.4, ends 4.0; 256 blocks in 1 wave"
        );
    }

    #[test]
    fn every_cuda_target_has_its_row() {
        for name in ["sm_80", "sm_90"] {
            assert!(Chip::of(&Target::parse(name).unwrap()).is_some(), "{name}");
        }
        assert_eq!(Chip::of(&Target::parse("x86-64-v3").unwrap()), None);
    }
}
