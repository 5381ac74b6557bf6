//! What a block of a product of few rows does, turn by turn: see [`super::few`].

use std::collections::VecDeque;

use sail_ir::scheme::Scheme;

use super::few::{Few, LINE, ROWS, Rows, UNIT};
use super::finish::{GroupPart, Outputs};
use super::input::{Input, Place, Share};
use super::joined::Joined;
use super::kept::Kept;
use super::measure::{AT_ONCE, Statistics};
use super::sum::Sum;
use super::walk::Walk;
use super::{Arguments, Sizes, behind, weight};
use crate::emit::{Block, Bool, Builder, F32, I32, Index, Ptr};

/// What a block multiplies with: its places in shared memory, and its way along the weight.
pub(crate) struct Work<'c> {
    few: Few,
    sizes: Sizes,
    pub walk: Walk<'c>,
    /// Places of sums.
    sums: Ptr<'c>,
    kept: Option<Kept<'c>>,
    statistics: Statistics<'c>,
}

/// Weight rows that a block multiplies at once.
#[derive(Clone, Copy)]
pub(crate) struct Turn<'c> {
    /// Number among the turns of all rows that are packed.
    pub number: Index<'c>,
    /// Number among those that a row of y needs.
    pub of_row: Index<'c>,
    /// A number that is so much more from each turn of the block to its next one.
    pub count: (Index<'c>, u64),
}

/// The product of a block's rows with every run that is its turn; gives what it was multiplied with.
pub(crate) fn write<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    few: Few,
    sizes: Sizes,
    arguments: &Arguments<'c>,
    block: Block<'c>,
) -> Work<'c> {
    let work = Work::new(k, few, sizes, arguments.weight);

    k.note("1 the first weights, which nothing before this kernel writes");
    let turn = block.first_column;
    let first = work.walk.first_lines(k, turn);
    if let Some(norm) = arguments.norm {
        prefetch(k, norm, 2 * u64::from(sizes.k));
    }
    k.wait_for_predecessor();

    k.note("2 what the rows' values are scaled by, and the operands they become");
    let (first_row, count) = (block.first_row, block.rows);
    let rows = Rows { x: arguments.x, first: first_row, count, order: None };
    let columns = work.columns(k, rows, arguments.norm);

    let end = k.index(work.walk.turns());
    k.fold(turn, end, few.blocks.into(), first, |k, turn, lines| {
        let count = (turn, few.blocks.into());
        let number = Turn { number: turn, of_row: turn, count };
        let next = |k: &mut Builder<'c>| {
            let next = k.add_constant(turn, few.blocks.into());
            let more = k.less(next, end);
            (more, next)
        };
        work.turn::<T>(k, number, (rows, &columns), (lines, next), arguments)
    });
    work
}

/// Have `bytes` at `from`, which nothing of a call writes, brought into the second cache: who reads them when
/// the rows are there does not wait for memory once more.
fn prefetch<'c>(k: &mut Builder<'c>, from: Ptr<'c>, bytes: u64) {
    let (thread, threads) = (k.thread(), u64::from(k.threads()));
    let first = k.mul_constant(thread, LINE);
    let end = k.index(bytes);
    k.for_each(first, end, threads * LINE, |k, at| {
        let line = k.at_bytes(from, at);
        k.prefetch_l2(line);
    });
}

impl<'c> Work<'c> {
    pub fn new(k: &mut Builder<'c>, few: Few, sizes: Sizes, weight: Ptr<'c>) -> Self {
        let sums = k.shared(few.places() * few.sums_bytes(), 128);
        let kept = few.keeps.then(|| Kept::carve(k, sizes.input(), few.most));
        let statistics = Statistics::carve(k, few.rows());
        let walk = Walk::new(k, few, &sizes, weight);
        Self { few, sizes, walk, sums, kept, statistics }
    }

