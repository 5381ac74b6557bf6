//! The inner kernel of attention: query vectors against one page after another, with the softmax
//! carried along.
//!
//! A *vector* is one query head of one row. Up to [`VECTORS`] of them that read the same keys are
//! worked on together; what one of them gives does not depend on the others. For every page, in
//! ascending order:
//!
//! 1. scores of all vectors with the page's 64 keys, masked beyond each vector's last visible
//!    position; new maxima; `e^(score - maximum)`, summed in f32 and rounded to bf16;
//! 2. the factors by which the new maxima shrink what was summed before;
//! 3. sums of the values, weighted by 1.
//!
//! A page in which a vector sees nothing changes nothing: its maximum stays, its weights are zero.
//!
//! What is said of bf16 here is otherwise for a cache of bytes; see `softmax_bytes.rs`.

use sail_ir::plan::PAGE_POSITIONS;
use sail_ir::scheme::CacheScheme;

use super::page::PageLayout;
use crate::emit::{Bf16, Builder, F32, I32, Index, Ptr};
use crate::rows::copy;

/// Most query vectors worked on together.
pub const VECTORS: u32 = 48;

pub(super) const PAGE: u64 = PAGE_POSITIONS as u64;

/// No target has more f32 in a vector; workspaces are sized for it.
const MOST_LANES: u64 = 16;

/// Most vectors at once for which the next page is brought near.
const FEW: u32 = 2;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// A page as it is computed with.
#[derive(Clone, Copy)]
pub(super) struct Page<'c> {
    /// Keys and values.
    pub block: Ptr<'c>,
    /// f32 of each position that its key, and its value, are to be multiplied with, if with any.
    pub scales: Option<[Ptr<'c>; 2]>,
    /// The block that is looked at next, where that comes from memory.
    pub next: Option<Ptr<'c>>,
}

