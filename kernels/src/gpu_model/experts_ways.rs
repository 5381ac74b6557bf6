//! The four ways of grouped products: what can be chosen of each, what the rule takes, what that takes.

use super::experts::Experts;
use super::product::Product;
use super::{ByWarpgroups, Expected, FewRows, Tiled, Way, tiles};
use crate::config::{Config, Parameter};
use crate::linear::nvptx::few::Few;
use crate::linear::nvptx::mixed::Mixed;
use crate::linear::nvptx::tile::Tile;
use crate::linear::nvptx::warpgroup::{self, Warpgroups};

/// Few rows of an expert: what [`crate::experts`] makes of [`crate::linear::nvptx::few`].
#[derive(Debug, Clone, Copy)]
pub struct RowsOfExperts {
    experts: Experts,
    /// Of a group of rows.
    of_group: FewRows,
}

impl RowsOfExperts {
    /// For groups of at most `rows` rows of the weights that a call multiplies, as a rule so many.
    pub(super) fn new(experts: Experts, [rows, weights]: [u32; 2]) -> Self {
        let of_group = FewRows::new(Product { most: rows, ..experts.0 }, weights);
        Self { experts, of_group }
    }

    /// The shape that a config stands for.
    pub(crate) fn few(&self, config: &Config) -> Few {
        self.of_group.few(config)
    }
}

impl Way for RowsOfExperts {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn most_rows(&self) -> u32 {
        self.experts.0.most
    }

    fn config(&self) -> Config {
        self.of_group.config()
    }

    fn space(&self) -> Vec<Parameter> {
        self.of_group.space()
    }

    fn fits(&self, config: &Config) -> bool {
        self.of_group.fits(config)
    }

    /// Blocks share the runs of weight rows of all groups, however many there are.
    fn expected(&self, config: &Config, rows: u32) -> Expected {
        let few = self.few(config);
        let Product { sizes, chip, .. } = self.experts.0;
        let groups = self.experts.groups(rows, [few.rows(); 2]);
        let expected = self.experts.in_tiles(rows, (&groups, few.columns()), |_| {
            self.experts.0.weight_bytes() * u64::from(few.columns())
                / u64::from(sizes.weight_rows())
        });
        let at_once = chip.processors * few.blocks_per_processor;
        let blocks = at_once.min(expected.blocks.max(1));
        let waves = expected.blocks.div_ceil(blocks);
        // What all wait for is the block that has most runs.
        let uneven = f64::from(waves * blocks) / f64::from(expected.blocks.max(1));
        let [memory, ..] = expected.parts;
        let parts =
            std::array::from_fn(|at| if at == 0 { uneven * memory } else { expected.parts[at] });
        Expected { blocks, waves, parts, ..expected }
    }

    fn reason(&self) -> String {
        let groups = self.of_group.most_rows();
        format!("{groups} rows of an expert at once; {}", self.of_group.reason())
    }
}

/// Many rows on `sm_90`: what [`crate::experts`] makes of [`crate::linear::nvptx::warpgroup`].
#[derive(Debug, Clone, Copy)]
pub struct WarpgroupsOfExperts {
    pub(super) experts: Experts,
    /// Bytes of shared memory that the groups of rows take.
    pub(super) table: u64,
}

impl WarpgroupsOfExperts {
    fn of_expert(&self) -> ByWarpgroups {
        ByWarpgroups(self.experts.0)
    }

    /// Tiles are many whatever the rows: as wide as can be, so that they read least of x.
    fn chosen(&self) -> Warpgroups {
        let whole = self.experts.0.sizes.weight_rows().next_multiple_of(32).max(64);
        let columns = self.of_expert().widths().find(|columns| *columns <= whole);
        Warpgroups::with(columns.expect("the narrowest fits"), self.table)
    }

    /// The shape that a config stands for.
    pub(crate) fn shape(&self, config: &Config) -> Warpgroups {
        self.of_expert().shape(config)
    }
}

