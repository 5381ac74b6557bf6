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

use std::collections::VecDeque;

use super::finish::{GroupPart, Outputs};
use super::input::{Input, Place};
use super::joined::Joined;
use super::kept::Kept;
use super::measure::Statistics;
use super::sum::Sum;
use super::walk::Walk;
use super::{Arguments, Sizes, behind, weight};
use crate::emit::gpu::WARP;
use crate::emit::{Block, Builder, F32, I32, Index, Ptr};
use crate::packing::rows::RUN;
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

/// Bytes of a weight row that a warp takes at a time.
pub(super) const LINE: u64 = 128;

/// Bytes of one access.
pub(super) const UNIT: u64 = 16;

/// Rows of x in one matrix instruction.
pub(super) const ROWS: u32 = 8;

/// Warps that share a multiprocessor, where a thread has few registers and where it has many.
const LIGHT: u32 = 16;
const HEAVY: u32 = 8;

/// Registers for weights that are on their way, in either case.
const REGISTERS: [u32; 2] = [32, 96];

/// Shared memory of a multiprocessor, without what each of a few blocks needs besides its own.
const SHARED: u64 = 160 << 10;

/// How a product of few rows is shared out.
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
    /// More rows than this are better off with tiles.
    pub const MOST_ROWS: u32 = 32;

    /// For at most `rows` rows; `None` where they are too many.
    #[must_use]
    pub(crate) fn of(sizes: &Sizes, rows: u32, target: &Target) -> Option<Self> {
        if rows > Self::MOST_ROWS {
            return None;
        }
        let processors = target.gpu()?.processors;
        let lines = sizes.pitch() / LINE;
        let warps = [8, 4, 2].into_iter().find(|warps| lines >= 2 * u64::from(*warps)).unwrap_or(1);
        let eights = rows.div_ceil(ROWS).next_power_of_two();
        // Two blocks of eight warps, or, where there is much to hold, one.
        let shaped = |at_once: u32| {
            let blocks_per_processor = at_once / warps;
            let most = processors * blocks_per_processor;
            let runs = sizes.weight_rows() / RUN;
            // Fewer joins, where blocks still are about equally busy at the end and sums are few.
            // The operands of `int4` and their zero points leave no registers for two.
            let room = eights <= 2 && (sizes.scheme != Scheme::Int4 || at_once == HEAVY);
            let pairs = room && runs.is_multiple_of(2) && runs / 2 >= 4 * most;
            let taken = if pairs { 2 } else { 1 };
            let blocks = most.min(runs / taken);
            Self {
                warps,
                runs: taken,
                eights,
                most: rows,
                keeps: true,
                blocks_per_processor,
                blocks,
            }
        };
        let fits = |few: &Self| {
            u64::from(few.blocks_per_processor) * u64::from(few.shared_bytes(sizes)) <= SHARED
        };
        // With one block each, registers are for more bytes on their way.
        let several = |few: &Self| few.blocks > processors;
        let light = Some(shaped(LIGHT)).filter(|few| eights == 1 && several(few) && fits(few));
        let heavy = shaped(HEAVY);
        let kept = light.or(Some(heavy).filter(fits));
        Some(kept.unwrap_or(Self { keeps: false, ..heavy }))
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

/// The product of a block's rows with every run that is its turn.
pub(crate) fn write<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    few: Few,
    sizes: Sizes,
    arguments: &Arguments<'c>,
    block: Block<'c>,
) {
    let input = sizes.input();
    let shared = k.shared(few.places() * few.sums_bytes(), 128);
    let kept = few.keeps.then(|| Kept::carve(k, input, few.most));
    let statistics = Statistics::carve(k, few.rows());
    let walk = Walk::new(k, few, &sizes, arguments.weight);

    k.note("1 the first weights, which nothing before this kernel writes");
    let turn = block.first_column;
    let first = walk.first_lines(k, turn);
    k.wait_for_predecessor();

    k.note("2 what the rows' values are scaled by, and the operands they become");
    let rows = Rows { x: arguments.x, first: block.first_row, count: block.rows };
    input.measure(k, rows, arguments.norm, statistics, few.most);
    if let Some(kept) = kept {
        kept.fill(k, rows, arguments.norm, statistics);
        k.barrier();
    }
    let lane = k.lane_id();
    let column = k.div_constant(lane, 4);
    let columns = (0..few.eights).map(|eight| {
        let row = k.add_constant(column, u64::from(ROWS * eight));
        match kept {
            Some(kept) => Column::Kept(kept.row(k, row, rows.count)),
            None => Column::Read(input.open(k, rows, statistics, row)),
        }
    });
    let columns = Columns { columns: columns.collect(), input, norm: arguments.norm };

    let scales = behind(k, &sizes, arguments.weight);
    let end = k.index(walk.turns());
    k.fold(turn, end, few.blocks.into(), first, |k, turn, lines| {
        k.note("3 multiply");
        let sums = multiply::<T>(k, &walk, &columns, turn, lines);

        k.note("4 join what the warps have, the next weights being on their way");
        let next = k.add_constant(turn, few.blocks.into());
        let more = k.less(next, end);
        let words = walk.words_ahead();
        let lines = k.choose(
            more,
            |k| walk.first_lines(k, next),
            |k| (0..words).map(|_| k.i32(0)).collect(),
        );
        let joined = Joined::new(k, few, shared, turn);
        joined.put(k, &sums);
        k.barrier();

        k.note("5 finish");
        let first = k.mul_constant(turn, few.columns().into());
        let load = |k: &mut Builder<'c>, part: GroupPart<'c>| -> F32<'c> {
            let (column, sum) = joined.get::<T>(k, part);
            let sum = sum.as_f32(k);
            let column = k.add(column, first);
            let sum = sizes.scaled(k, sum, scales, column);
            sizes.stepped(k, sum, |k| statistics.step(k, part.row))
        };
        let first_output = k.div_constant(first, sizes.finish.sums().into());
        // A value is joined from those of all warps: few at once.
        let (count, first_row) = (rows.count, rows.first);
        let outputs = Outputs { rows: count, first_row, first: first_output, n: sizes.n, most: 4 };
        sizes.finish.store(k, few.columns(), outputs, &arguments.finish, load);
        if few.places() == 1 {
            k.barrier();
        }
        lines
    });
}

