//! `rms_norm` and `head_norm`: rows divided by the root of their mean square.

use sail_ir::plan::{Cost, Grid};

use super::{ROWS_PER_BLOCK, rms_norm_row};
use crate::emit::Builder;
use crate::kernel::{EmitError, Kernel, Rows};
use crate::rows::row_at;

/// `y = x · rsqrt(mean(x²) + eps)`, rounded, `· weight`, rounded. `x` and `y` are `[rows, width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RmsNorm {
    pub rows: Rows,
    pub width: u32,
    pub eps: f64,
}

impl RmsNorm {
    /// Every head by itself: `x [rows, heads·head_dim]`, `weight [head_dim]`.
    #[must_use]
    pub fn of_heads(rows: Rows, heads: u32, head_dim: u32, eps: f64) -> Self {
        Self { rows: Rows { per: rows.per * heads, ..rows }, width: head_dim, eps }
    }
}

impl Kernel for RmsNorm {
    fn family(&self) -> &'static str {
        "rms_norm"
    }

    fn symbol(&self) -> String {
        format!("rms_norm.{}.w{}.eps{:e}", self.rows.name(), self.width, self.eps)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "weight", "y"]
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
        Some(Box::new(super::nvptx::rms_norm(self)))
    }

    fn cost(&self) -> Cost {
        let width = u64::from(self.width);
        let weight_bytes = 2 * width;
        Cost { weight_bytes, row_bytes: 4 * width, row_operations: 4 * width, ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let [x, weight, y] = k.arguments::<3>();
        k.for_each_row(&self.grid(), |k, row| {
            let [x, y] = [x, y].map(|matrix| row_at(k, matrix, row, self.width));
            rms_norm_row(k, [x, weight, y], self.width, self.eps);
        });
        Ok(())
    }
}
