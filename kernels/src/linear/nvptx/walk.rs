//! Where the weights of a product of few rows are, and how they come to a thread: line by line, some
//! lines ahead of their multiplication.

use sail_ir::scheme::Scheme;

use super::few::{Few, LINE, UNIT};
use super::input::Input;
use super::{Sizes, behind, weight};
use crate::emit::gpu::Cache;
use crate::emit::{Builder, I32, Index, Ptr};
use crate::packing::rows::RUN;

/// Bytes of a row that four neighbouring threads read with one access each.
const HALF: u64 = 64;

/// Rows of a run.
const RUN_ROWS: u64 = RUN as u64;

/// How a warp goes along the weight rows of its block: by lines, first that of its number, then so
/// many on as there are warps.
pub struct Walk<'c> {
    pub few: Few,
    pitch: u64,
    weight_rows: u32,
    /// Lines of a warp that has most.
    pub lines: u64,
    warp: Index<'c>,
    /// Byte of a row at which this thread's first 16 begin.
    within: Index<'c>,
    /// They, in the first row that this thread reads of the first run.
    weight: Ptr<'c>,
    /// Of a scheme with groups, the word of that row's first group, and how many groups a row has.
    groups: Option<(Ptr<'c>, u64)>,
}

/// The weights of a line of this thread.
pub struct Line<'c> {
    /// Four words for each run, half of the line, and half of the run's rows.
    pub units: Vec<I32<'c>>,
    /// The words of their groups, of a scheme that has some.
    pub words: Vec<I32<'c>>,
}

impl<'c> Walk<'c> {
    pub(crate) fn new(k: &mut Builder<'c>, few: Few, sizes: &Sizes, weight: Ptr<'c>) -> Self {
        let pitch = sizes.pitch();
        let (warp, lane) = (k.warp(), k.lane_id());
        let (row, unit) = (k.div_constant(lane, 4), k.rem_constant(lane, 4));
        let [line, unit] = [k.mul_constant(warp, LINE), k.mul_constant(unit, UNIT)];
        let within = k.add(line, unit);
        let row = k.mul_constant(row, pitch);
        let mine = k.add(row, within);
        let groups = weight::has_groups(sizes.scheme).then(|| {
            let behind = behind(k, sizes, weight);
            let mine = k.div_constant(lane, 4);
            (k.at::<I32>(behind, mine), u64::from(sizes.k).div_ceil(Scheme::GROUP))
        });
        let weight = k.at_bytes(weight, mine);
        let lines = (pitch / LINE).div_ceil(few.warps.into());
        Self { few, pitch, weight_rows: sizes.weight_rows(), lines, warp, within, weight, groups }
    }

    /// Turns of all blocks together.
    pub fn turns(&self) -> u64 {
        u64::from(self.weight_rows / self.few.columns())
    }

    /// This thread's first 16 bytes of the runs of a turn, and its first group's word.
    pub fn places(&self, k: &mut Builder<'c>, turn: Index<'c>) -> [Ptr<'c>; 2] {
        let rows = u64::from(self.few.columns());
        let start = k.mul_constant(turn, self.pitch * rows);
        let weight = k.at_bytes(self.weight, start);
        let words = self.groups.map(|(words, groups)| {
            let start = k.mul_constant(turn, 4 * groups * rows);
            k.at_bytes(words, start)
        });
        [weight, words.unwrap_or(weight)]
    }

