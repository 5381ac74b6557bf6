//! `layer_norm`: rows without their mean, divided by their deviation.

use sail_ir::plan::{Cost, Grid};

use super::{ROWS_PER_BLOCK, inverse_deviation};
use crate::emit::Builder;
use crate::kernel::{EmitError, Kernel, Rows};
use crate::rows::row_at;

/// `y = (x - mean) · rsqrt(variance + eps) · weight + bias`, rounded once. `x` and `y` are
/// `[rows, width]`; the variance is that of the row itself (divided by `width`).
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNorm {
    pub rows: Rows,
    pub width: u32,
    pub eps: f64,
}

impl Kernel for LayerNorm {
    fn family(&self) -> &'static str {
        "layer_norm"
    }

    fn symbol(&self) -> String {
        format!("layer_norm.{}.w{}.eps{:e}", self.rows.name(), self.width, self.eps)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "weight", "bias", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[3]
    }

    fn grid(&self) -> Grid {
        self.rows.grid(ROWS_PER_BLOCK, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        Some(Box::new(super::nvptx::layer_norm(self)))
    }

    fn cost(&self) -> Cost {
        let width = u64::from(self.width);
        let weight_bytes = 4 * width;
        Cost { weight_bytes, row_bytes: 4 * width, row_operations: 7 * width, ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let [x, weight, bias, y] = k.arguments::<4>();
        let width = u64::from(self.width);
        let lanes = k.lanes();
        k.for_each_row(&self.grid(), |k, row| {
            let [x, y] = [x, y].map(|matrix| row_at(k, matrix, row, self.width));

            k.note("1 mean");
            let none = k.f32s(0.0, lanes);
            let sums = k.fold_pieces(width, none, |k, piece, sum| {
                let x = k.read_widened(x, piece);
                k.add(sum, x)
            });
            let sum = k.sum_lanes(sums);
            let count = k.f32(self.width as f32);
            let mean = k.div(sum, count);

            k.note("2 deviation, from the mean: no difference of large squares");
            let scale = inverse_deviation(k, self.width, self.eps, |k, piece| {
                let x = k.read_widened(x, piece);
                let centred = k.sub(x, mean);
                let zero = k.f32s(0.0, lanes);
                k.within(piece, centred, zero)
            });

            k.note("3 store");
            k.for_each_piece(width, |k, piece| {
                let [x, weight, bias] = [x, weight, bias].map(|row| k.read_widened(row, piece));
                let centred = k.sub(x, mean);
                let normal = k.mul(centred, scale);
                let value = k.fma(normal, weight, bias);
                k.write_rounded(y, piece, value);
            });
        });
        Ok(())
    }
}