    /// When a thread is past a turn, may others still read at its finish what [`Work::columns`] writes?
    pub fn finishes_late(&self) -> bool {
        self.few.places() > 1 && self.sizes.scheme.quantizes_activations()
    }

    /// Does a turn end with a barrier?
    pub fn ends_together(&self) -> bool {
        self.few.places() == 1
    }

    /// Make operands of the rows. All threads of the block come here, none of them still at the finish
    /// of others.
    pub fn columns(
        &self,
        k: &mut Builder<'c>,
        rows: Rows<'c>,
        norm: Option<Ptr<'c>>,
    ) -> Columns<'c> {
        let Self { few, kept, statistics, .. } = *self;
        let input = self.sizes.input();
        let has_room = few.blocks_per_processor == 1 && few.eights == 1 && !input.quantizes();
        let at_once = AT_ONCE[usize::from(has_room)];
        input.measure(k, rows, norm, statistics, (few.most, at_once));
        if let Some(kept) = kept {
            kept.fill(k, rows, norm, statistics);
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
        Columns { columns: columns.collect(), input, norm }
    }

    /// Store the rows that [`Work::columns`] made operands of, normed by `norm`, as rows of `to`.
    pub fn store_normed(
        &self,
        k: &mut Builder<'c>,
        rows: (Rows<'c>, Ptr<'c>),
        norm: Ptr<'c>,
        share: Share<'c>,
    ) {
        self.sizes.input().store_normed(k, rows, norm, self.statistics, share);
    }

    /// Multiply a turn, whose first `lines` are on their way, and finish its sums; `next` says whether
    /// there is another turn, and its number: its first lines are asked for meanwhile, and given.
    pub fn turn<T: Sum<'c>>(
        &self,
        k: &mut Builder<'c>,
        turn: Turn<'c>,
        (rows, columns): (Rows<'c>, &Columns<'c>),
        (lines, next): (Vec<I32<'c>>, impl FnOnce(&mut Builder<'c>) -> (Bool<'c>, Index<'c>)),
        arguments: &Arguments<'c>,
    ) -> Vec<I32<'c>> {
        let Self { few, sizes, ref walk, statistics, .. } = *self;
        k.note("3 multiply");
        let sums = multiply::<T>(k, walk, columns, turn.number, lines);

        k.note("4 join what the warps have, the next weights being on their way");
        let (more, next) = next(k);
        let words = walk.words_ahead();
        let lines = k.choose(
            more,
            |k| walk.first_lines(k, next),
            |k| (0..words).map(|_| k.i32(0)).collect(),
        );
        let joined = Joined::new(k, few, self.sums, turn.count);
        joined.put(k, &sums);
        k.barrier();

        k.note("5 finish");
        let scales = behind(k, &sizes, arguments.weight);
        let first_packed = k.mul_constant(turn.number, few.columns().into());
        let first = k.mul_constant(turn.of_row, few.columns().into());
        let load = |k: &mut Builder<'c>, part: GroupPart<'c>| -> F32<'c> {
            let (column, sum) = joined.get::<T>(k, part);
            let sum = sum.as_f32(k);
            let column = k.add(column, first_packed);
            let sum = sizes.scaled(k, sum, scales, column);
            sizes.stepped(k, sum, |k| statistics.step(k, part.row))
        };
        let first_output = k.div_constant(first, sizes.finish.sums().into());
        // A value is joined from those of all warps: few at once.
        let (count, first_row) = (rows.count, rows.first);
        let outputs = Outputs { rows: count, first_row, first: first_output, n: sizes.n, most: 4 };
        sizes.finish.store(k, few.columns(), outputs, &arguments.finish, load);
        if self.ends_together() {
            k.barrier();
        }
        lines
    }
}

/// A column of the matrix instructions: a row of x.
enum Column<'c> {
    /// Where its operands begin.
    Kept(Ptr<'c>),
    /// Its values, which become operands each time.
    Read(Place<'c>),
}

/// The columns of this thread, one in each eight of rows.
pub(crate) struct Columns<'c> {
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
