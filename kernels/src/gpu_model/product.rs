//! Products: which way for how many rows, and how each is cut.

use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::mixed::ByMixed;
use super::{Chip, Expected, Way, tiles};
use crate::config::{Config, Parameter};
use crate::linear::nvptx::Sizes;
use crate::linear::nvptx::few::{Few, HEAVY, LIGHT, LINE, ROWS};
use crate::linear::nvptx::mixed::Mixed;
use crate::linear::nvptx::tile::Tile;
use crate::linear::nvptx::warpgroup::{self, Warpgroups};
use crate::linear::nvptx::weight::has_groups;
use crate::packing::rows::RUN;

/// Rows that a product of many rows is expected to have: one image tile, a prompt.
const EXPECTED_ROWS: u32 = 1024;

/// Shared memory of a multiprocessor, without what each of a few blocks needs besides its own.
const SHARED: u64 = 160 << 10;

/// The way of a product for calls of at most so many rows.
pub(crate) enum ByRule {
    Rows(FewRows),
    Warpgroups(ByWarpgroups),
    Mixed(ByMixed),
    Tile(Tiled),
}

impl ByRule {
    /// Few rows by themselves; many by warpgroups where these take the operands, packed or not, else by
    /// tiles.
    pub(crate) fn of(sizes: &Sizes, most_rows: u32, target: &Target) -> Option<Self> {
        let all = Product { sizes: *sizes, most: most_rows, chip: Chip::of(target)? };
        Some(if most_rows <= FewRows::MOST_ROWS {
            Self::Rows(FewRows::new(all, 1))
        } else if Warpgroups::takes(sizes, target) {
            Self::Warpgroups(ByWarpgroups(all))
        } else if Mixed::takes(sizes, target) {
            Self::Mixed(ByMixed(all))
        } else {
            Self::Tile(Tiled(all))
        })
    }
}

/// What the ways of a product have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub sizes: Sizes,
    /// Most rows of a call.
    pub most: u32,
    pub chip: Chip,
}

impl Product {
    /// Rows that it is cut for, where they are many.
    pub fn many(&self) -> u32 {
        self.most.min(EXPECTED_ROWS)
    }

    /// Bytes of the weight with what stands behind its rows.
    pub fn weight_bytes(&self) -> u64 {
        let each = self.sizes.pitch() + self.sizes.scheme.bytes_behind(self.sizes.k.into());
        u64::from(self.sizes.weight_rows()) * each
    }

    /// The weight once; each row of x, and of y, once.
    pub fn memory(&self, rows: u32) -> u64 {
        let of_row = self.sizes.row_bytes()[0] + 2 * u64::from(self.sizes.n);
        self.weight_bytes() + u64::from(rows) * of_row
    }

    pub fn of_bytes(&self) -> bool {
        self.sizes.scheme.quantizes_activations()
    }

    /// Operations of `rows` rows with `columns` weight rows.
    pub fn operations(&self, rows: u32, columns: u32) -> u64 {
        2 * u64::from(rows) * u64::from(columns) * u64::from(self.sizes.k)
    }
}

/// Few rows: what [`crate::linear::nvptx::few`] says.
#[derive(Debug, Clone, Copy)]
pub struct FewRows {
    all: Product,
    /// How many weights a call multiplies, as a rule: experts that have rows.
    weights: u32,
}

impl FewRows {
    /// More rows than this are better off with tiles.
    pub const MOST_ROWS: u32 = 32;

    /// For at most as many rows as `all` says of each of the weights that a call multiplies, as a rule so
    /// many.
    pub(super) fn new(all: Product, weights: u32) -> Self {
        Self { all, weights }
    }

    /// Eights of rows of x.
    fn eights(&self) -> u32 {
        self.all.most.div_ceil(ROWS).next_power_of_two()
    }

    /// Warps that have two lines each, at least.
    fn has_lines(&self, warps: u32) -> bool {
        self.all.sizes.pitch() / LINE >= 2 * u64::from(warps)
    }

