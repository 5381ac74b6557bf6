//! `add`: the sum of two activations, rounded to bf16 once.
//!
//! Floor: 6 bytes a value (two read, one written), no arithmetic to speak of.

use sail_ir::plan::{Cost, Grid};

use crate::emit::{Bf16, Builder};
use crate::kernel::{EmitError, Kernel, Rows};

/// Rows of one work item: enough that a thread's share is a run of memory, few enough to split.
const ROWS_PER_BLOCK: u32 = 16;

/// `y = x + other`, all `[rows, width]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Add {
    pub rows: Rows,
    pub width: u32,
}

impl Kernel for Add {
    fn family(&self) -> &'static str {
        "add"
    }

    fn symbol(&self) -> String {
        format!("add.{}.w{}", self.rows.name(), self.width)
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
        Some(Box::new(super::nvptx::add(self)))
    }

    fn cost(&self) -> Cost {
        let width = u64::from(self.width);
        Cost { row_bytes: 6 * width, row_operations: width, ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let width = u64::from(self.width);
        let pointers = k.arguments::<3>();
        k.for_each_row(&self.grid(), |k, row| {
            k.note("1 add: vectors of the row, then its tail");
            let start = k.mul_constant(row, width);
            let [x, other, y] = pointers.map(|pointer| k.at::<Bf16>(pointer, start));
            k.for_each_piece(width, |k, piece| {
                let (a, b) = (k.read_widened(x, piece), k.read_widened(other, piece));
                let sum = k.add(a, b);
                k.write_rounded(y, piece, sum);
            });
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::run::{
        Counts, Loaded, bf16_bytes, bf16_values, poisoned, random, targets_here,
    };

    #[test]
    fn adds_rows_of_any_width_however_they_are_split() {
        for target in targets_here() {
            for (rows, width) in [(1, 1), (3, 7), (17, 16), (37, 67), (33, 2048)] {
                let kernel = Add { rows: Rows::TOKENS, width };
                let count = rows * width as usize;
                let [mut x, mut other] = [1, 2].map(|seed| bf16_bytes(&random(seed, count)));
                let (a, b) = (bf16_values(&x), bf16_values(&other));
                let expected: Vec<f32> = bf16_values(&bf16_bytes(
                    &a.iter().zip(&b).map(|(a, b)| a + b).collect::<Vec<_>>(),
                ));
                let loaded = Loaded::new(&kernel, &target);
                for parts in [1, 3] {
                    let mut y = poisoned(2 * count);
                    let counts = Counts { tokens: rows as u32, ..Counts::default() };
                    loaded.run_split(counts, &mut [&mut x, &mut other, &mut y], parts);
                    assert_eq!(bf16_values(&y), expected, "{target} {rows}x{width}");
                }
            }
        }
    }
}
