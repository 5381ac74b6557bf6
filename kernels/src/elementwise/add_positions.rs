//! `add_positions`: the same learned positions added to the patches of every image tile.

use sail_ir::plan::{Cost, Count, Grid};

use super::ROWS_PER_BLOCK;
use crate::emit::Builder;
use crate::kernel::{EmitError, Kernel, Rows};
use crate::rows::row_at;

/// `y = x + positions`: `x` and `y` `[n, patches, width]`, `positions [patches, width]`; rounded
/// to bf16 once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AddPositions {
    pub patches: u32,
    pub width: u32,
}

impl Kernel for AddPositions {
    fn family(&self) -> &'static str {
        "add_positions"
    }

    fn symbol(&self) -> String {
        format!("add_positions.p{}.w{}", self.patches, self.width)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "positions", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[2]
    }

    fn grid(&self) -> Grid {
        Rows { count: Count::Images, per: self.patches }.grid(ROWS_PER_BLOCK, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        Some(Box::new(super::nvptx::add_positions(self)))
    }

    fn cost(&self) -> Cost {
        let (patches, width) = (u64::from(self.patches), u64::from(self.width));
        Cost {
            weight_bytes: 2 * patches * width,
            row_bytes: 4 * width,
            row_operations: width,
            ..Cost::default()
        }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let [x, positions, y] = k.arguments::<3>();
        k.for_each_row(&self.grid(), |k, row| {
            let patch = k.rem_constant(row, u64::from(self.patches));
            let positions = row_at(k, positions, patch, self.width);
            let [x, y] = [x, y].map(|matrix| row_at(k, matrix, row, self.width));
            k.for_each_piece(u64::from(self.width), |k, piece| {
                let (x, position) = (k.read_widened(x, piece), k.read_widened(positions, piece));
                let sum = k.add(x, position);
                k.write_rounded(y, piece, sum);
            });
        });
        Ok(())
    }
}