    /// Runs of 16 weight rows.
    fn runs(&self) -> u32 {
        self.weights * self.all.sizes.weight_rows() / RUN
    }

    /// Are there registers for two runs where so many warps share a multiprocessor? The operands of
    /// `int4` and their zero points leave few. Where weights are several, rows that they share are few.
    fn has_room_for_pairs(&self, at_once: u32) -> bool {
        self.weights == 1
            && self.eights() <= 2
            && (self.all.sizes.scheme != Scheme::Int4 || at_once == HEAVY)
    }

    /// Two blocks of eight warps, or, where there is much to hold, one.
    fn shaped(&self, at_once: u32) -> Few {
        let warps = [8, 4, 2].into_iter().find(|warps| self.has_lines(*warps)).unwrap_or(1);
        let blocks_per_processor = at_once / warps;
        let most = self.all.chip.processors * blocks_per_processor;
        let runs = self.runs();
        // Fewer joins, where blocks still are about equally busy at the end and sums are few.
        let pairs =
            self.has_room_for_pairs(at_once) && runs.is_multiple_of(2) && runs / 2 >= 4 * most;
        let taken = if pairs { 2 } else { 1 };
        let blocks = most.min(runs / taken);
        let (eights, most) = (self.eights(), self.all.most);
        Few { warps, runs: taken, eights, most, keeps: true, blocks_per_processor, blocks }
    }

    fn fits_shared(&self, few: &Few) -> bool {
        let each = u64::from(few.shared_bytes(&self.all.sizes));
        u64::from(few.blocks_per_processor) * each <= SHARED
    }

    fn chosen(&self) -> Few {
        // With one block each, registers are for more bytes on their way.
        let several = |few: &Few| few.blocks > self.all.chip.processors;
        let light = Some(self.shaped(LIGHT))
            .filter(|few| self.eights() == 1 && several(few) && self.fits_shared(few));
        let heavy = self.shaped(HEAVY);
        let kept = light.or(Some(heavy).filter(|few| self.fits_shared(few)));
        kept.unwrap_or(Few { keeps: false, ..heavy })
    }

    /// The shape that a config stands for.
    pub(crate) fn few(&self, config: &Config) -> Few {
        let [warps, runs, share, keeps] =
            ["warps", "runs", "share", "keeps"].map(|name| config.get(name));
        Few {
            warps,
            runs,
            eights: self.eights(),
            most: self.all.most,
            keeps: keeps == 1,
            blocks_per_processor: share,
            blocks: (self.all.chip.processors * share).min(self.runs() / runs),
        }
    }
}

impl Way for FewRows {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn most_rows(&self) -> u32 {
        self.all.most
    }

    fn config(&self) -> Config {
        let Few { warps, runs, keeps, blocks_per_processor: share, .. } = self.chosen();
        let keeps = u32::from(keeps);
        Config::new(&[("warps", warps), ("runs", runs), ("share", share), ("keeps", keeps)])
    }

    fn space(&self) -> Vec<Parameter> {
        let own = self.chosen();
        let pairs = self.runs().is_multiple_of(2) && self.has_room_for_pairs(HEAVY);
        vec![
            Parameter::new("warps", own.warps, |warps| self.has_lines(warps)),
            Parameter::new("runs", own.runs, |runs| runs == 1 || pairs),
            Parameter::new("share", own.blocks_per_processor, |_| true),
            Parameter::new("keeps", own.keeps.into(), |_| true),
        ]
    }

    fn fits(&self, config: &Config) -> bool {
        let few = self.few(config);
        let at_once = few.warps * few.blocks_per_processor;
        let registers = match at_once {
            LIGHT => few.eights == 1 && few.keeps,
            other => other == HEAVY,
        };
        let pairs = few.runs == 1 || self.has_room_for_pairs(at_once);
        registers && pairs && self.fits_shared(&few)
    }