impl Way for WarpgroupsOfExperts {
    fn name(&self) -> &'static str {
        "wgmma"
    }

    fn most_rows(&self) -> u32 {
        self.experts.0.most
    }

    fn config(&self) -> Config {
        ByWarpgroups::config_of(self.chosen())
    }

    fn space(&self) -> Vec<Parameter> {
        self.of_expert().space_around(self.chosen())
    }

    fn fits(&self, config: &Config) -> bool {
        let shape = self.shape(config);
        shape.stages <= Warpgroups::with(shape.columns, self.table).stages
    }

    fn expected(&self, config: &Config, rows: u32) -> Expected {
        let Warpgroups { columns, .. } = self.shape(config);
        let groups = self.experts.groups(rows, [warpgroup::ROWS, warpgroup::ROWS / 2]);
        let bytes = |rows| self.experts.tile_bytes(rows, columns);
        self.experts.in_tiles(rows, (&groups, columns), bytes)
    }

    fn reason(&self) -> String {
        format!("{}; the widest tiles read least of x", self.experts.of_many())
    }
}

/// The same where the weights have fewer bits than the rows: what [`crate::experts`] makes of
/// [`crate::linear::nvptx::mixed`].
#[derive(Debug, Clone, Copy)]
pub struct MixedOfExperts(pub(super) Experts);

impl MixedOfExperts {
    fn shapes(&self) -> Vec<Mixed> {
        Mixed::of_experts(self.0.0.sizes.scheme)
    }

    /// What takes least of the cache and of the matrix units together: at best they work beside each other.
    fn chosen(&self) -> Mixed {
        let cost = |shape: &Mixed| {
            let [_, cache, products, _] = self.of_shape(*shape, self.0.many()).parts;
            cache + products
        };
        let all = self.shapes().into_iter();
        let best = all.min_by(|one, other| cost(one).total_cmp(&cost(other)));
        best.expect("there are shapes")
    }

    fn of_shape(&self, shape: Mixed, rows: u32) -> Expected {
        let columns = shape.columns;
        let groups = self.0.groups(rows, [shape.rows, shape.rows_by()]);
        self.0.in_tiles(rows, (&groups, columns), |rows| self.0.tile_bytes(rows, columns))
    }

    /// The shape that a config stands for.
    ///
    /// # Panics
    ///
    /// When it does not fit.
    pub(crate) fn shape(&self, config: &Config) -> Mixed {
        tiles::of(&self.shapes(), config)
    }
}

impl Way for MixedOfExperts {
    fn name(&self) -> &'static str {
        "mixed"
    }

    fn most_rows(&self) -> u32 {
        self.0.0.most
    }

    fn config(&self) -> Config {
        tiles::config(self.chosen())
    }

    fn space(&self) -> Vec<Parameter> {
        tiles::space(self.chosen(), &self.shapes())
    }

    fn fits(&self, config: &Config) -> bool {
        tiles::find(&self.shapes(), config).is_some()
    }

    fn expected(&self, config: &Config, rows: u32) -> Expected {
        self.of_shape(self.shape(config), rows)
    }

    fn reason(&self) -> String {
        let Mixed { rows, columns, .. } = self.chosen();
        format!("{}, for which tiles of {rows} by {columns} take least", self.0.of_many())
    }
}

/// Many rows by warps: what [`crate::experts`] makes of [`crate::linear::nvptx::tile`].
#[derive(Debug, Clone, Copy)]
pub struct TilesOfExperts(pub(super) Experts);

impl TilesOfExperts {
    /// An expert has few rows: 3072 tokens of 8 of 128 experts give each 192.
    const OWN: Tile = Tile::SMALL;

    fn of_expert(&self) -> Tiled {
        Tiled(self.0.0)
    }

    /// The shape that a config stands for.
    pub(crate) fn tile(&self, config: &Config) -> Tile {
        self.of_expert().tile(config)
    }
}

impl Way for TilesOfExperts {
    fn name(&self) -> &'static str {
        "tile"
    }

    fn most_rows(&self) -> u32 {
        self.0.0.most
    }

    fn config(&self) -> Config {
        tiles::config(Self::OWN)
    }

    fn space(&self) -> Vec<Parameter> {
        tiles::space(Self::OWN, self.of_expert().tiles())
    }

    fn fits(&self, config: &Config) -> bool {
        self.of_expert().fits(config)
    }

    fn expected(&self, config: &Config, rows: u32) -> Expected {
        let Tile { rows: most, columns, .. } = self.tile(config);
        let groups = self.0.groups(rows, [most; 2]);
        self.0.in_tiles(rows, (&groups, columns), |rows| self.0.tile_bytes(rows, columns))
    }

    fn reason(&self) -> String {
        format!("{}, which fill the smallest tiles best", self.0.of_many())
    }
}
