//! The normalisations for CUDA targets: a warp or a block a row, statistics joined among its threads
//! in an order fixed by the width alone.

use super::{LayerNorm, RmsNorm};
use crate::emit::gpu::{Deal, Team};
use crate::emit::{Builder, F32, Piece};
use crate::gpu::OnGpu;
use crate::kernel::Kernel;
use crate::rows::row_at;

/// [`RmsNorm`] for a GPU.
#[must_use]
pub fn rms_norm(problem: &RmsNorm) -> OnGpu<RmsNorm> {
    OnGpu::by_rows(problem, (problem.rows, problem.width), 1, |kernel, k| {
        let RmsNorm { width, eps, .. } = *kernel.problem();
        let [x, weight, y] = k.arguments::<3>();
        let deal = Deal::of(width.into());
        k.for_team_row(&kernel.grid(), deal, |k, row| {
            let [x, y] = [x, y].map(|matrix| row_at(k, matrix, row, width));
            let scale =
                inverse_deviation(k, deal.team, width, eps, |k, piece| k.read_widened(x, piece));
            k.share_pieces(deal.team, width.into(), |k, piece| {
                let (x, weight) = (k.read_widened(x, piece), k.read_widened(weight, piece));
                let normal = k.mul(x, scale);
                let normal = k.rounded(normal);
                let scaled = k.mul(normal, weight);
                k.write_rounded(y, piece, scaled);
            });
        });
        Ok(())
    })
}

/// [`LayerNorm`] for a GPU.
#[must_use]
pub fn layer_norm(problem: &LayerNorm) -> OnGpu<LayerNorm> {
    OnGpu::by_rows(problem, (problem.rows, problem.width), 2, |kernel, k| {
        let LayerNorm { width, eps, .. } = *kernel.problem();
        let [x, weight, bias, y] = k.arguments::<4>();
        let deal = Deal::of(width.into());
        k.for_team_row(&kernel.grid(), deal, |k, row| {
            let [x, y] = [x, y].map(|matrix| row_at(k, matrix, row, width));

            k.note("1 mean");
            let sum = sum_of(k, deal.team, width, |k, piece, sum| {
                let x = k.read_widened(x, piece);
                let x = k.sum_lanes_in_order(x);
                k.add(sum, x)
            });
            let count = k.f32(width as f32);
            let mean = k.div(sum, count);

            k.note("2 deviation, from the mean: no difference of large squares");
            let scale = inverse_deviation(k, deal.team, width, eps, |k, piece| {
                let x = k.read_widened(x, piece);
                k.sub(x, mean)
            });

            k.note("3 store");
            k.share_pieces(deal.team, width.into(), |k, piece| {
                let [x, weight, bias] = [x, weight, bias].map(|row| k.read_widened(row, piece));
                let centred = k.sub(x, mean);
                let normal = k.mul(centred, scale);
                let value = k.fma(normal, weight, bias);
                k.write_rounded(y, piece, value);
            });
        });
        Ok(())
    })
}

/// `1 / sqrt(mean + eps)` of the square of each value that `value` gives for the pieces of a row.
pub(crate) fn inverse_deviation<'c>(
    k: &mut Builder<'c>,
    team: Team,
    width: u32,
    eps: f64,
    value: impl Fn(&mut Builder<'c>, Piece<'c>) -> F32<'c>,
) -> F32<'c> {
    let sum = sum_of(k, team, width, |k, piece, sum| {
        let value = value(k, piece);
        k.lanes_of(value).into_iter().fold(sum, |sum, value| k.fma(value, value, sum))
    });
    root_of_mean(k, sum, width, eps)
}

/// `1 / sqrt(sum / width + eps)`.
pub(crate) fn root_of_mean<'c>(k: &mut Builder<'c>, sum: F32<'c>, width: u32, eps: f64) -> F32<'c> {
    let count = k.f32(width as f32);
    let mean = k.div(sum, count);
    let eps = k.f32(eps as f32);
    let mean = k.add(mean, eps);
    k.rsqrt(mean)
}

/// The sum over all pieces of a row of what `add` adds for one.
fn sum_of<'c>(
    k: &mut Builder<'c>,
    team: Team,
    width: u32,
    add: impl FnOnce(&mut Builder<'c>, Piece<'c>, F32<'c>) -> F32<'c>,
) -> F32<'c> {
    let none = k.f32(0.0);
    let mine = k.fold_shared_pieces(team, width.into(), none, add);
    k.join_team(team, mine, Builder::add)
}
