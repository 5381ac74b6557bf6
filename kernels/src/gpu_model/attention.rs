//! Attention: which way for how many rows, and how positions are shared out.

use sail_ir::target::Target;

use super::{Chip, Expected, POSITION, Way};
use crate::config::{Config, Parameter};

/// Most rows of calls in which rows are taken alone.
pub(crate) const MOST_ALONE: u32 = 64;

/// Most blocks of a row and kv head: their parts are read by one.
const MOST_BLOCKS: u32 = 64;

/// What the ways of attention must know of a problem.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    /// Bytes of a key or a value of one head in the cache.
    pub value_bytes: u64,
}

impl Sizes {
    /// Bytes of keys and values of a position.
    fn position_bytes(&self) -> u64 {
        2 * u64::from(self.kv_heads) * self.value_bytes
    }

    /// Bytes of a row's queries and results.
    fn row_bytes(&self) -> u64 {
        4 * u64::from(self.heads) * u64::from(self.head_dim)
    }

    /// Operations of `vectors` query vectors with so many positions.
    fn operations(&self, vectors: u32, positions: u64) -> u64 {
        4 * u64::from(vectors) * positions * u64::from(self.head_dim)
    }
}

/// Rows by themselves: what [`crate::attention::flash_alone`] says.
#[derive(Debug, Clone, Copy)]
pub struct Alone {
    sizes: Sizes,
    /// Most rows of a call.
    most: u32,
    /// Positions of a run, query vectors of a warp, warps that shared memory has room for.
    run: u64,
    vectors: u32,
    most_warps: u32,
    chip: Chip,
}

impl Alone {
    /// For runs of `run` positions, `vectors` query vectors of a warp and at most `most_warps` warps.
    pub(crate) fn of(
        (sizes, most): (Sizes, u32),
        (run, vectors, most_warps): (u64, u32, u32),
        target: &Target,
    ) -> Option<Self> {
        Some(Self { sizes, most, run, vectors, most_warps, chip: Chip::of(target)? })
    }

    /// Blocks of a row and kv head, and their warps, so that one row fills the GPU: few warps where there
    /// are few heads, as then more blocks share the positions of each.
    fn chosen(&self) -> [u32; 2] {
        let kv_heads = self.sizes.kv_heads;
        let most = kv_heads.min(self.most_warps).clamp(1, 8);
        let blocks = (self.chip.processors / kv_heads.max(1)).clamp(1, MOST_BLOCKS);
        [blocks, 1 << most.ilog2()]
    }
}

impl Way for Alone {
    fn name(&self) -> &'static str {
        "alone"
    }

    fn most_rows(&self) -> u32 {
        self.most
    }

    fn config(&self) -> Config {
        let [blocks, warps] = self.chosen();
        Config::new(&[("blocks", blocks), ("warps", warps)])
    }

    fn space(&self) -> Vec<Parameter> {
        let [blocks, warps] = self.chosen();
        vec![
            Parameter::new("blocks", blocks, |blocks| blocks <= MOST_BLOCKS),
            Parameter::new("warps", warps, |warps| warps <= self.most_warps),
        ]
    }

    fn fits(&self, _: &Config) -> bool {
        true
    }

    fn expected(&self, config: &Config, rows: u32) -> Expected {
        let Self { sizes, chip, .. } = *self;
        let [blocks, warps] = ["blocks", "warps"].map(|name| config.get(name));
        let positions = POSITION + 1;
        let runs = u32::try_from(positions.div_ceil(self.run)).expect("positions of a model");
        let used = blocks.min(runs.div_ceil(warps));
        let all = rows * sizes.kv_heads * used;
        let at_work = u64::from(all.clamp(1, chip.processors));
        let bytes = u64::from(rows) * positions * sizes.position_bytes();
        let of_heads = u64::from(rows * sizes.kv_heads);
        let operations = of_heads * sizes.operations(self.vectors, positions);
        let meeting = if used > 1 { chip.meeting } else { 0.0 };
        let parts = [
            chip.read(bytes + u64::from(rows) * sizes.row_bytes()),
            chip.fed(bytes / at_work),
            chip.multiplied(operations / at_work, false),
            chip.ends + meeting,
        ];
        Expected { rows, blocks: all, waves: all.div_ceil(chip.processors), parts }
    }

    fn reason(&self) -> String {
        let [blocks, warps] = self.chosen();
        let kv_heads = self.sizes.kv_heads;
        format!("one row fills the chip: {blocks} x {warps} warps for each kv head, of {kv_heads}")
    }
}

/// Many rows on `sm_90`, whose steps of positions clusters share: what [`crate::attention`]'s `wgmma` says.
#[derive(Debug, Clone, Copy)]
pub struct SharedSteps {
    sizes: Sizes,
    most: u32,
    /// Rows of a block, positions of a step, query vectors of a block.
    rows: u32,
    step: u64,
    vectors: u32,
    chip: Chip,
}