    fn expected(&self, config: &Config, rows: u32) -> Expected {
        let Product { sizes, chip, .. } = self.all;
        let few = self.few(config);
        let turns = self.runs() / few.runs;
        let waves = turns.div_ceil(few.blocks.max(1));
        // What all wait for is the block that has most turns.
        let uneven = f64::from(waves * few.blocks) / f64::from(turns.max(1));
        let at_work = few.blocks.clamp(1, chip.processors);
        let operations = self.all.operations(few.rows(), sizes.weight_rows());
        let parts = [
            uneven * chip.read(self.all.memory(rows)),
            uneven * chip.fed(self.all.weight_bytes() / u64::from(at_work)),
            chip.multiplied(operations / u64::from(at_work), self.all.of_bytes()),
            chip.ends,
        ];
        Expected { rows, blocks: few.blocks, waves, parts }
    }

    fn reason(&self) -> String {
        let few = self.chosen();
        let share = few.blocks_per_processor;
        let because = if few.warps * share == LIGHT {
            "one eight of rows leaves registers for both"
        } else if few.eights > 1 {
            "several eights of rows take the registers of more"
        } else if !few.keeps {
            "the operands of all rows do not fit shared memory"
        } else if few.blocks <= self.all.chip.processors {
            "there is one run for each"
        } else {
            "shared memory has no room for more"
        };
        let blocks = if share == 1 { "one block".to_owned() } else { format!("{share} blocks") };
        format!("{blocks} of {} warps for a multiprocessor: {because}", few.warps)
    }
}

/// Many rows: what [`crate::linear::nvptx::tile`] says.
#[derive(Debug, Clone, Copy)]
pub struct Tiled(pub(super) Product);

impl Tiled {
    const TILES: [Tile; 3] = [Tile::LARGE, Tile::MIDDLE, Tile::SMALL];

    /// Groups have sums of their own, for which the largest tile leaves no registers.
    pub(super) fn tiles(&self) -> &'static [Tile] {
        &Self::TILES[usize::from(has_groups(self.0.sizes.scheme))..]
    }

    fn blocks(&self, tile: &Tile, rows: u32) -> u32 {
        self.0.sizes.weight_rows().div_ceil(tile.columns) * rows.div_ceil(tile.rows)
    }

    /// The largest of which every multiprocessor gets one.
    fn chosen(&self) -> Tile {
        let fills = |tile: &Tile| self.blocks(tile, self.0.many()) >= self.0.chip.processors;
        self.tiles().iter().copied().find(fills).unwrap_or(Tile::SMALL)
    }

    /// The shape that a config stands for.
    ///
    /// # Panics
    ///
    /// When it does not fit.
    pub(crate) fn tile(&self, config: &Config) -> Tile {
        tiles::of(self.tiles(), config)
    }
}

impl Way for Tiled {
    fn name(&self) -> &'static str {
        "tile"
    }

    fn most_rows(&self) -> u32 {
        self.0.most
    }

    fn config(&self) -> Config {
        tiles::config(self.chosen())
    }

    fn space(&self) -> Vec<Parameter> {
        tiles::space(self.chosen(), self.tiles())
    }

    fn fits(&self, config: &Config) -> bool {
        tiles::find(self.tiles(), config).is_some()
    }

    fn expected(&self, config: &Config, rows: u32) -> Expected {
        let Product { sizes, chip, .. } = self.0;
        let tile = self.tile(config);
        let blocks = self.blocks(&tile, rows);
        let most = blocks.div_ceil(chip.processors);
        let sides = [(tile.rows, sizes.row_bytes()[1]), (tile.columns, sizes.pitch())];
        let of_block: u64 = sides.iter().map(|(rows, bytes)| u64::from(*rows) * bytes).sum();
        let operations = self.0.operations(tile.rows, tile.columns);
        let parts = [
            chip.read(self.0.memory(rows)),
            chip.fed(u64::from(most) * of_block),
            chip.multiplied(u64::from(most) * operations, self.0.of_bytes()),
            chip.ends,
        ];
        // Two blocks share a multiprocessor.
        Expected { rows, blocks, waves: most.div_ceil(2), parts }
    }

    fn reason(&self) -> String {
        let (own, rows) = (self.chosen(), self.0.many());
        let blocks = self.blocks(&own, rows);
        match blocks >= self.0.chip.processors {
            true => format!("the largest tile of which {rows} rows give every multiprocessor one"),
            false => format!("{rows} rows are {blocks} of the smallest tiles"),
        }
    }
}

