//! The inner kernel of attention for CUDA targets: a warp holds 16 query vectors (one head of one row
//! each) against runs of positions that stand in shared memory, one after the other, the softmax
//! carried along in registers.
//!
//! Scores are products of 16 vectors by the keys of a run; as they stand in the threads, the weights they become
//! are the left side of the product with the values. Rows of shared memory are 16 bytes longer than
//! what they hold: eight of them then lie in different banks.

use crate::emit::gpu::{Matrices, piece_width};
use crate::emit::{Builder, F32, I32, Index, Ptr};

/// Positions of a page.
pub const PAGE: u64 = sail_ir::plan::PAGE_POSITIONS as u64;

/// Query vectors of a warp.
pub const VECTORS: u32 = 16;

const UNIT: u64 = 16;

/// Sizes of the rows that stand in shared memory.
#[derive(Debug, Clone, Copy)]
pub struct Flash {
    pub head_dim: u32,
    /// Positions of a run: a multiple of 16 that divides a page.
    pub positions: u64,
}

/// What a warp has of its vectors: sums of weighted values (tile `d` of eight values: rows g and g + 8),
/// and of rows g and g + 8 the largest score and this thread's part of the sum of weights.
pub type State<'c> = (Vec<[F32<'c>; 4]>, [F32<'c>; 2], [F32<'c>; 2]);

/// Rows in memory that are brought to shared memory together.
#[derive(Clone, Copy)]
pub struct Source<'c> {
    pub first: Ptr<'c>,
    /// Bytes from one row to the next.
    pub stride: u64,
    /// Bytes that every row is aligned to, at most 16.
    pub piece: u32,
    /// Rows that there are; the others count as zeros.
    pub rows: Index<'c>,
}

impl Flash {
    /// Runs of whole pages.
    #[must_use]
    pub fn of_pages(head_dim: u32) -> Self {
        Self { head_dim, positions: PAGE }
    }

    /// Values of a row, the last ones zeros.
    #[must_use]
    pub fn padded(self) -> u64 {
        u64::from(self.head_dim).next_multiple_of(16)
    }

    #[must_use]
    pub fn row_bytes(self) -> u64 {
        2 * self.padded() + UNIT
    }

    /// Bytes of the keys or the values of a run.
    #[must_use]
    pub fn run_bytes(self) -> u64 {
        self.positions * self.row_bytes()
    }

    /// Bytes that heads side by side are aligned to.
    #[must_use]
    pub fn piece(self) -> u32 {
        2 * piece_width(self.head_dim.into())
    }

    /// What a score is multiplied by to be an exponent of two.
    pub fn scale(self) -> f32 {
        (std::f64::consts::LOG2_E / f64::from(self.head_dim).sqrt()) as f32
    }

