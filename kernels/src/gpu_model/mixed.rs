//! Products of many rows on `sm_90` whose weight has fewer bits than what it meets: how they are cut.

use super::product::Product;
use super::{Expected, Way, tiles};
use crate::config::{Config, Parameter};
use crate::linear::nvptx::mixed::Mixed;

/// What [`crate::linear::nvptx::mixed`] says.
#[derive(Debug, Clone, Copy)]
pub struct ByMixed(pub(super) Product);

impl ByMixed {
    /// Of two that cost the same, first the one that unpacks a word for more rows.
    fn shapes(&self) -> Vec<Mixed> {
        Mixed::all(self.0.sizes.scheme)
    }

    fn blocks(&self, shape: &Mixed, rows: u32) -> u32 {
        self.0.sizes.weight_rows().div_ceil(shape.columns) * rows.div_ceil(shape.rows)
    }

    /// How long the expected rows take, relatively: as many turns as the blocks need on all
    /// multiprocessors, each as long as reading the rows of a tile from the second-level cache takes, of
    /// which one of x is two of the weight.
    fn cost(&self, shape: &Mixed) -> u32 {
        let turns = self.blocks(shape, self.0.many()).div_ceil(self.0.chip.processors);
        turns * (2 * shape.rows + shape.columns)
    }

    fn chosen(&self) -> Mixed {
        let shape = self.shapes().into_iter().min_by_key(|shape| self.cost(shape));
        shape.expect("there are shapes")
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

impl Way for ByMixed {
    fn name(&self) -> &'static str {
        "mixed"
    }

    fn most_rows(&self) -> u32 {
        self.0.most
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
        let chip = self.0.chip;
        let shape = self.shape(config);
        let blocks = self.blocks(&shape, rows);
        let waves = blocks.div_ceil(chip.processors);
        let operations = self.0.operations(shape.rows, shape.columns);
        let parts = [
            chip.read(self.0.memory(rows)),
            chip.fed(u64::from(waves) * shape.block_bytes(&self.0.sizes)),
            chip.multiplied(u64::from(waves) * operations, self.0.of_bytes()),
            chip.ends,
        ];
        Expected { rows, blocks, waves, parts }
    }

    fn reason(&self) -> String {
        let (own, rows) = (self.chosen(), self.0.many());
        let waves = self.blocks(&own, rows).div_ceil(self.0.chip.processors);
        let waves = if waves == 1 { "one wave".to_owned() } else { format!("{waves} waves") };
        let Mixed { rows: across, columns, .. } = own;
        format!("{rows} rows are {waves} of {across} by {columns}, which read least")
    }
}

#[cfg(test)]
mod tests {
    use sail_ir::scheme::Scheme;

    use super::super::product::tests::product;
    use super::*;

    #[test]
    fn what_the_rule_chooses_fits_and_is_read_back_as_it_was() {
        for scheme in [Scheme::Int8Weight, Scheme::Int4] {
            for (n, most) in [(8, 64), (2048, 64), (12_288, 4096), (4608, 1024)] {
                let way = ByMixed(product(n, most, scheme, "sm_90"));
                let config = way.config();
                assert_eq!(way.shape(&config), way.chosen());
                assert_eq!(Config::parse(&config.to_string(), &way.space()).as_ref(), Ok(&config));
                assert!(way.fits(&config), "{scheme} {n} {most}: {config}");
            }
        }
    }

    #[test]
    fn tiles_are_as_large_as_leaves_few_multiprocessors_idle() {
        let shape = |scheme, weight_rows, rows| {
            let Mixed { columns, rows, .. } =
                ByMixed(product(weight_rows, rows, scheme, "sm_90")).chosen();
            (columns, rows)
        };
        let int8 = |weight_rows, rows| shape(Scheme::Int8Weight, weight_rows, rows);
        let int4 = |weight_rows, rows| shape(Scheme::Int4, weight_rows, rows);
        // The vision tower: q, k and v; gate and up; what goes back to the residual.
        assert_eq!([int8(4608, 1024), int4(4608, 1024)], [(128, 160), (128, 96)]);
        assert_eq!([int8(8192, 4096), int4(8192, 4096)], [(256, 128), (128, 128)]);
        assert_eq!([int8(1536, 1024), int4(1536, 1024)], [(128, 96), (128, 96)]);
        // The decoder of the 2B: likewise.
        assert_eq!([int8(12_288, 4096), int4(12_288, 4096)], [(256, 128), (128, 128)]);
        // Many conversations: reading the weight is all there is, so all read at once.
        assert_eq!([int8(2048, 64), int4(2048, 64)], [(64, 64), (64, 64)]);
    }
}