/// Many rows on `sm_90`: what [`crate::linear::nvptx::warpgroup`] says.
#[derive(Debug, Clone, Copy)]
pub struct ByWarpgroups(pub(super) Product);

impl ByWarpgroups {
    /// Widths of a tile, the widest first. Floats of 8 bits need registers for the sums of a step besides
    /// those of all.
    pub(super) fn widths(&self) -> impl Iterator<Item = u32> + use<> {
        let most = if self.0.sizes.scheme == Scheme::Fp8 { 4 } else { 8 };
        (2..=most).rev().map(|runs| 32 * runs)
    }

    /// What a product of the expected rows takes, relatively: all multiprocessors work for as many turns
    /// as it takes to give every block to one, and what a block takes is what it reads, since all of
    /// them read from the second-level cache faster than that gives.
    fn cost(&self, columns: u32) -> u32 {
        let blocks = self.blocks(columns, self.0.many());
        blocks.div_ceil(self.0.chip.processors) * (warpgroup::ROWS + columns)
    }

    fn blocks(&self, columns: u32, rows: u32) -> u32 {
        self.0.sizes.weight_rows().div_ceil(columns) * rows.div_ceil(warpgroup::ROWS)
    }

    fn chosen(&self) -> Warpgroups {
        let columns = self.widths().min_by_key(|columns| self.cost(*columns));
        Warpgroups::with(columns.expect("there are widths"), 0)
    }

    pub(super) fn config_of(Warpgroups { columns, stages }: Warpgroups) -> Config {
        Config::new(&[("columns", columns), ("stages", stages as u32)])
    }

    /// What can be chosen in place of `own`.
    pub(super) fn space_around(&self, own: Warpgroups) -> Vec<Parameter> {
        let columns = |columns| self.widths().any(|width| width == columns);
        vec![
            Parameter::new("columns", own.columns, columns),
            Parameter::new("stages", own.stages as u32, |_| true),
        ]
    }

    /// The shape that a config stands for.
    pub(crate) fn shape(&self, config: &Config) -> Warpgroups {
        Warpgroups { columns: config.get("columns"), stages: config.get("stages").into() }
    }
}

