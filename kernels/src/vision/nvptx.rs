//! The gathers here for CUDA targets. The product of the patches is one of `linear`.

use sail_ir::plan::Count;

use super::pixel_shuffle::first_source;
use super::{Patches, PixelShuffle};
use crate::emit::gpu::{Deal, WARP};
use crate::emit::{Bf16, Index};
use crate::gpu::OnGpu;
use crate::kernel::{EmitError, Kernel, Rows, ThreadBlock};
use crate::rows::nvptx::copy;
use crate::rows::row_at;

/// Threads that gather one patch.
const PATCH_THREADS: u32 = 4 * WARP;

/// [`Patches`] for a GPU: a block a patch, neighbouring threads take neighbouring values of its row.
#[must_use]
pub fn patches(problem: &Patches) -> OnGpu<Patches> {
    let side = problem.size / problem.patch.max(1);
    let rows = Rows { count: Count::Images, per: side * side };
    let block = ThreadBlock::of(PATCH_THREADS);
    OnGpu::new(problem, rows.grid(1, 1), block, |kernel, k| {
        let Patches { channels, size, patch } = *kernel.problem();
        if patch == 0 || !size.is_multiple_of(patch) {
            return Err(EmitError::no_fit(kernel, "a tile is no whole number of patches"));
        }
        let [pixels, y] = k.arguments::<2>();
        let (size, patch) = (u64::from(size), u64::from(patch));
        let width = u64::from(channels) * patch * patch;
        k.for_this_block(&kernel.grid(), |k, block| {
            let to = row_at(k, y, block.first_row, width as u32);
            let first = kernel.problem().first_pixel(k, block.first_row);
            let from = k.at::<Bf16>(pixels, first);
            let (thread, end) = (k.thread(), k.index(width));
            k.for_each(thread, end, PATCH_THREADS.into(), |k, value| {
                // Values are in the order (channel, dy, dx).
                let line = k.div_constant(value, patch);
                let [across, down] = [k.rem_constant(value, patch), k.rem_constant(line, patch)];
                let channel = k.div_constant(line, patch);
                let [channel, down]: [Index<'_>; 2] =
                    [(channel, size * size), (down, size)].map(|(n, by)| k.mul_constant(n, by));
                let pixel = k.add(channel, down);
                let pixel = k.add(pixel, across);
                let (from, to) = (k.at::<Bf16>(from, pixel), k.at::<Bf16>(to, value));
                let pixel = k.load::<Bf16>(from, 1);
                k.store(to, pixel);
            });
        });
        Ok(())
    })
}

/// [`PixelShuffle`] for a GPU.
#[must_use]
pub fn pixel_shuffle(problem: &PixelShuffle) -> OnGpu<PixelShuffle> {
    let side = (problem.side / 2).max(1);
    let rows = Rows { count: Count::Images, per: side * side };
    OnGpu::by_rows(problem, (rows, problem.width), 0, |kernel, k| {
        let PixelShuffle { side, width } = *kernel.problem();
        if side == 0 || !side.is_multiple_of(2) {
            return Err(EmitError::no_fit(kernel, "the side of a tile is odd"));
        }
        let [x, y] = k.arguments::<2>();
        let deal = Deal::of(width.into());
        k.for_team_row(&kernel.grid(), deal, |k, row| {
            let first = first_source(k, row, side);
            let to = row_at(k, y, row, 4 * width);
            for (down, right) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let from = k.add_constant(first, u64::from(down * side + right));
                let from = row_at(k, x, from, width);
                let part = u64::from(2 * (2 * down + right)) * u64::from(width);
                let to = k.at_bytes_constant(to, part);
                copy(k, deal.team, [from, to], width);
            }
        });
        Ok(())
    })
}
