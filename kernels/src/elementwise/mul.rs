//! `mul`: the product of two activations, value by value, rounded to bf16 once.

use sail_ir::plan::{Cost, Grid};

use super::ROWS_PER_BLOCK;
use crate::emit::Builder;
use crate::kernel::{EmitError, Kernel, Rows};
use crate::rows::row_at;

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
        format!("mul.{}.w{}", self.rows.name(), self.width)
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

    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        Some(Box::new(super::nvptx::mul(self)))
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
                let (x, other) = (k.read_widened(x, piece), k.read_widened(other, piece));
                let product = k.mul(x, other);
                k.write_rounded(y, piece, product);
            });
        });
        Ok(())
    }
}