impl Way for ByWarpgroups {
    fn name(&self) -> &'static str {
        "wgmma"
    }

    fn most_rows(&self) -> u32 {
        self.0.most
    }

    fn config(&self) -> Config {
        Self::config_of(self.chosen())
    }

    fn space(&self) -> Vec<Parameter> {
        self.space_around(self.chosen())
    }

    fn fits(&self, config: &Config) -> bool {
        let shape = self.shape(config);
        shape.stages <= Warpgroups::with(shape.columns, 0).stages
    }

    fn expected(&self, config: &Config, rows: u32) -> Expected {
        let chip = self.0.chip;
        let shape = self.shape(config);
        let blocks = self.blocks(shape.columns, rows);
        let waves = blocks.div_ceil(chip.processors);
        let operations = self.0.operations(warpgroup::ROWS, shape.columns);
        let parts = [
            chip.read(self.0.memory(rows)),
            chip.fed(u64::from(waves) * shape.block_bytes(&self.0.sizes)),
            chip.multiplied(u64::from(waves) * operations, self.0.of_bytes()),
            chip.ends,
        ];
        Expected { rows, blocks, waves, parts }
    }

    fn reason(&self) -> String {
        let (own, rows) = (self.chosen().columns, self.0.many());
        let waves = self.blocks(own, rows).div_ceil(self.0.chip.processors);
        let others = self.widths().filter(|columns| *columns != own);
        let next = others.min_by_key(|columns| self.cost(*columns)).expect("there are several");
        let more = 100 * (self.cost(next) - self.cost(own)) / self.cost(own);
        let waves = if waves == 1 { "one wave".to_owned() } else { format!("{waves} waves") };
        format!("{rows} rows are {waves} of {own} columns; {next} would read {more} % more")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::kernel::Rows;
    use crate::linear::nvptx::finish::Finish;
    use crate::linear::{Epilogue, Prologue};

    pub fn product(n: u32, most: u32, scheme: Scheme, target: &str) -> Product {
        let (rows, finish) = (Rows::TOKENS, Finish::Each(Epilogue::NONE));
        let sizes =
            Sizes { rows, n, k: 2048, scheme, prologue: Prologue::Direct, finish, weights: 1 };
        Product { sizes, most, chip: Chip::of(&Target::parse(target).unwrap()).unwrap() }
    }

    #[test]
    fn tiles_of_warpgroups_are_as_wide_as_leaves_few_multiprocessors_idle() {
        let columns = |weight_rows, rows| {
            ByWarpgroups(product(weight_rows, rows, Scheme::Bf16, "sm_90")).chosen().columns
        };
        // The vision tower: q, k and v; gate and up; what goes back to the residual.
        assert_eq!(columns(4608, 1024), 160);
        assert_eq!(columns(8192, 4096), 256);
        assert_eq!(columns(1536, 1024), 96);
        // The decoder of the 2B: likewise.
        assert_eq!(columns(4096, 4096), 256);
        assert_eq!(columns(12_288, 4096), 256);
        assert_eq!(columns(2048, 4096), 128);
        // Many conversations: reading the weight is all there is, so all read at once.
        assert_eq!(columns(2048, 64), 64);
    }

    #[test]
    fn what_the_rule_chooses_fits_and_is_read_back_as_it_was() {
        for target in ["sm_80", "sm_90"] {
            for scheme in Scheme::ALL {
                for (n, most) in [(7, 1), (2048, 8), (12_288, 32), (151_936, 8), (4608, 4096)] {
                    let product = product(n, most, scheme, target);
                    let few =
                        FewRows { all: Product { most: most.min(32), ..product }, weights: 1 };
                    let (tiled, wide) = (Tiled(product), ByWarpgroups(product));
                    assert_eq!(few.few(&few.config()), few.chosen());
                    assert_eq!(tiled.tile(&tiled.config()), tiled.chosen());
                    assert_eq!(wide.shape(&wide.config()), wide.chosen());
                    for way in [&few as &dyn Way, &tiled, &wide] {
                        let config = way.config();
                        let read = Config::parse(&config.to_string(), &way.space());
                        assert_eq!(read.as_ref(), Ok(&config));
                        assert!(way.fits(&config), "{target} {scheme} {n} {most}: {config}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_reason_names_what_the_choice_was_between() {
        let of = |n, most, target| match ByRule::of(
            &product(n, most, Scheme::Bf16, target).sizes,
            most,
            &Target::parse(target).unwrap(),
        ) {
            Some(ByRule::Rows(way)) => way.reason(),
            Some(ByRule::Warpgroups(way)) => way.reason(),
            Some(ByRule::Mixed(way)) => way.reason(),
            Some(ByRule::Tile(way)) => way.reason(),
            None => panic!("{target} is a CUDA target"),
        };
        assert_eq!(
            of(4096, 8, "sm_90"),
            "2 blocks of 8 warps for a multiprocessor: one eight of rows leaves registers for both"
        );
        assert_eq!(
            of(2048, 8, "sm_90"),
            "one block of 8 warps for a multiprocessor: there is one run for each"
        );
        assert_eq!(
            of(4096, 4096, "sm_80"),
            "the largest tile of which 1024 rows give every multiprocessor one"
        );
        assert_eq!(
            of(2048, 64, "sm_90"),
            "64 rows are one wave of 64 columns; 96 would read 16 % more"
        );
    }
}
