//! The product of few rows: every byte of the weight is read once, and reading it is all there is.
//!
//! A block takes one or two runs of 16 weight rows, which are the 16 rows of a matrix instruction, and
//! the rows of x are its 8 columns: eight rows cost what one does. Its warps share out K by lines of
//! 128 bytes; each thread reads the operands of its matrices straight from memory, 16 bytes at a time,
//! the next lines before the last ones are multiplied. Since both sides take the same elements, that
//! they are not those the instruction numbers so does not matter. What the warps summed up is joined
//! in their order.
//!
//! There are as many blocks as the multiprocessors hold, so that what is done to the rows of x is done
//! once for many runs; a block asks for the first lines of its next runs before it joins the sums of
//! the last ones.

use super::Sizes;
use super::kept::Kept;
use super::measure::Statistics;
use crate::emit::gpu::WARP;
use crate::emit::{Builder, Index, Ptr};
use crate::packing::rows::RUN;
use crate::rows::index_at;

/// Bytes of a weight row that a warp takes at a time.
pub(crate) const LINE: u64 = 128;

/// Bytes of one access.
pub(super) const UNIT: u64 = 16;

/// Rows of x in one matrix instruction.
pub(crate) const ROWS: u32 = 8;

/// Warps that share a multiprocessor, where a thread has few registers and where it has many.
pub(crate) const LIGHT: u32 = 16;
pub(crate) const HEAVY: u32 = 8;

/// Registers for weights that are on their way, in either case.
const REGISTERS: [u32; 2] = [32, 96];

/// How a product of few rows is shared out: [`crate::gpu_model::FewRows`] chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Few {
    /// Warps of a block, which share K.
    pub warps: u32,
    /// Runs of 16 weight rows that a block takes at once.
    pub runs: u32,
    /// Eights of rows of x.
    pub eights: u32,
    /// Most rows of x.
    pub most: u32,
    /// Are their operands kept in shared memory? They are where there is room for them.
    pub keeps: bool,
    /// Blocks that should share a multiprocessor: their warps hide each other's waiting, as far as
    /// there are registers and shared memory.
    pub blocks_per_processor: u32,
    /// Blocks: one for each of so many runs, or as many as are at work at once.
    pub blocks: u32,
}

impl Few {
    #[must_use]
    pub const fn threads(self) -> u32 {
        self.warps * WARP
    }

    /// Rows of x of a block.
    #[must_use]
    pub const fn rows(self) -> u32 {
        ROWS * self.eights
    }

    /// Weight rows of a block at once.
    #[must_use]
    pub const fn columns(self) -> u32 {
        RUN * self.runs
    }

    /// Lines that are on their way while one is multiplied.
    pub(super) fn ahead(self, lines: u64) -> u64 {
        let heavy = self.warps * self.blocks_per_processor < LIGHT;
        let line = 16 * self.runs;
        u64::from(REGISTERS[usize::from(heavy)] / line).min(lines)
    }

    /// Sums from one row to the next in shared memory: rows that a warp stores at once begin in
    /// different banks.
    pub(super) const fn stride(self) -> u32 {
        self.columns() + 4
    }

    /// Places of sums: with two, the next ones are put while the last ones are still read.
    pub(super) const fn places(self) -> u64 {
        if self.eights == 1 { 2 } else { 1 }
    }

    pub(super) fn sums_bytes(self) -> u64 {
        4 * u64::from(self.warps * self.rows() * self.stride())
    }

    #[must_use]
    pub(crate) fn shared_bytes(self, sizes: &Sizes) -> u32 {
        let kept = if self.keeps { self.most } else { 0 };
        let kept = u64::from(kept) * Kept::row_bytes(&sizes.input());
        let sums = self.places() * self.sums_bytes();
        (sums + kept + Statistics::bytes(self.rows())) as u32
    }
}

/// Rows of x that a block has.
#[derive(Clone, Copy)]
pub struct Rows<'c> {
    pub x: Ptr<'c>,
    /// The first of them: a row of x, or of `order`.
    pub first: Index<'c>,
    pub count: Index<'c>,
    /// Which rows of x they are, where that is not their own number.
    pub order: Option<Order<'c>>,
}

/// Rows by a list of pairs, so many of which belong to one row of x: row `r` is row `pairs[r] / per`.
#[derive(Clone, Copy)]
pub struct Order<'c> {
    pub pairs: Ptr<'c>,
    pub per: u32,
}

impl<'c> Order<'c> {
    /// The row of x that is row `row`.
    pub fn of(self, k: &mut Builder<'c>, row: Index<'c>) -> Index<'c> {
        let pair = index_at(k, self.pairs, row);
        k.div_constant(pair, self.per.into())
    }
}

impl<'c> Rows<'c> {
    /// The row of x that is row `row` of these.
    pub fn of_x(self, k: &mut Builder<'c>, row: Index<'c>) -> Index<'c> {
        let row = k.add(row, self.first);
        match self.order {
            None => row,
            Some(order) => order.of(k, row),
        }
    }
}
