//! `silu` and `gelu`: a function of every value, rounded to bf16 once.

use sail_ir::plan::{Cost, Grid};

use super::ROWS_PER_BLOCK;
use crate::emit::Builder;
use crate::kernel::{EmitError, Kernel, Rows};
use crate::rows::row_at;

/// Which function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    /// `x / (1 + e^-x)`
    Silu,
    /// `x / 2 · (1 + erf(x / √2))`
    Gelu,
}

/// `y = function(x)`, both `[rows, width]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Activation {
    pub function: Function,
    pub rows: Rows,
    pub width: u32,
}

impl Kernel for Activation {
    fn family(&self) -> &'static str {
        match self.function {
            Function::Silu => "silu",
            Function::Gelu => "gelu",
        }
    }

    fn symbol(&self) -> String {
        format!("{}.{}.w{}", self.family(), self.rows.name(), self.width)
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
        Some(Box::new(super::nvptx::activation(self)))
    }

    fn cost(&self) -> Cost {
        let width = u64::from(self.width);
        Cost { row_bytes: 4 * width, row_operations: width, ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let pointers = k.arguments::<2>();
        k.for_each_row(&self.grid(), |k, row| {
            let [x, y] = pointers.map(|matrix| row_at(k, matrix, row, self.width));
            k.for_each_piece(u64::from(self.width), |k, piece| {
                let x = k.read_widened(x, piece);
                let value = match self.function {
                    Function::Silu => k.silu(x),
                    Function::Gelu => k.gelu(x),
                };
                k.write_rounded(y, piece, value);
            });
        });
        Ok(())
    }
}
