//! `rope`: every head turned by the angles of its row's position; and the table of those angles.

use half::bf16;
use sail_ir::plan::{Cost, Grid};

use super::page::TokenRow;
use crate::emit::{Bf16, Builder, F32};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::rows::row_at;

/// Rows of one work item.
const ROWS_PER_BLOCK: u32 = 8;

/// `[positions, head_dim]`: row `p` holds the cosines, then the sines, of `p · theta^(-2i/head_dim)`.
///
/// Frequency, angle and function are f32, the result is rounded to bf16; the same on every build
/// machine. Source: `Qwen3RotaryEmbedding`.
#[must_use]
pub fn rope_table(theta: f64, head_dim: u32, positions: u32) -> Vec<bf16> {
    let frequencies: Vec<f32> = (0..head_dim / 2)
        .map(|i| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            1.0 / libm::pow(theta, f64::from(exponent)) as f32
        })
        .collect();
    let mut table = Vec::with_capacity(positions as usize * head_dim as usize);
    for position in 0..positions {
        for function in [libm::cos, libm::sin] {
            let angles = frequencies.iter().map(|frequency| position as f32 * frequency);
            let values = angles.map(|angle| function(f64::from(angle)) as f32);
            table.extend(values.map(bf16::from_f32));
        }
    }
    table
}

/// `x [t, heads·head_dim]`, `table` of [`rope_table`], `rows [t, 2]` to `y`, shaped as `x`.
///
/// Values `i` and `i + head_dim/2` of a head turn together. Rounds both products, then their sum.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rope {
    pub heads: u32,
    pub head_dim: u32,
}

impl Kernel for Rope {
    fn family(&self) -> &'static str {
        "rope"
    }

    fn symbol(&self) -> String {
        format!("rope.h{}.e{}", self.heads, self.head_dim)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "table", "rows", "y"]
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
        Some(Box::new(super::nvptx::rope(self)))
    }

    fn cost(&self) -> Cost {
        let width = u64::from(self.heads) * u64::from(self.head_dim);
        Cost {
            row_bytes: 4 * width + 2 * u64::from(self.head_dim),
            row_operations: 3 * width,
            ..Cost::default()
        }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        if !self.head_dim.is_multiple_of(2) {
            return Err(EmitError::no_fit(self, "a head has an odd number of values"));
        }
        let [x, table, rows, y] = k.arguments::<4>();
        let half = u64::from(self.head_dim / 2);
        k.for_each_row(&self.grid(), |k, at| {
            let row = TokenRow::load(k, rows, at);
            let cosines = row_at(k, table, row.position, self.head_dim);
            let sines = k.at_bytes_constant(cosines, 2 * half);
            let [x, y] = [x, y].map(|matrix| row_at(k, matrix, at, self.heads * self.head_dim));
            let (zero, heads) = (k.index(0), k.index(u64::from(self.heads)));
            k.for_each(zero, heads, 1, |k, head| {
                let first = k.mul_constant(head, u64::from(self.head_dim));
                let [x, y] = [x, y].map(|row| k.at::<Bf16>(row, first));
                let [across_x, across_y] = [x, y].map(|low| k.at_bytes_constant(low, 2 * half));
                k.for_each_piece(half, |k, piece| {
                    let [a, b, cos, sin] =
                        [x, across_x, cosines, sines].map(|row| k.read_widened(row, piece));
                    let [low, high] = turned(k, [a, b], [cos, sin]);
                    k.write_rounded(y, piece, low);
                    k.write_rounded(across_y, piece, high);
                });
            });
        });
        Ok(())
    }
}

/// Values `a` and `b` of a pair, turned; each product rounds.
pub(super) fn turned<'c>(
    k: &mut Builder<'c>,
    [a, b]: [F32<'c>; 2],
    [cos, sin]: [F32<'c>; 2],
) -> [F32<'c>; 2] {
    let [ac, bs, bc, as_] = [(a, cos), (b, sin), (b, cos), (a, sin)].map(|(v, by)| {
        let product = k.mul(v, by);
        k.rounded(product)
    });
    [k.sub(ac, bs), k.add(bc, as_)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, Rounding};

    #[test]
    fn the_table_is_the_twins() {
        let table = rope_table(1e6, 12, 70);
        for (position, row) in table.chunks_exact(12).enumerate() {
            let want = reference::rope_table(position as i32, 12, 1e6, Rounding::Bf16);
            let row: Vec<f64> = row.iter().map(|v| v.to_f64()).collect();
            assert_eq!(row, want, "{position}");
        }
    }
}