    /// Ask for 16 bytes each of a row, by `threads` threads of which this is number `thread`: `row`
    /// gives a row's place in memory and how much of it there is.
    pub fn ask_rows<'c>(
        self,
        k: &mut Builder<'c>,
        (thread, threads): (Index<'c>, u32),
        (to, rows, piece): (Ptr<'c>, u64, u32),
        row: impl FnOnce(&mut Builder<'c>, Index<'c>) -> (Ptr<'c>, Option<Index<'c>>),
    ) {
        let units = 2 * self.padded() / UNIT;
        let end = k.index(rows * units);
        k.for_each(thread, end, threads.into(), |k, at| {
            let (number, unit) = (k.div_constant(at, units), k.rem_constant(at, units));
            let skipped = k.mul_constant(unit, UNIT);
            let (from, has) = row(k, number);
            let from = k.at_bytes(from, skipped);
            let bytes = 2 * u64::from(self.head_dim);
            let left = (has.is_some() || bytes != 2 * self.padded()).then(|| {
                let bytes = has.unwrap_or_else(|| k.index(bytes));
                k.sub(bytes, skipped)
            });
            let to_row = k.mul_constant(number, self.row_bytes());
            let to = k.at_bytes(to, to_row);
            let to = k.at_bytes(to, skipped);
            k.copy_unit(to, from, piece, left);
        });
    }

    /// Ask for the rows of a run. Rows that there are not are zeros: whatever weight nothing has, it
    /// is nothing.
    pub fn ask_run<'c>(
        self,
        k: &mut Builder<'c>,
        team: (Index<'c>, u32),
        to: Ptr<'c>,
        source: Source<'c>,
    ) {
        self.ask_rows(k, team, (to, self.positions, source.piece), |k, row| {
            let start = k.mul_constant(row, source.stride);
            let from = k.at_bytes(source.first, start);
            let has = k.less(row, source.rows);
            let (bytes, none) = (k.index(2 * u64::from(self.head_dim)), k.index(0));
            (from, Some(k.select(has, bytes, none)))
        });
    }

    /// Nothing seen.
    pub fn open<'c>(self, k: &mut Builder<'c>) -> State<'c> {
        let zero = k.f32(0.0);
        let least = k.f32(f32::NEG_INFINITY);
        (vec![[zero; 4]; self.padded() as usize / 8], [least; 2], [zero; 2])
    }

    /// Address of this thread's row of matrices of 16 rows: the left side's order of [`Matrices::Four`],
    /// or the right side's.
    fn lane_place<'c>(self, k: &mut Builder<'c>, rows: Ptr<'c>, right: bool) -> Ptr<'c> {
        let [row, half] = k.matrix_row(right);
        let (row, half) = (k.mul_constant(row, self.row_bytes()), k.mul_constant(half, UNIT));
        let place = k.add(row, half);
        k.at_bytes(rows, place)
    }

    /// Weights of the run at `keys` for the vectors at `queries`, as operands for the values, and the
    /// state that values may be added to. `seen` is the number in the run of the last position that
    /// rows g and g + 8 see; less than 0 for none. `scales` are those of the keys and of the values
    /// (f32), where they have some: the former meet the scores, the latter the weights before these are
    /// rounded.
    pub fn weigh<'c>(
        self,
        k: &mut Builder<'c>,
        ([queries, keys], scales): ([Ptr<'c>; 2], Option<[Ptr<'c>; 2]>),
        seen: [I32<'c>; 2],
        (mut sums, most, mut totals): State<'c>,
    ) -> (Vec<[I32<'c>; 4]>, State<'c>) {
        let queries = self.lane_place(k, queries, false);
        let keys = self.lane_place(k, keys, true);
        let zero = k.f32(0.0);
        let mut scores = vec![[zero; 4]; self.positions as usize / 8];
        for step in 0..self.padded() / 16 {
            let place = k.at_bytes_constant(queries, 32 * step);
            let a = k.load_matrices(place, Matrices::Four, false);
            for pair in 0..self.positions / 16 {
                let place = k.at_bytes_constant(keys, 16 * pair * self.row_bytes() + 32 * step);
                let b = k.load_matrices(place, Matrices::Four, false);
                for half in 0..2 {
                    let score = &mut scores[2 * pair as usize + half];
                    let b = [b[2 * half], b[2 * half + 1]];
                    *score = k.matrix_bf16(*score, [a[0], a[1], a[2], a[3]], b);
                }
            }
        }

        let lane = k.lane_id();
        let q = k.rem_constant(lane, 4);
        let first = k.mul_constant(q, 2);
        let column = k.i32_of(first);
        let scales_of = |k: &mut Builder<'c>, which: usize, tile: usize| {
            scales.map(|scales| {
                let place = k.at::<F32>(scales[which], first);
                let place = k.at_bytes_constant(place, 32 * tile as u64);
                let both = k.load_whole::<F32>(place, 2);
                k.lanes_of(both)
            })
        };
        let least = k.f32(f32::NEG_INFINITY);
        let mut newest = most;
        for (tile, score) in scores.iter_mut().enumerate() {
            let scales = scales_of(k, 0, tile);
            for (at, score) in score.iter_mut().enumerate() {
                if let Some(scales) = &scales {
                    *score = k.mul(*score, scales[at % 2]);
                }
                let position = k.i32(8 * tile as i32 + at as i32 % 2);
                let position = k.add(column, position);
                let visible = k.less_equal(position, seen[at / 2]);
                *score = k.select(visible, *score, least);
                newest[at / 2] = k.max(*score, newest[at / 2]);
            }
        }
        let scale = k.f32(self.scale());
        let mut weights = vec![[zero; 4]; scores.len()];
        for row in 0..2 {
            newest[row] = k.join_lanes(newest[row], 4, Builder::max);
            // Where nothing was seen yet, nothing is subtracted: no difference of infinities.
            let nothing = k.equal(newest[row], least);
            let base = k.select(nothing, zero, newest[row]);
            let base = k.mul(base, scale);
            let base = k.neg(base);
            let shrunk = k.fma(most[row], scale, base);
            let shrunk = k.exp2_approx(shrunk);
            totals[row] = k.mul(totals[row], shrunk);
            for sums in &mut sums {
                for sum in &mut sums[2 * row..2 * row + 2] {
                    *sum = k.mul(*sum, shrunk);
                }
            }
            for (score, weight) in scores.iter().zip(&mut weights) {
                for at in [2 * row, 2 * row + 1] {
                    let exponent = k.fma(score[at], scale, base);
                    weight[at] = k.exp2_approx(exponent);
                    totals[row] = k.add(totals[row], weight[at]);
                }
            }
        }
        for (tile, weight) in weights.iter_mut().enumerate() {
            let Some(scales) = scales_of(k, 1, tile) else { break };
            for (at, weight) in weight.iter_mut().enumerate() {
                *weight = k.mul(*weight, scales[at % 2]);
            }
        }
        let operands = weights
            .chunks_exact(2)
            .map(|pair| {
                let [first, second] = [pair[0], pair[1]];
                [
                    k.round_pair(first[0], first[1]),
                    k.round_pair(first[2], first[3]),
                    k.round_pair(second[0], second[1]),
                    k.round_pair(second[2], second[3]),
                ]
            })
            .collect();
        (operands, (sums, newest, totals))
    }

    /// Add the weighted values of a run.
    pub fn add_values<'c>(
        self,
        k: &mut Builder<'c>,
        values: Ptr<'c>,
        weights: &[[I32<'c>; 4]],
        (mut sums, most, totals): State<'c>,
    ) -> State<'c> {
        // Turned while they are read, the rows are the columns of the right side.
        let values = self.lane_place(k, values, false);
        for (step, a) in weights.iter().enumerate() {
            for pair in 0..self.padded() / 16 {
                let skipped = 16 * step as u64 * self.row_bytes() + 32 * pair;
                let place = k.at_bytes_constant(values, skipped);
                let b = k.load_matrices(place, Matrices::Four, true);
                for half in 0..2 {
                    let sum = &mut sums[2 * pair as usize + half];
                    *sum = k.matrix_bf16(*sum, *a, [b[2 * half], b[2 * half + 1]]);
                }
            }
        }
        (sums, most, totals)
    }

    /// Sums of weights of rows g and g + 8, of all threads that share them.
    pub fn totals<'c>(self, k: &mut Builder<'c>, state: &State<'c>) -> [F32<'c>; 2] {
        state.2.map(|total| k.join_lanes(total, 4, Builder::add))
    }

    /// Run `body` for each pair of neighbouring values that this thread has: which of rows g and g + 8,
    /// the first value's number, the sums. Pairs beyond the head are left out.
    pub fn each_pair<'c>(
        self,
        k: &mut Builder<'c>,
        state: &State<'c>,
        mut body: impl FnMut(&mut Builder<'c>, usize, Index<'c>, [F32<'c>; 2]),
    ) {
        let lane = k.lane_id();
        let q = k.rem_constant(lane, 4);
        let column = k.mul_constant(q, 2);
        for (tile, sums) in state.0.iter().enumerate() {
            let column = k.add_constant(column, 8 * tile as u64);
            for row in 0..2 {
                let pair = [sums[2 * row], sums[2 * row + 1]];
                if 8 * (tile as u32 + 1) <= self.head_dim {
                    body(k, row, column, pair);
                    continue;
                }
                let end = k.index(self.head_dim.into());
                let inside = k.less(column, end);
                k.when(inside, |k| body(k, row, column, pair));
            }
        }
    }

    /// This thread's rows g and g + 8 of its warp.
    pub fn rows<'c>(self, k: &mut Builder<'c>) -> [Index<'c>; 2] {
        let lane = k.lane_id();
        let g = k.div_constant(lane, 4);
        [g, k.add_constant(g, 8)]
    }
}
