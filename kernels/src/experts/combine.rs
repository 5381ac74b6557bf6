//! `combine` and `combine_add`: the weighted sum of each token's experts.

use sail_ir::plan::{Cost, Grid};

use crate::emit::{Bf16, Builder, F32, I32, Index, Ptr};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::rows::{index_at, row_at};

/// Rows of one work item.
const ROWS_PER_BLOCK: u32 = 4;

/// `y[t] = Σ weight · out[place]` over the pairs of token `t`, plus `residual[t]` when there is one:
/// `out [t, k, width]` in sorted order, `place` and `weights [t, k]`, `y [t, width]`.
///
/// Adds in f32 in ascending order of `place`, that is of experts, the residual last; rounds once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Combine {
    pub width: u32,
    pub top_k: u32,
    pub residual: bool,
}

impl Kernel for Combine {
    fn family(&self) -> &'static str {
        if self.residual { "combine_add" } else { "combine" }
    }

    fn symbol(&self) -> String {
        format!("{}.w{}.k{}", self.family(), self.width, self.top_k)
    }

    fn arguments(&self) -> &'static [&'static str] {
        if self.residual {
            &["out", "place", "weights", "residual", "y"]
        } else {
            &["out", "place", "weights", "y"]
        }
    }

    fn writes(&self) -> &'static [u32] {
        if self.residual { &[4] } else { &[3] }
    }

    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(ROWS_PER_BLOCK, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        2 * self.list_bytes()
    }

    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        Some(Box::new(super::nvptx::combine(self)))
    }

    fn cost(&self) -> Cost {
        let (width, top_k) = (u64::from(self.width), u64::from(self.top_k));
        Cost {
            row_bytes: 2 * width * (top_k + 1 + u64::from(self.residual)) + 6 * top_k,
            row_operations: 2 * width * top_k,
            ..Cost::default()
        }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let [out, place, weights] = [0, 1, 2].map(|at| k.argument(at));
        let residual = self.residual.then(|| k.argument(3));
        let y = k.argument(self.arguments().len() - 1);
        let [places, scales] = [0, 1].map(|_| k.carve(self.list_bytes()));
        let top_k = k.index(u64::from(self.top_k));
        let zero = k.index(0);
        k.for_each_row(&self.grid(), |k, row| {
            k.note("1 sort: the pairs of the token by their place");
            let first = k.mul_constant(row, u64::from(self.top_k));
            let place = k.at::<I32>(place, first);
            let weights = k.at::<Bf16>(weights, first);
            self.sort(k, [place, weights], [places, scales]);

            k.note("2 sum");
            let to = row_at(k, y, row, self.width);
            let residual = residual.map(|residual| row_at(k, residual, row, self.width));
            k.for_each_piece(u64::from(self.width), |k, piece| {
                let none = k.f32s(0.0, k.lanes());
                let sum = k.fold(zero, top_k, 1, none, |k, j, sum| {
                    let from = index_at(k, places, j);
                    let from = row_at(k, out, from, self.width);
                    let scale = k.at::<F32>(scales, j);
                    let scale = k.load::<F32>(scale, 1);
                    let value = k.read_widened(from, piece);
                    k.fma(value, scale, sum)
                });
                let sum = match residual {
                    None => sum,
                    Some(residual) => {
                        let residual = k.read_widened(residual, piece);
                        k.add(sum, residual)
                    }
                };
                k.write_rounded(to, piece, sum);
            });
        });
        Ok(())
    }
}

impl Combine {
    /// Workspace of the sorted places, or of their weights.
    fn list_bytes(&self) -> u64 {
        (4 * u64::from(self.top_k)).next_multiple_of(64)
    }

    /// Write the places of one token in ascending order, and their weights as f32 beside them: each
    /// pair goes to the index that counts the smaller places.
    fn sort<'c>(&self, k: &mut Builder<'c>, pairs: [Ptr<'c>; 2], sorted: [Ptr<'c>; 2]) {
        let [place, weights] = pairs;
        let [places, scales] = sorted;
        let (zero, one, top_k) = (k.index(0), k.index(1), k.index(u64::from(self.top_k)));
        k.for_each(zero, top_k, 1, |k, j| {
            let mine = index_at(k, place, j);
            let rank = k.fold(zero, top_k, 1, zero, |k, other, rank: Index<'c>| {
                let other = index_at(k, place, other);
                let smaller = k.less(other, mine);
                let next = k.add(rank, one);
                k.select(smaller, next, rank)
            });
            let to = k.at::<I32>(places, rank);
            let mine = k.i32_of(mine);
            k.store(to, mine);
            let weight = k.at::<Bf16>(weights, j);
            let weight = k.load_widened(weight, 1);
            let to = k.at::<F32>(scales, rank);
            k.store(to, weight);
        });
    }
}
