//! The product of few rows: every byte of the weight is read once, and reading it is all there is.
//!
//! A block takes one or two runs of 16 weight rows, which are the 16 rows of a matrix instruction, and
//! the rows of x are its 8 columns: eight rows cost what one does. Its warps share out K by lines of
//! 128 bytes; each thread reads the operands of its matrices straight from memory, 16 bytes at a time,
//! the next lines before the last ones are multiplied. Since both sides take the same elements, that
//! they are not those the instruction numbers so does not matter. What the warps summed up is joined
//! in their order.

use std::collections::VecDeque;

use super::finish::{GroupPart, Outputs};
use super::input::{Input, Place, Statistics};
use super::sum::Sum;
use super::{Arguments, Sizes, weight};
use crate::emit::gpu::{Cache, WARP};
use crate::emit::{Bf16, Block, Builder, F32, I32, Index, Ptr};
use crate::packing::rows::RUN;
use sail_ir::target::Target;

/// Bytes of a weight row that a warp takes at a time.
const LINE: u64 = 128;

/// Bytes of a row that four neighbouring threads read with one access each.
const HALF: u64 = 64;

/// Bytes of one access.
const UNIT: u64 = 16;

/// Rows of x in one matrix instruction.
const ROWS: u32 = 8;

/// Registers for operands that are on their way, where 16 warps share a multiprocessor and where 8 do.
const REGISTERS: [u32; 2] = [80, 128];

/// Most registers of the operands of one line with which 16 warps fit.
const LIGHT: u32 = 48;

/// Most registers of the operands of one line of which two can be on their way.
const HEAVIEST: u32 = 96;

/// Most registers of the operands of one line with which x comes as early as the weights.
const EARLY: u32 = 80;

/// How a product of few rows is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Few {
    /// Warps of a block, which share K.
    pub warps: u32,
    /// Runs of 16 weight rows of a block.
    pub runs: u32,
    /// Eights of rows of x.
    pub eights: u32,
}

impl Few {
    /// More rows than this are better off with tiles.
    pub const MOST_ROWS: u32 = 32;

    /// For at most `rows` rows; `None` where they are too many.
    #[must_use]
    pub(crate) fn of(sizes: &Sizes, rows: u32, target: &Target) -> Option<Self> {
        if rows > Self::MOST_ROWS {
            return None;
        }
        let processors = target.gpu()?.processors;
        let runs = sizes.weight_rows() / RUN;
        let pairs = runs.is_multiple_of(2) && runs / 2 >= 2 * processors;
        let lines = sizes.pitch() / LINE;
        let warps = [8, 4, 2].into_iter().find(|warps| lines >= 2 * u64::from(*warps)).unwrap_or(1);
        let one = Self { warps, runs: 1, eights: rows.div_ceil(ROWS).next_power_of_two() };
        let two = Self { runs: 2, ..one };
        let fits = two.line_registers(&sizes.input()) <= HEAVIEST;
        Some(if pairs && fits { two } else { one })
    }

    #[must_use]
    pub const fn threads(self) -> u32 {
        self.warps * WARP
    }

    /// Rows of x of a block.
    #[must_use]
    pub const fn rows(self) -> u32 {
        ROWS * self.eights
    }

    /// Weight rows of a block.
    #[must_use]
    pub const fn columns(self) -> u32 {
        RUN * self.runs
    }

    /// Registers that the operands of one line take.
    fn line_registers(self, input: &Input) -> u32 {
        let values = weight::values_per_unit(input.scheme) as u32;
        let of_x = self.eights + u32::from(input.has_norm());
        self.runs * 16 + of_x * values
    }

    /// Does a thread need more registers than it has among 16 warps?
    fn is_heavy(self, input: &Input) -> bool {
        self.eights > 1 || self.line_registers(input) > LIGHT
    }

    /// Blocks that should share a multiprocessor: their warps hide each other's waiting, as far as
    /// there are registers.
    pub(crate) fn blocks_per_processor(self, sizes: &Sizes) -> u32 {
        let warps = if self.is_heavy(&sizes.input()) { 8 } else { 16 };
        warps / self.warps
    }

    /// Sums from one row to the next in shared memory: rows that a warp stores at once begin in
    /// different banks.
    const fn stride(self) -> u32 {
        self.columns() + 4
    }

    fn sums_bytes(self) -> u64 {
        4 * u64::from(self.warps * self.rows() * self.stride())
    }

    #[must_use]
    pub fn shared_bytes(self) -> u32 {
        (self.sums_bytes() + Statistics::bytes(self.rows())) as u32
    }
}

