//! The blocked product at the heart of every product family: packed rows times one weight panel.
//!
//! A panel is two vectors wide. Up to `most_rows` rows are multiplied at once with all sums in
//! registers; each step of K loads the panel's next two vectors, in strictly ascending order, and
//! one pair of each row. The sum of one output runs over K in order, whatever rows stand beside it.

use sail_ir::target::{Limits, Target};

use crate::emit::{Bf16, Builder, F32, Index, Piece, Ptr};
use crate::packing::bf16;

/// Steps of K in one turn of the inner loop.
const UNROLL: u64 = 4;

/// A product of rows of `k` values with panels, on one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Product {
    pub k: u32,
    pub lanes: u32,
    /// Rows multiplied at once.
    pub most_rows: u32,
    /// Whether packed rows are kept as f32: with 16 registers there is none to take pairs apart in.
    pub widened: bool,
}

/// Rows in the thread's workspace, ready to be multiplied.
#[derive(Debug, Clone, Copy)]
pub struct PackedRows<'c> {
    pub at: Ptr<'c>,
    pub count: Index<'c>,
}

impl Product {
    #[must_use]
    pub fn new(k: u32, target: &Target) -> Self {
        let Limits { lanes, registers, .. } = target.limits();
        // Two sums a row; what is left holds the panel's vectors and the rows' pairs.
        let (most_rows, widened) = if registers == 32 { (12, false) } else { (6, true) };
        Self { k, lanes, most_rows, widened }
    }

    /// Pairs of values in a row; the last is half empty when `k` is odd.
    #[must_use]
    pub fn pairs(&self) -> u64 {
        u64::from(self.k).div_ceil(2)
    }

    /// Bytes from one packed row to the next: an odd number of cache lines, so that the same
    /// column of many rows does not fall into one set of the cache.
    #[must_use]
    pub fn row_stride(&self) -> u64 {
        let lines = (self.pairs() * self.pair_bytes()).div_ceil(64);
        64 * (lines + u64::from(lines.is_multiple_of(2)))
    }

    /// Bytes of a pair of a packed row.
    fn pair_bytes(&self) -> u64 {
        if self.widened { 8 } else { 4 }
    }

    /// Bytes of a packed panel.
    #[must_use]
    pub fn panel_bytes(&self) -> u64 {
        self.pairs() * self.panel_width() * 4
    }

    /// Outputs of a panel.
    #[must_use]
    pub fn panel_width(&self) -> u64 {
        2 * u64::from(self.lanes)
    }

    /// Bytes of workspace for `rows` packed rows and the sums of one step.
    #[must_use]
    pub fn workspace_bytes(&self, rows: u64) -> u64 {
        self.rows_bytes(rows) + self.tile_bytes()
    }

    fn rows_bytes(&self, rows: u64) -> u64 {
        rows * self.row_stride()
    }

    fn tile_bytes(&self) -> u64 {
        u64::from(self.most_rows) * self.panel_width() * 4
    }

