//! The product of many rows, on the matrix units that both targets have: a block computes a tile of
//! rows by weight rows, step by step along K, while copies of the next steps are under way.
//!
//! A step is 64 bytes of each row of x, and of each row of a weight as many as meet them: 32 where a
//! word holds two operands, which are made apart in registers. In shared memory its 16-byte units are
//! swapped by the number of the row, so that the eight rows of a matrix instruction's operand lie in
//! different banks.

use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::sum::Sum;
use super::weight::{bytes_of_x, expanded};
use crate::emit::gpu::{Matrices, WARP, piece_width};
use crate::emit::{Builder, I32, Index, Ptr};

/// Bytes of a row of x in one step.
const STEP: u64 = 64;

/// Bytes of one copy.
const UNIT: u64 = 16;

/// Steps in shared memory at once: one is multiplied, the others are on their way.
const STAGES: u64 = 4;

/// The shape of a block's tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Rows of x.
    pub rows: u32,
    /// Rows of the weight.
    pub columns: u32,
    /// Warps along the rows and along the columns.
    pub warps: [u32; 2],
}

impl Tile {
    const LARGE: Self = Self { rows: 128, columns: 128, warps: [2, 4] };
    const MIDDLE: Self = Self { rows: 64, columns: 128, warps: [2, 4] };
    const SMALL: Self = Self { rows: 64, columns: 64, warps: [2, 2] };

    /// Rows that a product of many rows is expected to have, at least: one image tile, a prompt.
    const EXPECTED_ROWS: u32 = 1024;

    /// The largest tile of which a product with `weight_rows` outputs, for calls of at most `most_rows`
    /// rows, gives every multiprocessor one.
    #[must_use]
    pub fn of([weight_rows, most_rows]: [u32; 2], target: &Target) -> Self {
        let processors = target.gpu().map_or(1, |limits| limits.processors);
        let fills = |tile: &Self| {
            let rows = most_rows.min(Self::EXPECTED_ROWS);
            weight_rows.div_ceil(tile.columns) * rows.div_ceil(tile.rows) >= processors
        };
        [Self::LARGE, Self::MIDDLE].into_iter().find(fills).unwrap_or(Self::SMALL)
    }

    #[must_use]
    pub const fn threads(self) -> u32 {
        self.warps[0] * self.warps[1] * WARP
    }

    /// Shared memory of all steps, which the sums take when the product is done.
    #[must_use]
    pub fn shared_bytes(self) -> u32 {
        let steps = STAGES * self.stage_bytes();
        let sums = 4 * u64::from(self.rows) * u64::from(self.columns);
        steps.max(sums) as u32
    }

    fn stage_bytes(self) -> u64 {
        STEP * u64::from(self.rows + self.columns)
    }

    /// Rows and columns of a warp.
    fn of_warp(self) -> [u32; 2] {
        [self.rows / self.warps[0], self.columns / self.warps[1]]
    }

    /// Matrices of 16 rows by 8 columns of a warp.
    fn matrices(self) -> [u32; 2] {
        let [rows, columns] = self.of_warp();
        [rows / 16, columns / 8]
    }
}

/// Rows of a matrix, along K, as they are copied to shared memory.
pub struct Side<'c, R> {
    /// Where row `i` of the tile begins; rows that a matrix lacks are any that it has.
    pub row: R,
    /// Bytes of a row that are read; what follows counts as zeros.
    pub bytes: u64,
    pub of: std::marker::PhantomData<&'c ()>,
}

impl<'c, R: Fn(&mut Builder<'c>, Index<'c>) -> Ptr<'c>> Side<'c, R> {
    pub fn new(row: R, bytes: u64) -> Self {
        Self { row, bytes, of: std::marker::PhantomData }
    }
}

/// One thread's part in copying one side of the tile.
struct Copies<'c> {
    /// Source and place in a stage of each of its units.
    units: Vec<[Ptr<'c>; 2]>,
    /// Byte of the step where its units begin.
    within: Index<'c>,
    bytes: u64,
    /// Bytes of a row in one step.
    step: u64,
}

