//! The product of many rows, on the matrix units that both targets have: a block computes a tile of
//! rows by weight rows, step by step along K, while copies of the next steps are under way.
//!
//! A step is 64 bytes of each row of x, and of each row of a weight as many as meet them: half of that
//! where a word holds two operands, which are made apart in registers. With groups along K a step is a
//! group, and its words come with it. In shared memory the 16-byte units of a step are swapped by the
//! number of the row, so that the eight rows of a matrix instruction's operand lie in different banks.

use sail_ir::scheme::Scheme;

use super::sum::Sum;
use super::weight::{self, bytes_of_x, expanded, has_groups, scale_of, zero_of};
use crate::emit::gpu::{Matrices, WARP, piece_width};
use crate::emit::{Bool, Builder, I32, Index, Ptr};
use crate::packing::rows::RUN;

/// Bytes of the words of a group of a run of weight rows.
const WORDS: u64 = 4 * RUN as u64;

/// Bytes of one copy.
const UNIT: u64 = 16;

/// Steps in shared memory at once: one is multiplied, the others are on their way.
const STAGES: u64 = 4;

/// The shape of a block's tile: [`crate::gpu_model::Tiled`] chooses.
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
    pub(crate) const LARGE: Self = Self { rows: 128, columns: 128, warps: [2, 4] };
    pub(crate) const MIDDLE: Self = Self { rows: 64, columns: 128, warps: [2, 4] };
    pub(crate) const SMALL: Self = Self { rows: 64, columns: 64, warps: [2, 2] };

    #[must_use]
    pub const fn threads(self) -> u32 {
        self.warps[0] * self.warps[1] * WARP
    }

    /// Shared memory of all steps of a product with a weight of `scheme`, which the sums take when the product is done.
    #[must_use]
    pub fn shared_bytes(self, scheme: Scheme) -> u32 {
        let steps = STAGES * self.stage(scheme).bytes();
        let sums = 4 * u64::from(self.rows) * u64::from(self.columns);
        steps.max(sums) as u32
    }

    fn stage(self, scheme: Scheme) -> Stage {
        let left_step = if has_groups(scheme) { Scheme::GROUP } else { 64 };
        Stage { tile: self, scheme, left_step, right_step: left_step / bytes_of_x(scheme) }
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

/// A step in shared memory: rows of x, of the weight, then the words of the group's runs.
#[derive(Clone, Copy)]
struct Stage {
    tile: Tile,
    scheme: Scheme,
    /// Bytes of a row of x in one step, and of a weight row.
    left_step: u64,
    right_step: u64,
}

impl Stage {
    fn right(self) -> u64 {
        self.left_step * u64::from(self.tile.rows)
    }

    fn words(self) -> u64 {
        self.right() + self.right_step * u64::from(self.tile.columns)
    }

    fn runs(self) -> u32 {
        if has_groups(self.scheme) { self.tile.columns / RUN } else { 0 }
    }

    fn bytes(self) -> u64 {
        self.words() + WORDS * u64::from(self.runs())
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
    /// Does it copy at all, where there are more threads than units?
    copies: Option<Bool<'c>>,
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
        let copies = (u64::from(rows) < at_once).then(|| {
            let rows = k.index(rows.into());
            k.less(first, rows)
        });
        let mut units = Vec::new();
        for pass in 0..u64::from(rows).div_ceil(at_once) {
            let row = k.add_constant(first, pass * at_once);
            let from = (side.row)(k, row);
            let from = k.at_bytes(from, within);
            let place = place_of_unit(k, row, unit, step);
            units.push([from, k.at_bytes(shared, place)]);
        }
        Self { units, copies, within, bytes: side.bytes, step }
    }

    /// Ask for the units of step `step` in the stage that begins `stage` bytes into shared memory.
    fn ask(&self, k: &mut Builder<'c>, step: Index<'c>, stage: Index<'c>) {
        match self.copies {
            None => self.copy(k, step, stage),
            Some(copies) => k.when(copies, |k| self.copy(k, step, stage)),
        }
    }

    fn copy(&self, k: &mut Builder<'c>, step: Index<'c>, stage: Index<'c>) {
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
pub(super) fn place_of_unit<'c>(
    k: &mut Builder<'c>,
    row: Index<'c>,
    unit: Index<'c>,
    step: u64,
) -> Index<'c> {
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

/// The sums of the tile over the bytes of `left`, `left · rightᵀ`.
///
/// All threads of the block come here. `shared` has the tile's `shared_bytes`, aligned to 128; it may
/// be reused after a barrier.
pub fn multiply<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    (tile, shared): (Tile, Ptr<'c>),
    left: Side<'c, impl Fn(&mut Builder<'c>, Index<'c>) -> Ptr<'c>>,
    right: &weight::Rows<'c>,
) -> Sums<'c, T> {
    let layout = tile.stage(right.scheme);
    let steps = left.bytes.div_ceil(layout.left_step);
    let right_shared = k.at_bytes_constant(shared, layout.right());
    let words_shared = k.at_bytes_constant(shared, layout.words());
    let rows = Side::new(|k: &mut _, row| right.row(k, row), right.row_bytes());
    let mut copies = vec![
        Copies::new(k, (shared, tile.rows, layout.left_step), &left),
        Copies::new(k, (right_shared, tile.columns, layout.right_step), &rows),
    ];
    if layout.runs() > 0 {
        let words = Side::new(|k: &mut _, run| right.words(k, run), right.words_bytes());
        copies.push(Copies::new(k, (words_shared, layout.runs(), WORDS), &words));
    }
    let ask = |k: &mut Builder<'c>, step: Index<'c>| {
        let slot = k.rem_constant(step, STAGES);
        let stage = k.mul_constant(slot, layout.bytes());
        copies.iter().for_each(|copies| copies.ask(k, step, stage));
    };

    let warp = k.warp();
    let [across, down] =
        [k.rem_constant(warp, tile.warps[1].into()), k.div_constant(warp, tile.warps[1].into())];
    let [rows, columns] = tile.of_warp();
    let first = [k.mul_constant(down, rows.into()), k.mul_constant(across, columns.into())];
    let places = Places {
        left: units(k, (shared, first[0]), false, layout.left_step),
        right: units(k, (right_shared, first[1]), true, layout.right_step),
        words: (layout.runs() > 0).then_some(Words { place: words_shared, first: first[1] }),
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
        let stage = k.mul_constant(slot, layout.bytes());
        multiply_step(k, layout, &places, stage, sums)
    });
    Sums { tile, values, first }
}