/// The product of one block's rows and weight rows.
pub(crate) fn write<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    few: Few,
    sizes: Sizes,
    arguments: &Arguments<'c>,
    block: Block<'c>,
) {
    let shared = k.shared(few.sums_bytes(), 128);
    let statistics = Statistics::carve(k, few.rows());
    let (warp, lane) = (k.warp(), k.lane_id());
    let (g, q) = (k.div_constant(lane, 4), k.rem_constant(lane, 4));
    let first = k.mul_constant(block.first_column, few.columns().into());
    let mine = k.add(first, g);
    let mine = k.mul_constant(mine, sizes.pitch());
    let [line, unit] = [k.mul_constant(warp, LINE), k.mul_constant(q, UNIT)];
    let within = k.add(line, unit);
    let mine = k.add(mine, within);
    let weight = k.at_bytes(arguments.weight, mine);
    let walk = Walk { few, pitch: sizes.pitch(), warp, weight };

    k.note("1 the first weights, which nothing before this kernel writes");
    let input = sizes.input();
    let ahead = walk.ahead(&input);
    let weights: Vec<_> = (0..ahead).map(|at| walk.weights(k, at)).collect();
    k.wait_for_predecessor();

    k.note("2 what the rows' values are scaled by");
    let rows = Rows { x: arguments.x, first: block.first_row, count: block.rows };
    input.measure(k, rows, arguments.norm, statistics, few.rows());
    let places: Vec<_> = (0..few.eights)
        .map(|eight| {
            let row = k.add_constant(g, u64::from(ROWS * eight));
            input.open(k, rows, statistics, row)
        })
        .collect();

    k.note("3 multiply");
    let columns = Columns { walk: &walk, input, places, norm: arguments.norm, within };
    let sums = multiply::<T>(k, &columns, weights);

    k.note("4 join what the warps have");
    let joined = Joined { few, place: shared };
    joined.put(k, &sums);
    k.barrier();

    k.note("5 finish");
    let behind = u64::from(sizes.weight_rows()) * sizes.pitch();
    let scales = k.at_bytes_constant(arguments.weight, behind);
    let load = |k: &mut Builder<'c>, part: GroupPart<'c>| -> F32<'c> {
        let (column, sum) = joined.get::<T>(k, part);
        let sum = sum.as_f32(k);
        let column = k.add(column, first);
        let sum = sizes.scaled(k, sum, scales, column);
        sizes.stepped(k, sum, |k| statistics.step(k, part.row))
    };
    let first_output = k.div_constant(first, sizes.finish.sums().into());
    let (rows, first_row) = (block.rows, block.first_row);
    let outputs = Outputs { rows, first_row, first: first_output, n: sizes.n };
    sizes.finish.store(k, few.columns(), outputs, &arguments.finish, load);
}

/// The columns of the matrix instructions: rows of x, as this thread reads them.
struct Columns<'c, 'a> {
    walk: &'a Walk<'c>,
    input: Input,
    places: Vec<Place<'c>>,
    norm: Option<Ptr<'c>>,
    /// Byte of a weight row at which this thread's first 16 begin.
    within: Index<'c>,
}

impl<'c> Columns<'c, '_> {
    /// Values of x, and of the norm's weight, that meet line `at` of the weights.
    fn values(&self, k: &mut Builder<'c>, at: u64) -> [Vec<Vec<Bf16<'c>>>; 2] {
        let Input { k: width, scheme, .. } = self.input;
        let values_per_unit = weight::values_per_unit(scheme);
        let ragged = self.walk.ragged(at, u64::from(width), values_per_unit);
        let (mut values, mut norms) = (Vec::new(), Vec::new());
        for half in 0..2 {
            let skipped = at * u64::from(self.walk.few.warps) * LINE + half * HALF;
            let byte = k.add_constant(self.within, skipped);
            let unit = k.div_constant(byte, UNIT);
            let element = k.mul_constant(unit, values_per_unit);
            for place in &self.places {
                values.push(self.input.values(k, place.row, element, ragged));
            }
            if let Some(norm) = self.norm {
                norms.push(self.input.values(k, norm, element, ragged));
            }
        }
        [values, norms]
    }
}

/// Sums of this thread, of each run and eight of rows; the first lines' weights are on their way.
fn multiply<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    columns: &Columns<'c, '_>,
    weights: Vec<Vec<I32<'c>>>,
) -> Vec<[T; 4]> {
    let Columns { walk, input, places, .. } = columns;
    let ahead = weights.len() as u64;
    let mut waiting = VecDeque::new();
    let early = walk.few.line_registers(input) <= EARLY;
    let line = |k: &mut Builder<'c>, at, weights| match early {
        true => (weights, Some(columns.values(k, at))),
        false => (weights, None),
    };
    for (at, weights) in (0..).zip(weights) {
        waiting.push_back(line(k, at, weights));
    }
    let runs = walk.few.runs as usize;
    let mut sums = vec![std::array::from_fn(|_| T::zero(k)); runs * places.len()];
    for at in 0..walk.lines() {
        let (weights, values) =
            waiting.pop_front().expect("lines are asked for before they are multiplied");
        if at + ahead < walk.lines() {
            let weights = walk.weights(k, at + ahead);
            waiting.push_back(line(k, at + ahead, weights));
        }
        let [values, norms] = values.unwrap_or_else(|| columns.values(k, at));
        for half in 0..2 {
            let operands: Vec<_> = places
                .iter()
                .enumerate()
                .map(|(eight, place)| {
                    let values = &values[half * places.len() + eight];
                    input.operand(k, place, values, norms.get(half))
                })
                .collect();
            for run in 0..runs {
                let [upper, lower] = [0, 1].map(|rows| {
                    let unit = weights[4 * run + 2 * half + rows];
                    weight::operands(k, input.scheme, unit)
                });
                for ((upper, meets), (lower, _)) in upper.into_iter().zip(lower) {
                    let a = [upper[0], lower[0], upper[1], lower[1]];
                    for (eight, operand) in operands.iter().enumerate() {
                        let sum = &mut sums[run * places.len() + eight];
                        *sum = T::multiply(k, *sum, a, meets.map(|at| operand[at]));
                    }
                }
            }
        }
    }
    sums
}