impl<'c> Copies<'c> {
    fn new<R: Fn(&mut Builder<'c>, Index<'c>) -> Ptr<'c>>(
        k: &mut Builder<'c>,
        (shared, rows, step): (Ptr<'c>, u32, u64),
        side: &Side<'c, R>,
    ) -> Self {
        let units_per_row = step / UNIT;
        let thread = k.thread();
        let first = k.div_constant(thread, units_per_row);
        let unit = k.rem_constant(thread, units_per_row);
        let within = k.mul_constant(unit, UNIT);
        let at_once = u64::from(k.threads()) / units_per_row;
        let mut units = Vec::new();
        for pass in 0..u64::from(rows).div_ceil(at_once) {
            let row = k.add_constant(first, pass * at_once);
            let from = (side.row)(k, row);
            let from = k.at_bytes(from, within);
            let place = place_of_unit(k, row, unit, step);
            units.push([from, k.at_bytes(shared, place)]);
        }
        Self { units, within, bytes: side.bytes, step }
    }

    /// Ask for the units of step `step` in the stage that begins `stage` bytes into shared memory.
    fn ask(&self, k: &mut Builder<'c>, step: Index<'c>, stage: Index<'c>) {
        let skipped = k.mul_constant(step, self.step);
        for [from, to] in &self.units {
            let (from, to) = (k.at_bytes(*from, skipped), k.at_bytes(*to, stage));
            let left = (!self.bytes.is_multiple_of(self.step)).then(|| {
                let begin = k.add(skipped, self.within);
                let bytes = k.index(self.bytes);
                k.sub(bytes, begin)
            });
            k.copy_unit(to, from, 2 * piece_width(self.bytes / 2), left);
        }
    }
}

/// Byte of a stage's side where unit `unit` of row `row` lies, of rows of `step` bytes.
fn place_of_unit<'c>(k: &mut Builder<'c>, row: Index<'c>, unit: Index<'c>, step: u64) -> Index<'c> {
    /// Bytes after which banks repeat.
    const BANKS: u64 = 128;
    let together = k.div_constant(row, BANKS / step);
    let turn = k.rem_constant(together, step / UNIT);
    let unit = k.xor(unit, turn);
    let (row, unit) = (k.mul_constant(row, step), k.mul_constant(unit, UNIT));
    k.add(row, unit)
}

/// The sums of one thread: matrix `[m][n]` of the warp at `m · columns + n`, four values each.
pub struct Sums<'c, T> {
    tile: Tile,
    values: Vec<[T; 4]>,
    /// First row and column of the warp in the tile.
    first: [Index<'c>; 2],
}

/// The sums of the tile over the bytes of `left`, `left · rightᵀ`; `right` is a weight of the scheme.
///
/// All threads of the block come here. `shared` has the tile's `shared_bytes`, aligned to 128; it may
/// be reused after a barrier.
pub fn multiply<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    (tile, shared, scheme): (Tile, Ptr<'c>, Scheme),
    left: Side<'c, impl Fn(&mut Builder<'c>, Index<'c>) -> Ptr<'c>>,
    right: Side<'c, impl Fn(&mut Builder<'c>, Index<'c>) -> Ptr<'c>>,
) -> Sums<'c, T> {
    let steps = left.bytes.div_ceil(STEP);
    let right_shared = k.at_bytes_constant(shared, STEP * u64::from(tile.rows));
    let right_step = STEP / bytes_of_x(scheme);
    let copies = [
        Copies::new(k, (shared, tile.rows, STEP), &left),
        Copies::new(k, (right_shared, tile.columns, right_step), &right),
    ];
    let ask = |k: &mut Builder<'c>, step: Index<'c>| {
        let slot = k.rem_constant(step, STAGES);
        let stage = k.mul_constant(slot, tile.stage_bytes());
        copies.iter().for_each(|copies| copies.ask(k, step, stage));
    };

    let warp = k.warp();
    let [across, down] =
        [k.rem_constant(warp, tile.warps[1].into()), k.div_constant(warp, tile.warps[1].into())];
    let [rows, columns] = tile.of_warp();
    let first = [k.mul_constant(down, rows.into()), k.mul_constant(across, columns.into())];
    let places = Places {
        left: units(k, (shared, first[0]), false, STEP),
        right: units(k, (right_shared, first[1]), true, right_step),
    };

    for step in 0..STAGES - 1 {
        if step < steps {
            let step = k.index(step);
            ask(k, step);
        }
        k.commit_copies();
    }
    let [m, n] = tile.matrices();
    let zeros = vec![std::array::from_fn(|_| T::zero(k)); (m * n) as usize];
    let (begin, end) = (k.index(0), k.index(steps));
    let values = k.fold(begin, end, 1, zeros, |k, step, sums| {
        // The step's copies of this thread are there, and with the barrier those of all; what the
        // slot of the next copies held has been multiplied by all.
        k.wait_for_copies((STAGES - 2) as u32);
        k.barrier();
        let ahead = k.add_constant(step, STAGES - 1);
        let more = k.less(ahead, end);
        k.when(more, |k| ask(k, ahead));
        k.commit_copies();
        let slot = k.rem_constant(step, STAGES);
        let stage = k.mul_constant(slot, tile.stage_bytes());
        multiply_step(k, ([m, n], scheme), &places, stage, sums)
    });
    Sums { tile, values, first }
}

