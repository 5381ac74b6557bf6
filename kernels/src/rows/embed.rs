//! `embed`: rows of the embedding table.

use sail_ir::plan::{Cost, Grid};

use super::{ROWS_PER_BLOCK, copy, index_at, row_at};
use crate::emit::Builder;
use crate::kernel::{EmitError, Kernel, Rows};

/// `ids [t]`, `table [v, width]` to `y [t, width]`. The table is stored row by row, not packed.
///
/// Ids are rows of the table: requests are checked before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Embed {
    pub width: u32,
}

impl Kernel for Embed {
    fn family(&self) -> &'static str {
        "embed"
    }

    fn symbol(&self) -> String {
        format!("embed.w{}", self.width)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["ids", "table", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[2]
    }

    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(ROWS_PER_BLOCK, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        Some(Box::new(super::nvptx::embed(self)))
    }

    fn cost(&self) -> Cost {
        Cost { row_bytes: 4 * u64::from(self.width) + 4, ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let [ids, table, y] = k.arguments::<3>();
        k.for_each_row(&self.grid(), |k, row| {
            let id = index_at(k, ids, row);
            let from = row_at(k, table, id, self.width);
            let to = row_at(k, y, row, self.width);
            copy(k, from, to, self.width);
        });
        Ok(())
    }
}
