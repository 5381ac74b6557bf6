//! `select_rows`: the rows whose outputs are wanted.

use sail_ir::plan::{Cost, Count, Grid};

use super::{ROWS_PER_BLOCK, copy, index_at, row_at};
use crate::emit::Builder;
use crate::kernel::{EmitError, Kernel, Rows};

/// `x [t, width]`, `index [outputs]` to `y [outputs, width]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SelectRows {
    pub width: u32,
}

impl Kernel for SelectRows {
    fn family(&self) -> &'static str {
        "select_rows"
    }

    fn symbol(&self) -> String {
        format!("select_rows.w{}", self.width)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "index", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[2]
    }

    fn grid(&self) -> Grid {
        Rows { count: Count::Outputs, per: 1 }.grid(ROWS_PER_BLOCK, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        Some(Box::new(super::nvptx::select_rows(self)))
    }

    fn cost(&self) -> Cost {
        Cost { row_bytes: 4 * u64::from(self.width) + 4, ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let [x, index, y] = k.arguments::<3>();
        k.for_each_row(&self.grid(), |k, row| {
            let from = index_at(k, index, row);
            let from = row_at(k, x, from, self.width);
            let to = row_at(k, y, row, self.width);
            copy(k, from, to, self.width);
        });
        Ok(())
    }
}