impl<'c> Page<'c> {
    /// What begins `offset` bytes into it.
    fn lines(self, k: &mut Builder<'c>, offset: u64) -> Lines<'c> {
        Lines { these: self.block, next: self.next }.skip(k, offset)
    }
}

/// Query vectors and what is known of them so far, in the workspace.
pub(super) struct SoftmaxPage<'c> {
    pub(super) layout: PageLayout,
    /// `[capacity, head_dim]` bf16: the queries.
    pub(super) queries: Ptr<'c>,
    /// `[capacity]` i32: the last position each vector sees.
    pub limits: Ptr<'c>,
    /// `[capacity, 64]` bf16: weights of the page at hand.
    pub(super) weights: Ptr<'c>,
    /// `[capacity, lanes]` f32: their sums, lane by lane.
    page_sums: Ptr<'c>,
    /// `[capacity]` f32: greatest score so far, and with the page at hand.
    maxima: [Ptr<'c>; 2],
    /// `[capacity]` f32: `e^(old maximum - new maximum)`.
    factors: Ptr<'c>,
    /// `[capacity, lanes]` f32: sums of all weights so far.
    sums: Ptr<'c>,
    /// `[capacity, padded]` f32: sums of the weighted values so far.
    outputs: Ptr<'c>,
    /// `[capacity]` f32, for pages of bytes: what a query's integers are worth, and those of the
    /// weights of the page at hand.
    pub(super) steps: [Ptr<'c>; 2],
}

/// Register blocks: how many vectors at once, and how many vector registers of keys or columns.
struct Blocking {
    heights: &'static [u32],
    columns: u32,
}

impl<'c> SoftmaxPage<'c> {
    /// Workspace for `capacity` vectors.
    pub fn workspace_bytes(layout: PageLayout, capacity: u64) -> u64 {
        Self::sizes(layout, capacity).iter().sum()
    }

    fn sizes(layout: PageLayout, capacity: u64) -> [u64; 11] {
        let line = 4 * MOST_LANES;
        let single = (4 * capacity).next_multiple_of(line);
        let queries = (query_bytes(layout) * capacity).next_multiple_of(64);
        let steps = if layout.scheme == CacheScheme::Int8 { single } else { 0 };
        [
            queries,
            single,
            2 * PAGE * capacity,
            line * capacity,
            single,
            single,
            single,
            line * capacity,
            4 * layout.padded() * capacity,
            steps,
            steps,
        ]
    }

    /// Take the workspace.
    pub fn new(k: &mut Builder<'c>, layout: PageLayout, capacity: u64) -> Self {
        let [queries, limits, weights, page_sums, old, new, factors, sums, outputs, steps @ ..] =
            Self::sizes(layout, capacity).map(|bytes| k.carve(bytes));
        Self {
            layout,
            queries,
            limits,
            weights,
            page_sums,
            maxima: [old, new],
            factors,
            sums,
            outputs,
            steps,
        }
    }

    /// Take `count` queries from row-major `from`, which become vectors from `first` on.
    pub fn take_queries(&self, k: &mut Builder<'c>, first: Index<'c>, from: Ptr<'c>, count: u32) {
        match self.layout.scheme {
            CacheScheme::Bf16 => {
                let to = k.mul_constant(first, query_bytes(self.layout));
                let to = k.at_bytes(self.queries, to);
                copy(k, from, to, count * self.layout.head_dim);
            }
            CacheScheme::Int8 => {
                let (zero, count) = (k.index(0), k.index(count.into()));
                k.for_each(zero, count, 1, |k, member| {
                    let query = k.mul_constant(member, 2 * u64::from(self.layout.head_dim));
                    let query = k.at_bytes(from, query);
                    let vector = k.add(first, member);
                    self.take_for_bytes(k, vector, query);
                });
            }
        }
    }

    /// Forget everything about the first `count` vectors.
    pub fn clear(&self, k: &mut Builder<'c>, count: Index<'c>) {
        let lanes = k.lanes();
        let zero = k.index(0);
        let (none, least) = (k.f32s(0.0, lanes), k.f32(f32::NEG_INFINITY));
        k.for_each(zero, count, 1, |k, vector| {
            let to = k.at::<F32>(self.maxima[0], vector);
            k.store(to, least);
            let to = self.line(k, self.sums, vector);
            k.store(to, none);
            let to = k.mul_constant(vector, 4 * self.layout.padded());
            let to = k.at_bytes(self.outputs, to);
            k.for_each_piece(self.layout.padded(), |k, piece| k.write(to, piece, none));
        });
    }

    /// Let the first `count` vectors see `page`, whose first position is `base`;
    /// `last` is the last position any of them sees in it or beyond.
    pub fn see(
        &self,
        k: &mut Builder<'c>,
        page: Page<'c>,
        [base, last]: [Index<'c>; 2],
        count: Index<'c>,
    ) {
        k.note("scores and weights of the page");
        self.for_each_height(k, count, |k, first, height| {
            self.weigh(k, page, base, first, height);
        });

        k.note("factors of what came before");
        let lanes = k.lanes();
        let zero = k.index(0);
        k.for_each(zero, count, u64::from(lanes), |k, vector| {
            let [old, new, factor] = [self.maxima[0], self.maxima[1], self.factors]
                .map(|list| k.at::<F32>(list, vector));
            let (before, now) = (k.load::<F32>(old, lanes), k.load::<F32>(new, lanes));
            let shrunk = k.sub(before, now);
            let shrunk = k.exp(shrunk);
            k.store(factor, shrunk);
            k.store(old, now);
        });

        k.note("weighted values");
        let values = page.lines(k, self.layout.keys_bytes());
        let seen = k.sub(last, base);
        let words = k.div_constant(seen, self.layout.together());
        let words = k.add_constant(words, 1);
        let whole = k.index(PAGE / self.layout.together());
        let words = k.min(words, whole);
        self.for_each_height(k, count, |k, first, height| {
            self.add_values(k, values, words, first, height);
        });
    }

    /// Write the result of one vector, `head_dim` bf16 values.
    pub fn store(&self, k: &mut Builder<'c>, vector: Index<'c>, to: Ptr<'c>) {
        let lanes = k.lanes();
        let sums = self.line(k, self.sums, vector);
        let sums = k.load::<F32>(sums, lanes);
        let sum = k.sum_lanes(sums);
        let from = k.mul_constant(vector, 4 * self.layout.padded());
        let from = k.at_bytes(self.outputs, from);
        k.for_each_piece(u64::from(self.layout.head_dim), |k, piece| {
            let value = k.read::<F32>(from, piece);
            let value = k.div(value, sum);
            k.write_rounded(to, piece, value);
        });
    }

    /// Run `body(first, height)` over `count` vectors in the largest blocks that fit.
    fn for_each_height(
        &self,
        k: &mut Builder<'c>,
        count: Index<'c>,
        body: impl Fn(&mut Builder<'c>, Index<'c>, u32),
    ) {
        let mut start = k.index(0);
        for &height in self.blocking(k).heights {
            let left = k.sub(count, start);
            let blocks = k.div_constant(left, u64::from(height));
            let rows = k.mul_constant(blocks, u64::from(height));
            let end = k.add(start, rows);
            k.for_each(start, end, u64::from(height), |k, first| body(k, first, height));
            start = end;
        }
    }

    /// What fills the registers: accumulators, one line of keys, one spread query.
    fn blocking(&self, k: &Builder<'c>) -> Blocking {
        if k.target().has("avx512bf16") {
            Blocking { heights: &[6, 2, 1], columns: 4 }
        } else if k.lanes() == 16 {
            Blocking { heights: &[4, 1], columns: 4 }
        } else {
            Blocking { heights: &[2, 1], columns: 4 }
        }
    }

    /// Scores of `height` vectors with the page's keys, turned into weights.
    fn weigh(
        &self,
        k: &mut Builder<'c>,
        page: Page<'c>,
        base: Index<'c>,
        first: Index<'c>,
        height: u32,
    ) {
        let keys = page.lines(k, 0);
        let scores = self.scores(k, keys, first, height);
        for (at, scores) in scores.iter().enumerate() {
            let vector = k.add_constant(first, at as u64);
            self.soften(k, scores, (page, base), vector);
        }
    }

    /// Products of `height` queries with 64 keys: `64 / lanes` vector registers for each.
    fn scores(
        &self,
        k: &mut Builder<'c>,
        keys: Lines<'c>,
        first: Index<'c>,
        height: u32,
    ) -> Vec<Vec<F32<'c>>> {
        let all = PAGE / u64::from(k.lanes());
        let step = u64::from(self.blocking(k).columns);
        let queries = k.mul_constant(first, query_bytes(self.layout));
        let queries = k.at_bytes(self.queries, queries);
        let mut scores = vec![Vec::new(); height as usize];
        for start in (0..all).step_by(step as usize) {
            let columns = step.min(all - start);
            let keys = keys.skip(k, 4 * u64::from(k.lanes()) * start);
            let sums = match self.layout.scheme {
                CacheScheme::Bf16 => self.column_scores(k, (keys, queries), height, columns),
                CacheScheme::Int8 => self.byte_scores(k, (keys, queries), height, columns),
            };
            for (scores, sums) in scores.iter_mut().zip(sums.chunks_exact(columns as usize)) {
                scores.extend(sums);
            }
        }
        scores
    }

    /// [`Self::scores`] for `columns` vector registers of keys: `height · columns` sums.
    fn column_scores(
        &self,
        k: &mut Builder<'c>,
        (keys, queries): (Lines<'c>, Ptr<'c>),
        height: u32,
        columns: u64,
    ) -> Vec<F32<'c>> {
        let lanes = k.lanes();
        let none = k.f32s(0.0, lanes);
        let sums = vec![none; (u64::from(height) * columns) as usize];
        let (zero, pairs) = (k.index(0), k.index(u64::from(self.layout.head_dim / 2)));
        k.fold(zero, pairs, 1, sums, |k, pair, mut sums| {
            let line = k.mul_constant(pair, 4 * PAGE);
            let keys = keys.load(k, line, columns, height);
            let queries = k.at::<I32>(queries, pair);
            for (row, sums) in sums.chunks_exact_mut(columns as usize).enumerate() {
                let offset = row as u64 * 2 * u64::from(self.layout.head_dim);
                let query = k.at_bytes_constant(queries, offset);
                let query = k.load_word_everywhere(query, lanes);
                for (sum, keys) in sums.iter_mut().zip(&keys) {
                    *sum = k.dot_bf16(*sum, query, *keys);
                }
            }
            sums
        })
    }

    /// Weights of one vector from its scores with a page.
    fn soften(
        &self,
        k: &mut Builder<'c>,
        scores: &[F32<'c>],
        (page, base): (Page<'c>, Index<'c>),
        vector: Index<'c>,
    ) {
        let scales = |k: &mut Builder<'c>, of: usize, column: usize| {
            page.scales.map(|scales| {
                let from = 4 * u64::from(k.lanes()) * column as u64;
                let from = k.at_bytes_constant(scales[of], from);
                k.load::<F32>(from, k.lanes())
            })
        };
        let lanes = k.lanes();
        let scale = match self.layout.scheme {
            CacheScheme::Bf16 => k.f32(self.scale()),
            CacheScheme::Int8 => {
                let step = k.at::<F32>(self.steps[0], vector);
                k.load::<F32>(step, 1)
            }
        };
        let limit = k.at::<I32>(self.limits, vector);
        let limit = k.load::<I32>(limit, 1);
        let base = k.i32_of(base);
        let limit = k.sub(limit, base);
        let hidden = k.f32s(f32::NEG_INFINITY, lanes);
        let numbers = k.lane_numbers(lanes);
        let (mut scaled, mut shown) = (Vec::new(), Vec::new());
        for (column, score) in scores.iter().enumerate() {
            let first = k.i32(column as i32 * lanes as i32);
            let positions = k.add(numbers, first);
            let visible = k.less_equal(positions, limit);
            let mut score = k.mul(*score, scale);
            if let Some(scales) = scales(k, 0, column) {
                score = k.mul(score, scales);
            }
            scaled.push(k.select(visible, score, hidden));
            shown.push(visible);
        }
        let mut largest = scaled[0];
        for score in &scaled[1..] {
            largest = k.max(largest, *score);
        }
        let largest = k.max_lanes(largest);
        let [old, new] = self.maxima.map(|list| k.at::<F32>(list, vector));
        let before = k.load::<F32>(old, 1);
        let maximum = k.max(largest, before);
        k.store(new, maximum);

        let mut sum = k.f32s(0.0, lanes);
        let mut weights = Vec::new();
        for (column, score) in scaled.into_iter().enumerate() {
            let below = k.sub(score, maximum);
            let mut weight = k.exp(below);
            sum = k.add(sum, weight);
            if let Some(scales) = scales(k, 1, column) {
                // What stands for a position that is not there may be anything.
                let none = k.f32s(0.0, lanes);
                let scaled = k.mul(weight, scales);
                weight = k.select(shown[column], scaled, none);
            }
            weights.push(weight);
        }
        let line = k.mul_constant(vector, 2 * PAGE);
        let line = k.at_bytes(self.weights, line);
        match self.layout.scheme {
            CacheScheme::Bf16 => {
                for (column, weight) in weights.into_iter().enumerate() {
                    let to = k.at_bytes_constant(line, 2 * u64::from(lanes) * column as u64);
                    let weight = k.round(weight);
                    k.store::<Bf16>(to, weight);
                }
            }
            CacheScheme::Int8 => self.keep_for_bytes(k, vector, line, &weights),
        }
        let to = self.line(k, self.page_sums, vector);
        k.store(to, sum);
    }

    /// Shrink the sums of `height` vectors and add the page's weighted values to them.
    fn add_values(
        &self,
        k: &mut Builder<'c>,
        values: Lines<'c>,
        words: Index<'c>,
        first: Index<'c>,
        height: u32,
    ) {
        let lanes = u64::from(k.lanes());
        let factors: Vec<F32<'c>> = (0..height)
            .map(|row| {
                let vector = k.add_constant(first, u64::from(row));
                let factor = k.at::<F32>(self.factors, vector);
                let factor = k.load::<F32>(factor, 1);
                let [sums, page] =
                    [self.sums, self.page_sums].map(|list| self.line(k, list, vector));
                let (before, new) = (k.load::<F32>(sums, k.lanes()), k.load(page, k.lanes()));
                let all = k.fma(before, factor, new);
                k.store(sums, all);
                factor
            })
            .collect();
        let all = self.layout.padded() / lanes;
        let step = u64::from(self.blocking(k).columns);
        for start in (0..all).step_by(step as usize) {
            let columns = step.min(all - start);
            self.add_columns(k, values, words, first, &factors, [start, columns]);
        }
    }

    /// [`Self::add_values`] for vector registers `start .. start + columns` of the outputs.
    fn add_columns(
        &self,
        k: &mut Builder<'c>,
        values: Lines<'c>,
        words: Index<'c>,
        first: Index<'c>,
        factors: &[F32<'c>],
        [start, columns]: [u64; 2],
    ) {
        let lanes = k.lanes();
        let line_bytes = 4 * self.layout.padded();
        let skipped = 4 * u64::from(lanes) * start;
        let outputs = k.mul_constant(first, line_bytes);
        let outputs = k.at_bytes(self.outputs, outputs);
        let outputs = k.at_bytes_constant(outputs, skipped);
        let values = values.skip(k, skipped);
        let weights = k.mul_constant(first, 2 * PAGE);
        let weights = k.at_bytes(self.weights, weights);

        let place = |k: &mut Builder<'c>, row: usize, column: u64| {
            let offset = row as u64 * line_bytes + 4 * u64::from(k.lanes()) * column;
            k.at_bytes_constant(outputs, offset)
        };
        let places: Vec<(Ptr<'c>, F32<'c>)> = (factors.iter().enumerate())
            .flat_map(|(row, factor)| (0..columns).map(move |column| (row, column, *factor)))
            .map(|(row, column, factor)| (place(k, row, column), factor))
            .collect();
        let shrunk = |k: &mut Builder<'c>, (place, factor): (Ptr<'c>, F32<'c>)| {
            let before = k.load::<F32>(place, k.lanes());
            k.mul(before, factor)
        };
        let sums: Vec<F32<'c>> = match self.layout.scheme {
            CacheScheme::Bf16 => {
                let before = places.iter().map(|place| shrunk(k, *place)).collect();
                column_sums(k, (values, weights), words, before, [line_bytes, columns])
            }
            CacheScheme::Int8 => {
                let sums = [line_bytes, columns, factors.len() as u64];
                let sums = self.byte_sums(k, (values, weights), words, first, sums);
                let with_before = places.iter().zip(sums).map(|(place, sum)| {
                    let before = shrunk(k, *place);
                    k.add(before, sum)
                });
                with_before.collect()
            }
        };
        for ((place, _), sum) in places.into_iter().zip(sums) {
            k.store(place, sum);
        }
    }

    /// What the products of queries and keys are multiplied with.
    pub(super) fn scale(&self) -> f32 {
        (1.0 / f64::from(self.layout.head_dim).sqrt()) as f32
    }

    /// The vector register kept for `vector` in a list of them.
    fn line(&self, k: &mut Builder<'c>, list: Ptr<'c>, vector: Index<'c>) -> Ptr<'c> {
        let start = k.mul_constant(vector, 4 * MOST_LANES);
        k.at_bytes(list, start)
    }
}

