//! `tap`: an f32 copy of a value, for the person who asked.

use sail_ir::plan::{Cost, Grid};

use super::{ROWS_PER_BLOCK, row_at};
use crate::emit::{Builder, F32};
use crate::kernel::{EmitError, Kernel, Rows};

/// `x [rows, width]` bf16 to `y [rows, width]` f32.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tap {
    pub rows: Rows,
    pub width: u32,
}

impl Kernel for Tap {
    fn family(&self) -> &'static str {
        "tap"
    }

    fn symbol(&self) -> String {
        format!("tap.{}.w{}", self.rows.name(), self.width)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[1]
    }

    fn grid(&self) -> Grid {
        self.rows.grid(ROWS_PER_BLOCK, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        Some(Box::new(super::nvptx::tap(self)))
    }

    fn cost(&self) -> Cost {
        Cost { row_bytes: 6 * u64::from(self.width), ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let [x, y] = k.arguments::<2>();
        k.for_each_row(&self.grid(), |k, row| {
            let from = row_at(k, x, row, self.width);
            let start = k.mul_constant(row, u64::from(self.width));
            let to = k.at::<F32>(y, start);
            k.for_each_piece(u64::from(self.width), |k, piece| {
                let values = k.read_widened(from, piece);
                k.write(to, piece, values);
            });
        });
        Ok(())
    }
}