/// Where this thread's `ldmatrix` addresses begin in the first stage, for each 32 bytes of a step.
struct Places<'c> {
    left: Vec<Ptr<'c>>,
    right: Vec<Ptr<'c>>,
}

fn units<'c>(
    k: &mut Builder<'c>,
    (shared, first): (Ptr<'c>, Index<'c>),
    right: bool,
    step: u64,
) -> Vec<Ptr<'c>> {
    let [row, half] = k.matrix_row(right);
    let row = k.add(row, first);
    (0..step / UNIT)
        .step_by(2)
        .map(|unit| {
            // Units are swapped by xor: the two of a pair stay one.
            let unit = k.add_constant(half, unit);
            let place = place_of_unit(k, row, unit, step);
            k.at_bytes(shared, place)
        })
        .collect()
}

fn multiply_step<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    ([m, n], scheme): ([u32; 2], Scheme),
    places: &Places<'c>,
    stage: Index<'c>,
    mut sums: Vec<[T; 4]>,
) -> Vec<[T; 4]> {
    let matrices = |k: &mut Builder<'c>, side: Ptr<'c>, (row, step): (u32, u64)| {
        let place = k.at_bytes(side, stage);
        let place = k.at_bytes_constant(place, step * u64::from(row));
        k.load_matrices(place, Matrices::Four, false)
    };
    let right_step = STEP / bytes_of_x(scheme);
    let right = places.right.iter().map(|side| -> Vec<_> {
        (0..n / 2).map(|at| matrices(k, *side, (16 * at, right_step))).collect()
    });
    let right: Vec<_> = right.collect();
    let right: Vec<_> = right.iter().flat_map(|words| operands(k, scheme, words)).collect();
    for (left, b) in places.left.iter().zip(&right) {
        let a: Vec<_> = (0..m).map(|at| matrices(k, *left, (16 * at, STEP))).collect();
        for (row, a) in a.iter().enumerate() {
            for (column, b) in b.iter().enumerate() {
                let sum = &mut sums[row * n as usize + column];
                *sum = T::multiply(k, *sum, [a[0], a[1], a[2], a[3]], *b);
            }
        }
    }
    sums
}
/// The right operands that 32 bytes of weight rows hold, 16 rows in four words: for each 32 bytes of x,
/// those of each eight of columns.
fn operands<'c>(
    k: &mut Builder<'c>,
    scheme: Scheme,
    words: &[Vec<I32<'c>>],
) -> Vec<Vec<[I32<'c>; 2]>> {
    let pairs = words.iter().flat_map(|words| words.chunks_exact(2));
    if bytes_of_x(scheme) == 1 {
        return vec![pairs.map(|pair| [pair[0], pair[1]]).collect()];
    }
    let halves = [0, 1].map(|half| -> Vec<_> {
        pairs.clone().map(|pair| expanded(k, scheme, pair[half])).collect()
    });
    halves.into()
}

impl<'c, T: Sum<'c>> Sums<'c, T> {
    /// Run `body` with each pair of neighbouring columns: row and first column in the tile.
    pub fn each_pair(
        self,
        k: &mut Builder<'c>,
        mut body: impl FnMut(&mut Builder<'c>, [Index<'c>; 2], [T; 2]),
    ) {
        let [_, n] = self.tile.matrices();
        let lane = k.lane_id();
        let row = k.div_constant(lane, 4);
        let column = k.rem_constant(lane, 4);
        let column = k.mul_constant(column, 2);
        let [row, column] = [k.add(row, self.first[0]), k.add(column, self.first[1])];
        for (at, sums) in self.values.iter().enumerate() {
            let (down, across) = (at as u64 / u64::from(n), at as u64 % u64::from(n));
            let column = k.add_constant(column, 8 * across);
            for half in 0..2 {
                let row = k.add_constant(row, 16 * down + 8 * half as u64);
                body(k, [row, column], [sums[2 * half], sums[2 * half + 1]]);
            }
        }
    }
}
