//! The choice of a tile by its rows and columns, as a config has it.

use crate::config::{Config, Parameter};
use crate::linear::nvptx::mixed::Mixed;
use crate::linear::nvptx::tile::Tile;

/// What a tile is chosen by, whatever else there is about it.
pub(super) trait Sides: Copy {
    /// Rows and columns.
    fn sides(&self) -> [u32; 2];
}

impl Sides for Tile {
    fn sides(&self) -> [u32; 2] {
        [self.rows, self.columns]
    }
}

impl Sides for Mixed {
    fn sides(&self) -> [u32; 2] {
        [self.rows, self.columns]
    }
}

/// The config of a tile.
pub(super) fn config(tile: impl Sides) -> Config {
    let [rows, columns] = tile.sides();
    Config::new(&[("tile", rows), ("columns", columns)])
}

/// The one of `all` that a config stands for.
pub(super) fn find<T: Sides>(all: &[T], config: &Config) -> Option<T> {
    let wanted = [config.get("tile"), config.get("columns")];
    all.iter().copied().find(|tile| tile.sides() == wanted)
}

/// As [`find`], of a config that fits.
///
/// # Panics
///
/// When it does not.
pub(super) fn of<T: Sides>(all: &[T], config: &Config) -> T {
    find(all, config).unwrap_or_else(|| panic!("broken invariant `config.fits`: {config}"))
}

/// What can be chosen among `all`, of which `own` is the rule's; not every combination is one of them.
pub(super) fn space<T: Sides>(own: T, all: &[T]) -> Vec<Parameter> {
    let has = |side: usize, value: u32| all.iter().any(|tile| tile.sides()[side] == value);
    let own = own.sides();
    let parameter = |side: usize, name| Parameter::new(name, own[side], |value| has(side, value));
    vec![parameter(0, "tile"), parameter(1, "columns")]
}
