//! `splice`: image features at the image-token places of the prompt.

use sail_ir::plan::{Cost, Grid};

use super::{ROWS_PER_BLOCK, copy, index_at, row_at};
use crate::emit::Builder;
use crate::kernel::{EmitError, Kernel, Rows};

/// `y[t]` is row `image_rows[t]` of `features` where that is not negative, else `x[t]`; all rows
/// have `width` values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Splice {
    pub width: u32,
}

impl Kernel for Splice {
    fn family(&self) -> &'static str {
        "splice"
    }

    fn symbol(&self) -> String {
        format!("splice.w{}", self.width)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "features", "image_rows", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[3]
    }

    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(ROWS_PER_BLOCK, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        Some(Box::new(super::nvptx::splice(self)))
    }

    fn cost(&self) -> Cost {
        Cost { row_bytes: 4 * u64::from(self.width) + 4, ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let [x, features, image_rows, y] = k.arguments::<4>();
        k.for_each_row(&self.grid(), |k, row| {
            let image_row = index_at(k, image_rows, row);
            let zero = k.index(0);
            let is_text = k.less(image_row, zero);
            let from = k.choose(
                is_text,
                |k| row_at(k, x, row, self.width),
                |k| row_at(k, features, image_row, self.width),
            );
            let to = row_at(k, y, row, self.width);
            copy(k, from, to, self.width);
        });
        Ok(())
    }
}