impl SharedSteps {
    /// For blocks of `rows` rows, `vectors` query vectors, and steps of `step` positions.
    pub(crate) fn of(
        (sizes, most): (Sizes, u32),
        (rows, step, vectors): (u32, u64, u32),
        target: &Target,
    ) -> Option<Self> {
        Some(Self { sizes, most, rows, step, vectors, chip: Chip::of(target)? })
    }

    /// Blocks of a call of so many rows, without those that share their steps.
    fn blocks(&self, rows: u32) -> u32 {
        rows.div_ceil(self.rows).saturating_mul(self.sizes.kv_heads)
    }

    /// As many as there are processors for in the largest call.
    fn chosen(&self) -> u32 {
        let blocks = self.blocks(self.most);
        let fits = |parts: &u32| blocks.saturating_mul(*parts) <= self.chip.processors;
        [8, 4, 2].into_iter().find(fits).unwrap_or(1)
    }
}

impl Way for SharedSteps {
    fn name(&self) -> &'static str {
        "wgmma"
    }

    fn most_rows(&self) -> u32 {
        self.most
    }

    fn config(&self) -> Config {
        Config::new(&[("parts", self.chosen())])
    }

    fn space(&self) -> Vec<Parameter> {
        vec![Parameter::new("parts", self.chosen(), |_| true)]
    }

    fn fits(&self, _: &Config) -> bool {
        true
    }

    fn expected(&self, config: &Config, rows: u32) -> Expected {
        let Self { sizes, chip, .. } = *self;
        let parts = config.get("parts");
        // A prompt: each block sees the positions up to its last row.
        let steps = |block: u32| {
            let last = rows.min((block + 1) * self.rows);
            u64::from(last).div_ceil(self.step)
        };
        let of_head: u64 = (0..rows.div_ceil(self.rows)).map(steps).sum();
        let all = of_head * u64::from(sizes.kv_heads);
        let longest = u64::from(rows).div_ceil(self.step).div_ceil(parts.into());
        let most = longest.max(all.div_ceil(chip.processors.into()));
        let blocks = self.blocks(rows).saturating_mul(parts);
        let step_bytes = self.step * 2 * sizes.value_bytes;
        let times = [
            chip.read(u64::from(rows) * (sizes.position_bytes() + sizes.row_bytes())),
            chip.fed(most * step_bytes),
            chip.multiplied(most * sizes.operations(self.vectors, self.step), false),
            chip.ends + if parts > 1 { chip.meeting } else { 0.0 },
        ];
        Expected { rows, blocks, waves: blocks.div_ceil(chip.processors), parts: times }
    }

    fn reason(&self) -> String {
        let (blocks, parts) = (self.blocks(self.most), self.chosen());
        match parts {
            1 => format!("{} rows are {blocks} blocks: too many to share their steps", self.most),
            _ => format!("{} rows are {blocks} blocks: {parts} share the steps of each", self.most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The 2B: 16 heads of 128 on 8, kept as bf16.
    const SIZES: Sizes = Sizes { heads: 16, kv_heads: 8, head_dim: 128, value_bytes: 256 };

    fn alone(target: &str, sizes: Sizes) -> Alone {
        let target = Target::parse(target).unwrap();
        Alone::of((sizes, 8), (16, 16, 8), &target).unwrap()
    }

    #[test]
    fn one_row_fills_the_chip() {
        assert_eq!(alone("sm_90", SIZES).config().to_string(), "blocks=16 warps=8");
        assert_eq!(alone("sm_80", SIZES).config().to_string(), "blocks=13 warps=8");
        let one_head = Sizes { kv_heads: 1, ..SIZES };
        assert_eq!(alone("sm_90", one_head).config().to_string(), "blocks=64 warps=1");
        let expected = alone("sm_90", SIZES).expected(&alone("sm_90", SIZES).config(), 1);
        assert_eq!((expected.blocks, expected.waves), (128, 1));
    }

    #[test]
    fn clusters_share_steps_where_there_are_processors_for_it() {
        let target = Target::parse("sm_90").unwrap();
        let parts = |most| {
            let way = SharedSteps::of((SIZES, most), (64, 128, 128), &target).unwrap();
            way.config().get("parts")
        };
        assert_eq!([128, 512, 1024, 4096].map(parts), [8, 2, 1, 1]);
    }

    #[test]
    fn a_prompt_takes_as_many_steps_as_its_mask_leaves() {
        let target = Target::parse("sm_90").unwrap();
        let way = SharedSteps::of((SIZES, 4096), (64, 128, 128), &target).unwrap();
        let expected = way.expected(&way.config(), 2048);
        // 2176 steps of 8.4 million operations on 132 processors: 17 each.
        let each = 17.0 * 4.0 * 128.0 * 128.0 * 128.0;
        let chip = Chip::of(&target).unwrap();
        assert_eq!(expected.parts[2], each / (chip.products * chip.cycles));
        assert_eq!((expected.blocks, expected.waves), (256, 2));
    }
}