/// Where this thread's `ldmatrix` addresses begin in the first stage, for each 32 bytes of a step, and
/// where it finds the words of its columns.
struct Places<'c> {
    left: Vec<Ptr<'c>>,
    right: Vec<Ptr<'c>>,
    words: Option<Words<'c>>,
}

/// The words of groups in the first stage.
struct Words<'c> {
    place: Ptr<'c>,
    /// First column of the warp.
    first: Index<'c>,
}

impl<'c> Words<'c> {
    /// The word of the column that is number `within` of eight from column `eight · 8` of the warp on,
    /// and of those after it.
    fn of(
        &self,
        k: &mut Builder<'c>,
        stage: Index<'c>,
        (eight, within): (u32, Index<'c>),
        count: u32,
    ) -> I32<'c> {
        let column = k.add_constant(self.first, 8 * u64::from(eight));
        let column = k.add(column, within);
        let [run, row] = [k.div_constant(column, RUN.into()), k.rem_constant(column, RUN.into())];
        let [unit, word] = [k.div_constant(row, 4), k.rem_constant(row, 4)];
        let unit = place_of_unit(k, run, unit, WORDS);
        let place = k.at_bytes(self.place, stage);
        let place = k.at_bytes(place, unit);
        let place = k.at::<I32>(place, word);
        k.load_whole::<I32>(place, count)
    }
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
    layout: Stage,
    places: &Places<'c>,
    stage: Index<'c>,
    mut sums: Vec<[T; 4]>,
) -> Vec<[T; 4]> {
    let [m, n] = layout.tile.matrices();
    let matrices = |k: &mut Builder<'c>, side: Ptr<'c>, (row, step): (u32, u64)| {
        let place = k.at_bytes(side, stage);
        let place = k.at_bytes_constant(place, step * u64::from(row));
        k.load_matrices(place, Matrices::Four, false)
    };
    let right = places.right.iter().map(|side| -> Vec<_> {
        (0..n / 2).map(|at| matrices(k, *side, (16 * at, layout.right_step))).collect()
    });
    let right: Vec<_> = right.collect();
    let Some(words) = &places.words else {
        let right = right.iter().flat_map(|words| operands(k, layout.scheme, words));
        let right: Vec<_> = right.collect();
        for (left, b) in places.left.iter().zip(&right) {
            for row in 0..m {
                let a = matrices(k, *left, (16 * row, layout.left_step));
                for (column, b) in b.iter().enumerate() {
                    let sum = &mut sums[row as usize * n as usize + column];
                    *sum = T::multiply(k, layout.scheme, *sum, [a[0], a[1], a[2], a[3]], *b);
                }
            }
        }
        return sums;
    };
    let a = (0..m).map(|row| -> Vec<_> {
        let lefts = places.left.iter();
        lefts.map(|left| matrices(k, *left, (16 * row, layout.left_step))).collect()
    });
    let a: Vec<_> = a.collect();
    let lane = k.lane_id();
    let [within, pair] = [k.div_constant(lane, 4), k.rem_constant(lane, 4)];
    let pair = k.mul_constant(pair, 2);
    for column in 0..n {
        let word = words.of(k, stage, (column, within), 1);
        let zero = Some(zero_of(k, word));
        let b = right.iter().flat_map(|right| {
            let words = &right[column as usize / 2][2 * (column as usize % 2)..][..2];
            [words[0], words[1]].map(|word| expanded(k, layout.scheme, word, zero))
        });
        let b: Vec<_> = b.collect();
        let scales = words.of(k, stage, (column, pair), 2);
        let scales = k.lanes_of(scales);
        let [first, second] = [0, 1].map(|at| scale_of(k, scales[at]));
        for (row, a) in a.iter().enumerate() {
            let none = [k.i32(0); 4];
            let group = a.iter().zip(&b).fold(none, |group, (a, b)| {
                let a = [a[0], a[1], a[2], a[3]];
                <I32<'_> as Sum<'_>>::multiply(k, layout.scheme, group, a, *b)
            });
            let sum = &mut sums[row * n as usize + column as usize];
            *sum = T::add_group(k, *sum, group, [first, second, first, second]);
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
        pairs.clone().map(|pair| expanded(k, scheme, pair[half], None)).collect()
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