    /// Byte of a row at which this thread's 16 of half `half` of line `at` begin; the row's last 16 in a
    /// warp that lacks the line.
    pub fn byte(&self, k: &mut Builder<'c>, at: u64, half: u64) -> Index<'c> {
        let skipped = at * u64::from(self.few.warps) * LINE + half * HALF;
        let byte = k.add_constant(self.within, skipped);
        if self.whole(at) {
            return byte;
        }
        let last = k.index(self.pitch - UNIT);
        k.min(byte, last)
    }

    /// Has every warp line number `at`?
    fn whole(&self, at: u64) -> bool {
        (at + 1) * u64::from(self.few.warps) * LINE <= self.pitch
    }

    /// Does some warp's line number `at` reach beyond the values of a row?
    pub fn ragged(&self, at: u64, input: &Input) -> bool {
        let units = (at + 1) * u64::from(self.few.warps) * (LINE / UNIT);
        units * weight::values_per_unit(input.scheme) > input.k.into()
    }

    /// Units of a line of this thread, and words of groups.
    fn parts(&self) -> [usize; 2] {
        let units = 4 * self.few.runs as usize;
        [units, if self.groups.is_some() { units } else { 0 }]
    }

    /// Words of the lines that are on their way when a turn begins.
    pub fn words_ahead(&self) -> usize {
        let [units, words] = self.parts();
        self.few.ahead(self.lines) as usize * (4 * units + words)
    }

    /// The first lines of a turn, word by word.
    pub fn first_lines(&self, k: &mut Builder<'c>, turn: Index<'c>) -> Vec<I32<'c>> {
        let places = self.places(k, turn);
        let mut all = Vec::new();
        for at in 0..self.few.ahead(self.lines) {
            let Line { units, words } = self.line(k, places, at);
            all.extend(units.into_iter().flat_map(|unit| k.lanes_of(unit)));
            all.extend(words);
        }
        all
    }

    /// The lines that `all` are.
    pub fn lines_of(&self, k: &mut Builder<'c>, all: &[I32<'c>]) -> Vec<Line<'c>> {
        let [units, words] = self.parts();
        let lines = all.chunks_exact(4 * units + words).map(|line| {
            let (units, words) = line.split_at(4 * units);
            let units = units.chunks_exact(4).map(|words| k.vector_of(words)).collect();
            Line { units, words: words.to_vec() }
        });
        lines.collect()
    }

    /// The weights of line `at`; zeros in a warp that lacks it.
    pub fn line(&self, k: &mut Builder<'c>, [weight, words]: [Ptr<'c>; 2], at: u64) -> Line<'c> {
        let line = k.add_constant(self.warp, at * u64::from(self.few.warps));
        let load = |k: &mut Builder<'c>| {
            let mut all = Vec::new();
            let skipped = at * u64::from(self.few.warps) * LINE;
            for (run, half, rows) in self.halves() {
                let skipped = skipped + (RUN_ROWS * run + 8 * rows) * self.pitch + half * HALF;
                let place = k.at_bytes_constant(weight, skipped);
                all.push(k.load_words(place, 4, Cache::Once));
            }
            let Some((_, groups)) = self.groups else { return all };
            for (run, half, rows) in self.halves() {
                let group = k.mul_constant(line, 2);
                let group = k.add_constant(group, half);
                let last = k.index(groups - 1);
                let group = k.min(group, last);
                let skipped = k.mul_constant(group, 4 * RUN_ROWS);
                let place = k.at_bytes(words, skipped);
                let skipped = 4 * (RUN_ROWS * groups * run + 8 * rows);
                let place = k.at_bytes_constant(place, skipped);
                all.push(k.load_words(place, 1, Cache::Usual));
            }
            all
        };
        let [units, words] = self.parts();
        let mut all = if self.whole(at) {
            load(k)
        } else {
            let lines = k.index(self.pitch / LINE);
            let has = k.less(line, lines);
            k.choose(has, load, |k| {
                let units = (0..units).map(|_| k.i32s(0, 4)).collect::<Vec<_>>();
                units.into_iter().chain((0..words).map(|_| k.i32(0))).collect()
            })
        };
        let words = all.split_off(units);
        Line { units: all, words }
    }

    /// Each run, half of a line, and half of a run's rows.
    fn halves(&self) -> Vec<(u64, u64, u64)> {
        let runs = u64::from(self.few.runs);
        (0..4 * runs).map(|at| (at / 4, at / 2 % 2, at % 2)).collect()
    }
}
