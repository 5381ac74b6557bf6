//! `mul`: the product of two activations, value by value, rounded to bf16 once.

use sail_ir::plan::{Cost, Grid};

use super::ROWS_PER_BLOCK;
use crate::emit::Builder;
use crate::families::{Family, Tolerance};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::rows::{row_at, rows_word};

/// The row of `mul`.
pub const FAMILY: Family = Family { name: "mul", twin: "mul", tolerance: Tolerance::ONE_STEP };

/// `y = x · other`, all `[rows, width]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mul {
    pub rows: Rows,
    pub width: u32,
}

impl Kernel for Mul {
    fn family(&self) -> &'static str {
        "mul"
    }

    fn symbol(&self) -> String {
        format!("mul.{}.w{}", rows_word(self.rows), self.width)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "other", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[2]
    }

    fn grid(&self) -> Grid {
        self.rows.grid(ROWS_PER_BLOCK, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn cost(&self) -> Cost {
        let width = u64::from(self.width);
        Cost { row_bytes: 6 * width, row_operations: width, ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let pointers = k.arguments::<3>();
        k.for_each_row(&self.grid(), |k, row| {
            let [x, other, y] = pointers.map(|matrix| row_at(k, matrix, row, self.width));
            k.for_each_piece(u64::from(self.width), |k, piece| {
                let (x, other) = (piece.load_widened(k, x), piece.load_widened(k, other));
                let product = k.mul(x, other);
                piece.store_rounded(k, y, product);
            });
        });
        Ok(())
    }
}
