//! Kernels that pick, place or copy rows. They compute nothing.
//!
//! Floor: every byte read once and written once.

pub mod columns;
pub mod embed;
pub mod embed_packed;
pub mod nvptx;
pub mod select_rows;
pub mod splice;
pub mod tap;

pub use columns::Columns;
pub use embed::Embed;
pub use embed_packed::EmbedPacked;
pub use nvptx::EmbedPitched;
pub use select_rows::SelectRows;
pub use splice::Splice;
pub use tap::Tap;

use crate::emit::{Bf16, Builder, I32, Index, Ptr};

/// Rows of one work item of the kernels here.
const ROWS_PER_BLOCK: u32 = 16;

/// Row `index` of a bf16 matrix of `width` columns.
pub(crate) fn row_at<'c>(
    k: &mut Builder<'c>,
    base: Ptr<'c>,
    index: Index<'c>,
    width: u32,
) -> Ptr<'c> {
    let start = k.mul_constant(index, u64::from(width));
    k.at::<Bf16>(base, start)
}

/// Copy `width` bf16 values.
pub(crate) fn copy<'c>(k: &mut Builder<'c>, from: Ptr<'c>, to: Ptr<'c>, width: u32) {
    k.for_each_piece(u64::from(width), |k, piece| {
        let values = k.read::<Bf16>(from, piece);
        k.write(to, piece, values);
    });
}

/// Element `index` of an i32 array, as an index.
pub(crate) fn index_at<'c>(k: &mut Builder<'c>, array: Ptr<'c>, index: Index<'c>) -> Index<'c> {
    let place = k.at::<I32>(array, index);
    let value = k.load::<I32>(place, 1);
    k.index_of(value)
}
