//! The kernels here for CUDA targets: 16 bytes of each operand a thread and turn.

use super::{Activation, Add, AddPositions, Function, Mul};
use crate::emit::gpu::Deal;
use crate::emit::{Builder, F32, Ptr};
use crate::gpu::OnGpu;
use crate::kernel::{Kernel, Rows};
use crate::rows::row_at;
use sail_ir::plan::Count;

/// [`Add`] for a GPU.
#[must_use]
pub fn add(problem: &Add) -> OnGpu<Add> {
    OnGpu::by_rows(problem, (problem.rows, problem.width), 0, |kernel, k| {
        pairs(kernel, kernel.problem().width, k, Builder::add);
        Ok(())
    })
}

/// [`Mul`] for a GPU.
#[must_use]
pub fn mul(problem: &Mul) -> OnGpu<Mul> {
    OnGpu::by_rows(problem, (problem.rows, problem.width), 0, |kernel, k| {
        pairs(kernel, kernel.problem().width, k, Builder::mul);
        Ok(())
    })
}

/// [`Activation`] for a GPU.
#[must_use]
pub fn activation(problem: &Activation) -> OnGpu<Activation> {
    OnGpu::by_rows(problem, (problem.rows, problem.width), 0, |kernel, k| {
        let Activation { function, width, .. } = *kernel.problem();
        let pointers = k.arguments::<2>();
        let deal = Deal::of(width.into());
        k.for_team_row(&kernel.grid(), deal, |k, row| {
            let [x, y] = pointers.map(|matrix| row_at(k, matrix, row, width));
            k.share_pieces(deal.team, width.into(), |k, piece| {
                let x = k.read_widened(x, piece);
                let value = match function {
                    Function::Silu => k.silu(x),
                    Function::Gelu => k.gelu(x),
                };
                k.write_rounded(y, piece, value);
            });
        });
        Ok(())
    })
}

/// [`AddPositions`] for a GPU.
#[must_use]
pub fn add_positions(problem: &AddPositions) -> OnGpu<AddPositions> {
    let rows = Rows { count: Count::Images, per: problem.patches };
    OnGpu::by_rows(problem, (rows, problem.width), 0, |kernel, k| {
        let AddPositions { patches, width } = *kernel.problem();
        let [x, positions, y] = k.arguments::<3>();
        let deal = Deal::of(width.into());
        k.for_team_row(&kernel.grid(), deal, |k, row| {
            let patch = k.rem_constant(row, patches.into());
            let positions = row_at(k, positions, patch, width);
            let [x, y] = [x, y].map(|matrix| row_at(k, matrix, row, width));
            combine_row(k, deal, [x, positions, y], width, Builder::add);
        });
        Ok(())
    })
}

/// Two matrices of rows of `width`, value by value, to the third.
fn pairs<'c>(
    kernel: &dyn Kernel,
    width: u32,
    k: &mut Builder<'c>,
    join: fn(&mut Builder<'c>, F32<'c>, F32<'c>) -> F32<'c>,
) {
    let pointers = k.arguments::<3>();
    let deal = Deal::of(width.into());
    k.for_team_row(&kernel.grid(), deal, |k, row| {
        let rows = pointers.map(|matrix| row_at(k, matrix, row, width));
        combine_row(k, deal, rows, width, join);
    });
}

fn combine_row<'c>(
    k: &mut Builder<'c>,
    deal: Deal,
    [x, other, y]: [Ptr<'c>; 3],
    width: u32,
    join: fn(&mut Builder<'c>, F32<'c>, F32<'c>) -> F32<'c>,
) {
    k.share_pieces(deal.team, width.into(), |k, piece| {
        let (x, other) = (k.read_widened(x, piece), k.read_widened(other, piece));
        let value = join(k, x, other);
        k.write_rounded(y, piece, value);
    });
}
