//! `columns`: a range of columns as a matrix of its own.

use sail_ir::plan::{Cost, Grid};

use super::{ROWS_PER_BLOCK, copy, row_at};
use crate::emit::Builder;
use crate::kernel::{EmitError, Kernel, Rows};

/// Columns `first .. first + count` of `x [rows, width]`, as `y [rows, count]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Columns {
    pub rows: Rows,
    pub width: u32,
    pub first: u32,
    pub count: u32,
}

impl Kernel for Columns {
    fn family(&self) -> &'static str {
        "columns"
    }

    fn symbol(&self) -> String {
        let Self { rows, width, first, count } = self;
        format!("columns.{}.w{width}.f{first}.c{count}", rows.name())
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
        Some(Box::new(super::nvptx::columns(self)))
    }

    fn cost(&self) -> Cost {
        Cost { row_bytes: 4 * u64::from(self.count), ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        if self.first.checked_add(self.count).is_none_or(|end| end > self.width) {
            return Err(EmitError::no_fit(self, "the columns end beyond the row"));
        }
        let [x, y] = k.arguments::<2>();
        k.for_each_row(&self.grid(), |k, row| {
            let from = row_at(k, x, row, self.width);
            let from = k.at_bytes_constant(from, 2 * u64::from(self.first));
            let to = row_at(k, y, row, self.count);
            copy(k, from, to, self.count);
        });
        Ok(())
    }
}
