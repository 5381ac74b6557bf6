//! `pixel_shuffle`: 2×2 neighbouring patches as one row of four times the width.

use sail_ir::plan::{Cost, Count, Grid};

use crate::emit::{Builder, Index};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::rows::{copy, row_at};

/// `x [n, side², width]` to `y [n, side²/4, 4·width]`: row (Y, X) of `y` holds rows (2Y, 2X),
/// (2Y, 2X+1), (2Y+1, 2X), (2Y+1, 2X+1) of `x`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PixelShuffle {
    /// Patches along one side of a tile; even.
    pub side: u32,
    pub width: u32,
}

impl Kernel for PixelShuffle {
    fn family(&self) -> &'static str {
        "pixel_shuffle"
    }

    fn symbol(&self) -> String {
        format!("pixel_shuffle.s{}.w{}", self.side, self.width)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[1]
    }

    /// Blocks are rows of the result's square.
    fn grid(&self) -> Grid {
        let side = (self.side / 2).max(1);
        Rows { count: Count::Images, per: side * side }.grid(side, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        Some(Box::new(super::nvptx::pixel_shuffle(self)))
    }

    fn cost(&self) -> Cost {
        Cost { row_bytes: 4 * 4 * u64::from(self.width), ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        if self.side == 0 || !self.side.is_multiple_of(2) {
            return Err(EmitError::no_fit(self, "the side of a tile is odd"));
        }
        let [x, y] = k.arguments::<2>();
        k.for_each_row(&self.grid(), |k, row| {
            let first = first_source(k, row, self.side);
            let to = row_at(k, y, row, 4 * self.width);
            for (down, right) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let from = k.add_constant(first, u64::from(down * self.side + right));
                let from = row_at(k, x, from, self.width);
                let part = u64::from(2 * (2 * down + right)) * u64::from(self.width);
                let to = k.at_bytes_constant(to, part);
                copy(k, from, to, self.width);
            }
        });
        Ok(())
    }
}

/// The row of the unshuffled matrix that row `row` of the shuffled one begins with.
pub(crate) fn first_source<'c>(k: &mut Builder<'c>, row: Index<'c>, side: u32) -> Index<'c> {
    // Tiles follow each other without a gap, so the row of the square counts through them.
    let half = u64::from(side / 2);
    let (down, right) = (k.div_constant(row, half), k.rem_constant(row, half));
    let down = k.mul_constant(down, 2 * u64::from(side));
    let right = k.mul_constant(right, 2);
    k.add(down, right)
}
