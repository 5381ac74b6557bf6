//! The router: how its product is cut, and how many blocks share it.

use sail_ir::target::Target;

use super::Chip;
use crate::linear::nvptx::Sizes;
use crate::linear::nvptx::few::{Few, ROWS};
use crate::packing::rows::RUN;

/// The shape of [`crate::experts::Router`] for calls of at most `most_rows` rows; `None` where the target
/// is no CUDA target. `beside` are bytes of shared memory that it needs besides the product's.
///
/// A warp for each row of a block, so that the experts of all are chosen at once. Few rows are one block's,
/// shared by as many blocks as there are runs of 16 experts: each has its part of the weight on its way
/// before the rows are there. Of many rows the blocks share a run of rows as long as there are
/// multiprocessors for them; beyond that each would norm the same rows again.
pub(crate) fn router(
    sizes: &Sizes,
    most_rows: u32,
    beside: impl Fn(u32) -> u32,
    target: &Target,
) -> Option<Few> {
    let chip = Chip::of(target)?;
    let rows = if most_rows <= ROWS { ROWS } else { 2 * ROWS };
    let runs = sizes.weight_rows() / RUN;
    let together = (chip.processors / most_rows.div_ceil(rows)).max(1);
    let blocks = (1 << together.ilog2()).min(runs);
    let (warps, eights) = (rows, rows / ROWS);
    let few =
        Few { warps, runs: 1, eights, most: rows, keeps: true, blocks_per_processor: 1, blocks };
    let room = target.gpu()?.shared_bytes;
    let fits = few.shared_bytes(sizes) + beside(rows) <= room;
    Some(Few { keeps: fits, ..few })
}