/// A column of the matrix instructions: a row of x.
enum Column<'c> {
    /// Where its operands begin.
    Kept(Ptr<'c>),
    /// Its values, which become operands each time.
    Read(Place<'c>),
}

/// The columns of this thread, one in each eight of rows.
struct Columns<'c> {
    columns: Vec<Column<'c>>,
    input: Input,
    norm: Option<Ptr<'c>>,
}

impl<'c> Columns<'c> {
    /// The operands of each column that meet the unit at byte `byte` of a weight row.
    fn operands(&self, k: &mut Builder<'c>, byte: Index<'c>, ragged: bool) -> Vec<Vec<I32<'c>>> {
        let unit = k.div_constant(byte, UNIT);
        let element = k.mul_constant(unit, weight::values_per_unit(self.input.scheme));
        let mut norm = None;
        let each = self.columns.iter().map(|column| match column {
            Column::Kept(row) => Kept::operands(k, self.input.scheme, *row, byte),
            Column::Read(place) => {
                let values = self.input.values(k, place.row, element, ragged);
                if let (Some(weight), None) = (self.norm, &norm) {
                    norm = Some(self.input.values(k, weight, element, ragged));
                }
                self.input.operand(k, place, &values, norm.as_ref())
            }
        });
        each.collect()
    }
}

/// Sums of this thread, of each run and eight of rows; the first lines' weights are on their way.
fn multiply<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    walk: &Walk<'c>,
    columns: &Columns<'c>,
    turn: Index<'c>,
    first_lines: Vec<I32<'c>>,
) -> Vec<[T; 4]> {
    let Few { runs, eights, .. } = walk.few;
    let places = walk.places(k, turn);
    let scheme = columns.input.scheme;
    let mut waiting: VecDeque<_> = walk.lines_of(k, &first_lines).into();
    let ahead = waiting.len() as u64;
    let mut sums = vec![std::array::from_fn(|_| T::zero(k)); (runs * eights) as usize];
    for at in 0..walk.lines {
        let line = waiting.pop_front().expect("lines are asked for before they are multiplied");
        if at + ahead < walk.lines {
            waiting.push_back(walk.line(k, places, at + ahead));
        }
        let ragged = walk.ragged(at, &columns.input);
        for half in 0..2 {
            let byte = walk.byte(k, at, half);
            let operands = columns.operands(k, byte, ragged);
            for run in 0..runs as usize {
                let first = 4 * run + 2 * half as usize;
                let words = line.words.get(first..first + 2);
                let [upper, lower] = [0, 1].map(|rows| {
                    let word = words.map(|words| words[rows]);
                    weight::operands(k, scheme, line.units[first + rows], word)
                });
                let a = upper.into_iter().zip(lower).map(|((upper, meets), (lower, _))| {
                    ([upper[0], lower[0], upper[1], lower[1]], meets)
                });
                let a: Vec<_> = a.collect();
                let sums = &mut sums[run * eights as usize..][..eights as usize];
                for (sum, x) in sums.iter_mut().zip(&operands) {
                    *sum = add_half(k, scheme, *sum, (&a, words), x);
                }
            }
        }
    }
    sums
}

/// `sum` and the products of half a line: `a` with the words of `x` that each meets. Where there are
/// `words`, of the upper and the lower rows, the half is a group.
fn add_half<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    scheme: Scheme,
    sum: [T; 4],
    (a, words): (&[weight::Meeting<'c, 4>], Option<&[I32<'c>]>),
    x: &[I32<'c>],
) -> [T; 4] {
    let Some(words) = words else {
        return a
            .iter()
            .fold(sum, |sum, (a, meets)| T::multiply(k, scheme, sum, *a, meets.map(|at| x[at])));
    };
    let none = [k.i32(0); 4];
    let group = a.iter().fold(none, |group, (a, meets)| {
        <I32<'_> as Sum<'_>>::multiply(k, scheme, group, *a, meets.map(|at| x[at]))
    });
    let [upper, lower] = [0, 1].map(|rows| weight::scale_of(k, words[rows]));
    T::add_group(k, sum, group, [upper, upper, lower, lower])
}

/// Rows of x that a block has.
#[derive(Clone, Copy)]
pub struct Rows<'c> {
    pub x: Ptr<'c>,
    pub first: Index<'c>,
    pub count: Index<'c>,
}