    /// Take the workspace for `rows` packed rows, and for the sums of one step.
    pub fn carve<'c>(&self, k: &mut Builder<'c>, rows: u64) -> [Ptr<'c>; 2] {
        [k.carve(self.rows_bytes(rows)), k.carve(self.tile_bytes())]
    }

    /// Where packed row `row` begins.
    pub fn row<'c>(&self, k: &mut Builder<'c>, rows: Ptr<'c>, row: Index<'c>) -> Ptr<'c> {
        let offset = k.mul_constant(row, self.row_stride());
        k.at_bytes(rows, offset)
    }

    /// Clear the half of the last pair that has no value, when there is one. To be called before
    /// the row's values are put there.
    pub fn pad_row<'c>(&self, k: &mut Builder<'c>, row: Ptr<'c>) {
        if self.k % 2 == 1 {
            let last = k.at_bytes_constant(row, self.pairs() * self.pair_bytes() - 4);
            let zero = k.i32(0);
            k.store(last, zero);
        }
    }

    /// Where value `column` of the packed row at `row` is.
    pub fn column<'c>(&self, k: &mut Builder<'c>, row: Ptr<'c>, column: Index<'c>) -> Ptr<'c> {
        let offset = k.mul_constant(column, self.pair_bytes() / 2);
        k.at_bytes(row, offset)
    }

    /// Put values into a packed row, or a part of one, at `piece`.
    pub fn put<'c>(&self, k: &mut Builder<'c>, row: Ptr<'c>, piece: Piece<'c>, values: Bf16<'c>) {
        if self.widened {
            let values = k.widen(values);
            k.write(row, piece, values);
        } else {
            k.write(row, piece, values);
        }
    }

    /// Multiply `rows` with the panel at `panel`; `finish` gets each row's number and its sums.
    pub fn panel<'c>(
        &self,
        k: &mut Builder<'c>,
        rows: PackedRows<'c>,
        panel: Ptr<'c>,
        tile: Ptr<'c>,
        finish: impl FnOnce(&mut Builder<'c>, Index<'c>, [F32<'c>; 2]),
    ) {
        // The loop goes by whole groups; what is left over is cut into powers of two.
        let zero = k.index(0);
        let mut sizes = vec![self.most_rows];
        sizes.extend([8, 4, 2, 1].into_iter().filter(|size| *size < self.most_rows));
        k.while_below(zero, rows.count, |k, first| {
            let left = k.sub(rows.count, first);
            let begin = self.row(k, rows.at, first);
            let done = self.largest_fitting(k, &sizes, left, begin, panel, tile);
            let end = k.add(first, done);
            k.for_each(first, end, 1, |k, row| {
                let at = k.sub(row, first);
                let sums = self.load_sums(k, tile, at);
                finish(k, row, sums);
            });
            end
        });
    }

    /// Multiply as many of `left` rows as one of `sizes` holds; gives that number.
    fn largest_fitting<'c>(
        &self,
        k: &mut Builder<'c>,
        sizes: &[u32],
        left: Index<'c>,
        begin: Ptr<'c>,
        panel: Ptr<'c>,
        tile: Ptr<'c>,
    ) -> Index<'c> {
        let (size, smaller) = sizes.split_first().expect("one row always fits");
        let whole = |k: &mut Builder<'c>| {
            self.micro(k, *size, begin, panel, tile);
            k.index(u64::from(*size))
        };
        if smaller.is_empty() {
            return whole(k);
        }
        let needed = k.index(u64::from(*size));
        let fits = k.less_equal(needed, left);
        k.choose(fits, whole, |k| self.largest_fitting(k, smaller, left, begin, panel, tile))
    }

    /// The sums of `size` rows with the panel, left in `tile`.
    fn micro<'c>(
        &self,
        k: &mut Builder<'c>,
        size: u32,
        begin: Ptr<'c>,
        panel: Ptr<'c>,
        tile: Ptr<'c>,
    ) {
        let none = k.f32s(0.0, self.lanes);
        let sums = vec![[none; 2]; size as usize];
        let even = self.pairs() - self.pairs() % UNROLL;
        let [zero, even, end] = [0, even, self.pairs()].map(|at| k.index(at));
        let sums = k.fold(zero, even, UNROLL, sums, |k, pair, mut sums| {
            for ahead in 0..UNROLL {
                let pair = k.add_constant(pair, ahead);
                sums = self.step(k, begin, panel, pair, sums);
            }
            sums
        });
        let sums =
            k.fold(even, end, 1, sums, |k, pair, sums| self.step(k, begin, panel, pair, sums));
        for (row, sums) in sums.into_iter().enumerate() {
            for (half, sum) in sums.into_iter().enumerate() {
                let vector = (2 * row + half) as u64;
                let place = k.at_bytes_constant(tile, vector * u64::from(self.lanes) * 4);
                k.store(place, sum);
            }
        }
    }

    /// One pair of each row times the panel's pair: the second value first, as `dot_bf16` does.
    fn step<'c>(
        &self,
        k: &mut Builder<'c>,
        begin: Ptr<'c>,
        panel: Ptr<'c>,
        pair: Index<'c>,
        mut sums: Vec<[F32<'c>; 2]>,
    ) -> Vec<[F32<'c>; 2]> {
        let offset = k.mul_constant(pair, self.pair_bytes());
        let column = k.at_bytes(begin, offset);
        if !self.widened {
            let weights = bf16::load_pairs(k, panel, pair);
            for (row, sums) in sums.iter_mut().enumerate() {
                let place = k.at_bytes_constant(column, row as u64 * self.row_stride());
                let x = k.load_pair_everywhere(place, self.lanes);
                *sums = [0, 1].map(|half| k.dot_bf16(sums[half], weights[half], x));
            }
            return sums;
        }
        for second in [true, false] {
            // Loaded anew for each half, since no register can keep the pairs meanwhile.
            let pairs = bf16::load_pairs(k, panel, pair);
            let weights =
                pairs.map(|w| if second { k.high_of_pairs(w) } else { k.low_of_pairs(w) });
            for (row, sums) in sums.iter_mut().enumerate() {
                let skip = row as u64 * self.row_stride() + if second { 4 } else { 0 };
                let place = k.at_bytes_constant(column, skip);
                let x = k.load::<F32>(place, 1);
                *sums = [0, 1].map(|half| k.fma(weights[half], x, sums[half]));
            }
        }
        sums
    }

    fn load_sums<'c>(&self, k: &mut Builder<'c>, tile: Ptr<'c>, row: Index<'c>) -> [F32<'c>; 2] {
        let offset = k.mul_constant(row, self.panel_width() * 4);
        let first = k.at_bytes(tile, offset);
        let second = k.at_bytes_constant(first, u64::from(self.lanes) * 4);
        [k.load::<F32>(first, self.lanes), k.load::<F32>(second, self.lanes)]
    }
}
