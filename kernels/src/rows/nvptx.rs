//! The kernels here for CUDA targets: a warp or a block a row, 16 bytes a thread and turn.

use sail_ir::plan::{Cost, Count, Grid};

use super::{Columns, Embed, SelectRows, Splice, Tap, index_at, row_at};
use crate::emit::gpu::{Deal, Team, piece_width};
use crate::emit::{Bf16, Builder, F32, Ptr};
use crate::gpu::OnGpu;
use crate::kernel::{EmitError, Kernel, Rows, ThreadBlock};

/// [`Embed`] for a GPU.
#[must_use]
pub fn embed(problem: &Embed) -> OnGpu<Embed> {
    OnGpu::by_rows(problem, (Rows::TOKENS, problem.width), 0, |kernel, k| {
        let width = kernel.problem().width;
        embed_rows(kernel, k, width, width);
        Ok(())
    })
}

/// `embed_packed` for CUDA targets: rows of a table whose rows start `pitch` values apart, as the
/// product with it reads them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EmbedPitched {
    pub width: u32,
    pub pitch: u32,
}

impl Kernel for EmbedPitched {
    fn family(&self) -> &'static str {
        "embed_packed"
    }

    fn symbol(&self) -> String {
        format!("embed_packed.bf16.w{}.p{}", self.width, self.pitch)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["ids", "table", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[2]
    }

    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(Deal::of(self.width.into()).rows, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn cost(&self) -> Cost {
        Cost { row_bytes: 4 * u64::from(self.width) + 4, ..Cost::default() }
    }

    fn thread_block(&self) -> Option<ThreadBlock> {
        Some(ThreadBlock::of(Deal::of(self.width.into()).threads))
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        embed_rows(self, k, self.width, self.pitch);
        Ok(())
    }
}

fn embed_rows(kernel: &dyn Kernel, k: &mut Builder<'_>, width: u32, pitch: u32) {
    let [ids, table, y] = k.arguments::<3>();
    let deal = Deal::of(width.into());
    k.for_team_row(&kernel.grid(), deal, |k, row| {
        let id = index_at(k, ids, row);
        let from = row_at(k, table, id, pitch);
        let to = row_at(k, y, row, width);
        copy(k, deal.team, [from, to], width);
    });
}

/// [`Splice`] for a GPU.
#[must_use]
pub fn splice(problem: &Splice) -> OnGpu<Splice> {
    OnGpu::by_rows(problem, (Rows::TOKENS, problem.width), 0, |kernel, k| {
        let width = kernel.problem().width;
        let [x, features, image_rows, y] = k.arguments::<4>();
        let deal = Deal::of(width.into());
        k.for_team_row(&kernel.grid(), deal, |k, row| {
            let image_row = index_at(k, image_rows, row);
            let zero = k.index(0);
            let is_text = k.less(image_row, zero);
            let from = k.choose(
                is_text,
                |k| row_at(k, x, row, width),
                |k| row_at(k, features, image_row, width),
            );
            let to = row_at(k, y, row, width);
            copy(k, deal.team, [from, to], width);
        });
        Ok(())
    })
}

/// [`SelectRows`] for a GPU.
#[must_use]
pub fn select_rows(problem: &SelectRows) -> OnGpu<SelectRows> {
    let rows = Rows { count: Count::Outputs, per: 1 };
    OnGpu::by_rows(problem, (rows, problem.width), 0, |kernel, k| {
        let width = kernel.problem().width;
        let [x, index, y] = k.arguments::<3>();
        let deal = Deal::of(width.into());
        k.for_team_row(&kernel.grid(), deal, |k, row| {
            let from = index_at(k, index, row);
            let from = row_at(k, x, from, width);
            let to = row_at(k, y, row, width);
            copy(k, deal.team, [from, to], width);
        });
        Ok(())
    })
}

/// [`Columns`] for a GPU.
#[must_use]
pub fn columns(problem: &Columns) -> OnGpu<Columns> {
    OnGpu::by_rows(problem, (problem.rows, problem.count), 0, |kernel, k| {
        let Columns { width, first, count, .. } = *kernel.problem();
        if first.checked_add(count).is_none_or(|end| end > width) {
            return Err(EmitError::no_fit(kernel, "the columns end beyond the row"));
        }
        // What divides all three divides the bits they have together.
        let piece = piece_width(u64::from(width | first | count));
        let [x, y] = k.arguments::<2>();
        let deal = Deal::of(count.into());
        k.for_team_row(&kernel.grid(), deal, |k, row| {
            let from = row_at(k, x, row, width);
            let from = k.at_bytes_constant(from, 2 * u64::from(first));
            let to = row_at(k, y, row, count);
            k.fold_pieces_of(deal.team, count.into(), piece, (), |k, piece, ()| {
                let values = k.read::<Bf16>(from, piece);
                k.write(to, piece, values);
            });
        });
        Ok(())
    })
}

/// [`Tap`] for a GPU.
#[must_use]
pub fn tap(problem: &Tap) -> OnGpu<Tap> {
    OnGpu::by_rows(problem, (problem.rows, problem.width), 0, |kernel, k| {
        let width = kernel.problem().width;
        let [x, y] = k.arguments::<2>();
        let deal = Deal::of(width.into());
        k.for_team_row(&kernel.grid(), deal, |k, row| {
            let from = row_at(k, x, row, width);
            let start = k.mul_constant(row, width.into());
            let to = k.at::<F32>(y, start);
            k.share_pieces(deal.team, width.into(), |k, piece| {
                let values = k.read_widened(from, piece);
                k.write(to, piece, values);
            });
        });
        Ok(())
    })
}

/// Copy a row of `width` bf16 values.
pub(crate) fn copy<'c>(k: &mut Builder<'c>, team: Team, [from, to]: [Ptr<'c>; 2], width: u32) {
    k.share_pieces(team, width.into(), |k, piece| {
        let values = k.read::<Bf16>(from, piece);
        k.write(to, piece, values);
    });
}