/// Bytes of a query in the workspace; as integers, whole vector registers of them.
pub(super) fn query_bytes(layout: PageLayout) -> u64 {
    match layout.scheme {
        CacheScheme::Bf16 => 2 * u64::from(layout.head_dim),
        CacheScheme::Int8 => 2 * layout.padded(),
    }
}

/// `sums` with `pairs` lines of values, each weighted by every row's weights, added to them.
fn column_sums<'c>(
    k: &mut Builder<'c>,
    (values, weights): (Lines<'c>, Ptr<'c>),
    pairs: Index<'c>,
    sums: Vec<F32<'c>>,
    [line_bytes, columns]: [u64; 2],
) -> Vec<F32<'c>> {
    let zero = k.index(0);
    let height = sums.len() as u64 / columns;
    k.fold(zero, pairs, 1, sums, |k, pair, mut sums| {
        let line = k.mul_constant(pair, line_bytes);
        let values = values.load(k, line, columns, height as u32);
        let weights = k.at::<I32>(weights, pair);
        for row in 0..height {
            let weight = k.at_bytes_constant(weights, row * 2 * PAGE);
            let weight = k.load_word_everywhere(weight, k.lanes());
            for (column, values) in values.iter().enumerate() {
                let sum = &mut sums[row as usize * columns as usize + column];
                *sum = k.dot_bf16(*sum, weight, *values);
            }
        }
        sums
    })
}

