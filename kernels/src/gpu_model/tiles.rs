//! The choice of a tile by its rows and columns, as a config has it.

use crate::config::{Config, Parameter};

/// The config of a tile of so many rows and columns.
pub(super) fn config([rows, columns]: [u32; 2]) -> Config {
    Config::new(&[("tile", rows), ("columns", columns)])
}

/// Rows and columns of the tile that a config stands for.
pub(super) fn of(config: &Config) -> [u32; 2] {
    [config.get("tile"), config.get("columns")]
}

/// What can be chosen among `all`, of which `own` is the rule's; not every combination is one of them.
pub(super) fn space(own: [u32; 2], all: impl Iterator<Item = [u32; 2]>) -> Vec<Parameter> {
    let all: Vec<[u32; 2]> = all.collect();
    let has = |side: usize, value: u32| all.iter().any(|tile| tile[side] == value);
    let parameter = |side: usize, name| Parameter::new(name, own[side], |value| has(side, value));
    vec![parameter(0, "tile"), parameter(1, "columns")]
}