/// Sums of all warps in shared memory.
#[derive(Clone, Copy)]
struct Joined<'c> {
    few: Few,
    place: Ptr<'c>,
}

impl<'c> Joined<'c> {
    /// Sums of a warp.
    fn of_warp(&self) -> u64 {
        u64::from(self.few.rows()) * u64::from(self.few.stride())
    }

    fn put<T: Sum<'c>>(&self, k: &mut Builder<'c>, sums: &[[T; 4]]) {
        let (warp, lane) = (k.warp(), k.lane_id());
        let (g, q) = (k.div_constant(lane, 4), k.rem_constant(lane, 4));
        let stride = u64::from(self.few.stride());
        let of_warp = k.mul_constant(warp, self.of_warp());
        let eights = u64::from(self.few.eights);
        for (at, sums) in (0..).zip(sums) {
            let (run, eight) = (at / eights, at % eights);
            for (which, sum) in (0..).zip(sums) {
                let row = k.mul_constant(q, 2);
                let row = k.add_constant(row, u64::from(ROWS) * eight + which % 2);
                let row = k.mul_constant(row, stride);
                let column = k.add_constant(g, u64::from(RUN) * run + 8 * (which / 2));
                let place = k.add(row, column);
                let place = k.add(place, of_warp);
                let place = k.at::<T>(self.place, place);
                k.store(place, *sum);
            }
        }
    }

    /// The column of the block where a part begins, and its sums over the warps in their order.
    fn get<T: Sum<'c>>(&self, k: &mut Builder<'c>, part: GroupPart<'c>) -> (Index<'c>, T) {
        let row = k.mul_constant(part.row, u64::from(self.few.stride()));
        let column = part.column(k);
        let at = k.add(row, column);
        let place = k.at::<T>(self.place, at);
        let mut sum = k.load_whole::<T>(place, part.width);
        for warp in 1..u64::from(self.few.warps) {
            let place = k.at_bytes_constant(place, 4 * warp * self.of_warp());
            let next = k.load_whole::<T>(place, part.width);
            sum = k.add(sum, next);
        }
        (column, sum)
    }
}

/// Rows of x that a block has.
#[derive(Clone, Copy)]
pub struct Rows<'c> {
    pub x: Ptr<'c>,
    pub first: Index<'c>,
    pub count: Index<'c>,
}

/// The lines of a warp: its number, then so many on as there are warps.
struct Walk<'c> {
    few: Few,
    pitch: u64,
    warp: Index<'c>,
    /// This thread's first 16 bytes of the first run.
    weight: Ptr<'c>,
}

impl<'c> Walk<'c> {
    /// Lines of a warp that has most.
    fn lines(&self) -> u64 {
        (self.pitch / LINE).div_ceil(self.few.warps.into())
    }

    /// Lines that are on their way at once.
    fn ahead(&self, input: &Input) -> u64 {
        let line = self.few.line_registers(input);
        let all = REGISTERS[usize::from(self.few.is_heavy(input))];
        u64::from((all / line).max(1)).min(self.lines())
    }

    /// Has every warp line number `at`?
    fn whole(&self, at: u64) -> bool {
        (at + 1) * u64::from(self.few.warps) * LINE <= self.pitch
    }

    /// Does some warp's line number `at` reach beyond the `values` that a row has?
    fn ragged(&self, at: u64, values: u64, values_per_unit: u64) -> bool {
        (at + 1) * u64::from(self.few.warps) * (LINE / UNIT) * values_per_unit > values
    }

    /// The weights of line `at`; zeros in a warp that lacks it.
    fn weights(&self, k: &mut Builder<'c>, at: u64) -> Vec<I32<'c>> {
        let skipped = at * u64::from(self.few.warps) * LINE;
        let load = |k: &mut Builder<'c>| -> Vec<I32<'c>> {
            let mut words = Vec::new();
            for run in 0..u64::from(self.few.runs) {
                for half in 0..2 {
                    for rows in 0..2 {
                        let row = u64::from(RUN) * run + 8 * rows;
                        let skipped = skipped + row * self.pitch + half * HALF;
                        let place = k.at_bytes_constant(self.weight, skipped);
                        words.push(k.load_words(place, 4, Cache::Once));
                    }
                }
            }
            words
        };
        if self.whole(at) {
            return load(k);
        }
        let line = k.add_constant(self.warp, at * u64::from(self.few.warps));
        let lines = k.index(self.pitch / LINE);
        let has = k.less(line, lines);
        let words = 4 * self.few.runs;
        k.choose(has, load, |k| (0..words).map(|_| k.i32s(0, 4)).collect())
    }
}