/// Keys or values of a page, line by line, and those of the page that follows.
#[derive(Clone, Copy)]
pub(super) struct Lines<'c> {
    these: Ptr<'c>,
    next: Option<Ptr<'c>>,
}

impl<'c> Lines<'c> {
    fn skip(self, k: &mut Builder<'c>, bytes: u64) -> Self {
        let skip = |k: &mut Builder<'c>, at| k.at_bytes_constant(at, bytes);
        Self { these: skip(k, self.these), next: self.next.map(|next| skip(k, next)) }
    }

    /// `columns` vector registers of words that stand behind each other, `line` bytes into them, for
    /// `height` vectors.
    ///
    /// Few vectors are worked on as fast as memory gives pages, and a processor foresees no further
    /// than what is contiguous: so what stands there in the next page is brought near meanwhile.
    pub fn load(
        self,
        k: &mut Builder<'c>,
        line: Index<'c>,
        columns: u64,
        height: u32,
    ) -> Vec<I32<'c>> {
        let these = k.at_bytes(self.these, line);
        let vector = 4 * u64::from(k.lanes());
        if let Some(next) = self.next.filter(|_| height <= FEW) {
            let next = k.at_bytes(next, line);
            for line in (0..columns * vector).step_by(LINE_BYTES) {
                let line = k.at_bytes_constant(next, line);
                k.prefetch(line);
            }
        }
        (0..columns)
            .map(|column| {
                let from = k.at_bytes_constant(these, vector * column);
                k.load::<I32>(from, k.lanes())
            })
            .collect()
    }
}
