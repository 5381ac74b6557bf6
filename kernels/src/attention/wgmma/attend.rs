//! What a warpgroup does with the steps: scores of its 64 vectors, the softmax carried along in
//! registers, the weighted values.
//!
//! The scores of a step are asked for before the weighted values of the step before, and weighed while
//! those are under way. The warpgroups take turns at asking: while one weighs, the other's products run.
//!
//! Numbers: a vector's greatest score is kept multiplied by the scale, so that a step in which it sees
//! nothing multiplies its sums by exactly 1.

use super::ring::{AMONG_ATTENDING, Ring, Side, Stage};
use super::{ATTENDING, PIECE, STEP, Shape, VECTORS};
use crate::attention::flash::Flash;
use crate::emit::gpu::{Left, Swizzle};
use crate::emit::{Builder, F32, I32, Index, Ptr};

/// Barriers at which the warpgroups wait for their turn: this one and the next.
const FIRST_TURN: i32 = 2;

/// What a thread has of its vectors, rows g and g + 8 of its warp: sums of weighted values, the greatest
/// scaled score, its part of the sum of weights, and how many steps the block has seen.
pub(super) type State<'c> = (Vec<F32<'c>>, [F32<'c>; 2], [F32<'c>; 2], I32<'c>);

/// Weights of a step as the left side of the product with the values, 16 positions each.
type Weights<'c> = Vec<[I32<'c>; 4]>;

/// A thread that multiplies.
#[derive(Clone, Copy)]
pub(super) struct Attending<'c> {
    pub ring: Ring<'c>,
    /// Number of the warpgroup.
    pub group: Index<'c>,
    /// Which part of the steps the block takes.
    pub part: Index<'c>,
    /// Twice the thread's number in its four: its first column.
    pub column: I32<'c>,
    /// Barriers of its own turn and of the other's.
    turns: [I32<'c>; 2],
}

impl<'c> Attending<'c> {
    pub fn new(k: &mut Builder<'c>, ring: Ring<'c>, part: Index<'c>) -> Self {
        let (warp, lane) = (k.warp(), k.lane_id());
        let group = k.div_constant(warp, 4);
        let column = k.rem_constant(lane, 4);
        let column = k.mul_constant(column, 2);
        let column = k.i32_of(column);
        let (number, first) = (k.i32_of(group), k.i32(FIRST_TURN));
        let (own, one) = (k.add(number, first), k.i32(1));
        let other = k.xor(own, one);
        // The first turn is the first group's.
        let zero = k.i32(0);
        let second = k.less(zero, number);
        k.when(second, |k| k.arrive_at_numbered(other, ATTENDING));
        Self { ring, group, part, column, turns: [own, other] }
    }

    pub fn shape(&self) -> Shape {
        self.ring.shape
    }

    /// Number in the block of the warpgroup's first vector.
    pub fn first_vector(&self, k: &mut Builder<'c>) -> Index<'c> {
        k.mul_constant(self.group, u64::from(VECTORS / 2))
    }

    /// Numbers in the block of this thread's vectors.
    pub fn vectors(&self, k: &mut Builder<'c>) -> [Index<'c>; 2] {
        let (warp, lane) = (k.warp(), k.lane_id());
        let first = k.mul_constant(warp, 16);
        let row = k.div_constant(lane, 4);
        let row = k.add(row, first);
        [row, k.add_constant(row, 8)]
    }

    /// What `limit` gives for this thread's vectors: the last position that each sees, -1 for none.
    pub fn seen(
        &self,
        k: &mut Builder<'c>,
        limit: impl Fn(&mut Builder<'c>, Index<'c>) -> Index<'c>,
    ) -> [I32<'c>; 2] {
        self.vectors(k).map(|vector| {
            let last = limit(k, vector);
            k.i32_of(last)
        })
    }

    /// Bring the block's vectors to shared memory, swizzled as boxes are; `place` gives a vector's.
    pub fn bring_queries(
        &self,
        k: &mut Builder<'c>,
        place: impl FnOnce(&mut Builder<'c>, Index<'c>) -> Ptr<'c>,
    ) {
        k.note("1 queries");
        let units = u64::from(self.shape().head_dim) / 8;
        let (thread, end) = (k.thread(), k.index(u64::from(VECTORS) * units));
        k.for_each(thread, end, ATTENDING.into(), |k, at| {
            let (vector, unit) = (k.div_constant(at, units), k.rem_constant(at, units));
            let skipped = k.mul_constant(unit, 16);
            let from = place(k, vector);
            let from = k.at_bytes(from, skipped);
            let to = self.place(k, vector, unit);
            k.copy_async(to, from);
        });
        k.commit_copies();
        k.wait_for_copies(0);
        k.fence_async();
        k.barrier_of(AMONG_ATTENDING, ATTENDING);
    }

    /// Where 16 bytes of a vector stand, or of its results.
    pub fn place(&self, k: &mut Builder<'c>, vector: Index<'c>, unit: Index<'c>) -> Ptr<'c> {
        let (piece, within) = (k.div_constant(unit, 8), k.rem_constant(unit, 8));
        let [piece, row, unit] = [(piece, Shape::PIECE_BYTES), (vector, 2 * PIECE), (within, 16)]
            .map(|(number, bytes)| k.mul_constant(number, bytes));
        let offset = k.add(piece, row);
        let offset = k.add(offset, unit);
        k.at_swizzled(self.ring.queries, offset)
    }

    /// Nothing seen.
    pub fn open(&self, k: &mut Builder<'c>) -> State<'c> {
        let zero = k.f32(0.0);
        let least = k.f32(f32::NEG_INFINITY);
        (vec![zero; self.shape().head_dim as usize / 2], [least; 2], [zero; 2], k.i32(0))
    }

    /// Let the vectors see positions up to `last`. `masks` are the last positions that this thread's see
    /// and how many steps all vectors of the warpgroup see the whole of; without, they see all.
    pub fn see(
        &self,
        k: &mut Builder<'c>,
        last: Index<'c>,
        masks: Option<([I32<'c>; 2], Index<'c>)>,
        state: State<'c>,
    ) -> State<'c> {
        k.note("2 step by step");
        let before = k.div_constant(last, STEP);
        let steps = k.add_constant(before, 1);
        let shape = self.shape();
        if shape.parts == 1 {
            return self.see_steps(k, (steps, last), masks, state);
        }
        let steps = shape.own_steps(k, steps, self.part);
        let masks = masks.map(|(seen, whole)| (seen, shape.own_steps(k, whole, self.part)));
        let zero = k.index(0);
        let has = k.less(zero, steps);
        let kept = state.clone();
        k.choose(has, |k| self.see_steps(k, (steps, last), masks, state), |_| kept)
    }

    /// The part's steps, at least one; `masks` count the part's.
    fn see_steps(
        &self,
        k: &mut Builder<'c>,
        (steps, last): (Index<'c>, Index<'c>),
        masks: Option<([I32<'c>; 2], Index<'c>)>,
        state: State<'c>,
    ) -> State<'c> {
        let (_, _, _, first) = state;
        let one = k.index(1);
        let (weights, state) = self.first_step(k, first, masks, state);
        let carried = (weights, state);
        let turn = |k: &mut Builder<'c>, step: Index<'c>, masks, (weights, state)| {
            let step32 = k.i32_of(step);
            let at = k.add(first, step32);
            self.step(k, (step, at), masks, (weights, state))
        };
        let (weights, state) = match masks {
            None => k.fold(one, steps, 1, carried, |k, step, carried| turn(k, step, None, carried)),
            Some((seen, whole)) => {
                let whole = k.max(whole, one);
                let whole = k.min(whole, steps);
                let carried =
                    k.fold(one, whole, 1, carried, |k, step, carried| turn(k, step, None, carried));
                k.fold(whole, steps, 1, carried, |k, step, carried| {
                    turn(k, step, Some(seen), carried)
                })
            }
        };
        // Positions of the last step that there are.
        let before = k.sub_constant(steps, 1);
        let start = self.shape().step_of(k, before, self.part);
        let start = k.mul_constant(start, STEP);
        let there = k.sub(last, start);
        let there = k.add_constant(there, 1);
        let before = k.i32_of(before);
        let at = k.add(first, before);
        self.last_values(k, at, masks.is_some().then_some(there), weights, state)
    }

    /// Wait until it is this warpgroup's turn to ask for products.
    fn take_turn(&self, k: &mut Builder<'c>) {
        k.barrier_numbered(self.turns[0], ATTENDING);
    }

    fn give_turn(&self, k: &mut Builder<'c>) {
        k.arrive_at_numbered(self.turns[1], ATTENDING);
    }

    /// The last turn that was given is taken.
    pub fn end_turns(&self, k: &mut Builder<'c>) {
        let zero = k.index(0);
        let first = k.equal(self.group, zero);
        k.when(first, |k| self.take_turn(k));
    }

    /// Ask for the products of the vectors and the keys of a stage.
    fn ask_scores(&self, k: &mut Builder<'c>, keys: Stage<'c>) -> Vec<F32<'c>> {
        let first = k.mul_constant(self.group, PIECE_OF_GROUP);
        let vectors = k.at_bytes(self.ring.queries, first);
        let [left, right] =
            [vectors, keys.place].map(|place| k.descriptor(place, 1024, Swizzle::Bytes128));
        let mut scores = vec![k.f32(0.0); STEP as usize / 2];
        for at in 0..u64::from(self.shape().head_dim) / 16 {
            let skipped = (at / 4 * Shape::PIECE_BYTES + at % 4 * 32) / 16;
            let [left, right] = [left, right].map(|side| k.add_constant(side, skipped));
            scores = k.product_bf16(&scores, Left::Shared(left), right, at == 0);
        }
        k.commit_products();
        scores
    }

    /// Ask for the weighted values of a stage.
    fn ask_values(
        &self,
        k: &mut Builder<'c>,
        values: Stage<'c>,
        weights: &Weights<'c>,
        sums: Vec<F32<'c>>,
    ) -> Vec<F32<'c>> {
        let right = k.turned_descriptor(values.place, Shape::PIECE_BYTES as u32);
        let mut sums = sums;
        for (at, left) in weights.iter().enumerate() {
            let right = k.add_constant(right, at as u64 * 16 * 2 * PIECE / 16);
            sums = k.add_turned_bf16(&sums, Left::Registers(*left), right);
        }
        k.commit_products();
        sums
    }

    /// The first step of a run: there are no weights yet whose values could be added meanwhile.
    fn first_step(
        &self,
        k: &mut Builder<'c>,
        at: I32<'c>,
        masks: Option<([I32<'c>; 2], Index<'c>)>,
        (sums, most, totals, count): State<'c>,
    ) -> (Weights<'c>, State<'c>) {
        let keys = self.ring.stage(k, at, Side::Keys);
        k.wait_for_phase(keys.full, keys.parity);
        self.take_turn(k);
        k.begin_products();
        let scores = self.ask_scores(k, keys);
        self.give_turn(k);
        let mut scores = k.wait_for_products(0, &scores);
        self.ring.free(k, keys);
        if let Some((seen, _)) = masks {
            let zero = k.index(0);
            self.hide(k, &mut scores, seen, zero);
        }
        let (shrunk, most, totals) = self.weigh(k, &mut scores, most, totals);
        let sums = self.shrink(k, sums, shrunk);
        (operands(k, &scores), (sums, most, totals, count))
    }

    /// Step `step` of the run, the block's step `at`, and the values of the one before.
    fn step(
        &self,
        k: &mut Builder<'c>,
        (step, at): (Index<'c>, I32<'c>),
        seen: Option<[I32<'c>; 2]>,
        (weights, (sums, most, totals, count)): (Weights<'c>, State<'c>),
    ) -> (Weights<'c>, State<'c>) {
        let keys = self.ring.stage(k, at, Side::Keys);
        let one = k.i32(1);
        let before = k.sub(at, one);
        let values = self.ring.stage(k, before, Side::Values);
        k.wait_for_phase(keys.full, keys.parity);
        k.wait_for_phase(values.full, values.parity);
        self.take_turn(k);
        let (sums, weights) = k.begin_products_with(&sums, &weights);
        let scores = self.ask_scores(k, keys);
        let sums = self.ask_values(k, values, &weights, sums);
        self.give_turn(k);
        let mut scores = k.wait_for_products(1, &scores);
        self.ring.free(k, keys);
        if let Some(seen) = seen {
            self.hide(k, &mut scores, seen, step);
        }
        let (shrunk, most, totals) = self.weigh(k, &mut scores, most, totals);
        let sums = k.wait_for_products_of(0, &sums, &weights);
        self.ring.free(k, values);
        let sums = self.shrink(k, sums, shrunk);
        (operands(k, &scores), (sums, most, totals, count))
    }

    /// The values of a run's last step. Positions from `there` on are not: whatever stands at them, it
    /// counts as zeros.
    fn last_values(
        &self,
        k: &mut Builder<'c>,
        at: I32<'c>,
        there: Option<Index<'c>>,
        weights: Weights<'c>,
        (sums, most, totals, _): State<'c>,
    ) -> State<'c> {
        let values = self.ring.stage(k, at, Side::Values);
        k.wait_for_phase(values.full, values.parity);
        if let Some(there) = there {
            let all = k.index(STEP);
            let lacks = k.less(there, all);
            k.when(lacks, |k| self.clear(k, values.place, there));
        }
        let (sums, weights) = k.begin_products_with(&sums, &weights);
        let sums = self.ask_values(k, values, &weights, sums);
        let sums = k.wait_for_products_of(0, &sums, &weights);
        self.ring.free(k, values);
        let one = k.i32(1);
        (sums, most, totals, k.add(at, one))
    }

    /// Zeros for rows of a stage from `first` on; both warpgroups come here.
    fn clear(&self, k: &mut Builder<'c>, values: Ptr<'c>, first: Index<'c>) {
        let thread = k.thread();
        let units = k.mul_constant(first, PIECE / 8);
        let (begin, end) = (k.add(units, thread), k.index(STEP * PIECE / 8));
        let zeros = k.i32s(0, 4);
        k.for_each(begin, end, ATTENDING.into(), |k, unit| {
            let start = k.mul_constant(unit, 16);
            let place = k.at_bytes(values, start);
            for piece in 0..self.shape().pieces() {
                let place = k.at_bytes_constant(place, piece * Shape::PIECE_BYTES);
                k.store_whole(place, zeros);
            }
        });
        k.fence_async();
        k.barrier_of(AMONG_ATTENDING, ATTENDING);
    }

    /// Scores of what is not seen are less than all others.
    fn hide(
        &self,
        k: &mut Builder<'c>,
        scores: &mut [F32<'c>],
        seen: [I32<'c>; 2],
        step: Index<'c>,
    ) {
        let start = self.shape().step_of(k, step, self.part);
        let start = k.mul_constant(start, STEP);
        let start = k.i32_of(start);
        let start = k.add(start, self.column);
        let seen = seen.map(|seen| k.sub(seen, start));
        let least = k.f32(f32::NEG_INFINITY);
        for (at, score) in scores.iter_mut().enumerate() {
            let position = k.i32((at / 4 * 8 + at % 2) as i32);
            let visible = k.less_equal(position, seen[at / 2 % 2]);
            *score = k.select(visible, *score, least);
        }
    }

    /// Make weights of scores. Gives what the sums so far are multiplied by.
    fn weigh(
        &self,
        k: &mut Builder<'c>,
        scores: &mut [F32<'c>],
        mut most: [F32<'c>; 2],
        mut totals: [F32<'c>; 2],
    ) -> ([F32<'c>; 2], [F32<'c>; 2], [F32<'c>; 2]) {
        let scale = Flash::of_pages(self.shape().head_dim).scale();
        let (scale, zero, least) = (k.f32(scale), k.f32(0.0), k.f32(f32::NEG_INFINITY));
        let mut shrunk = [zero; 2];
        let mut bases = [zero; 2];
        for row in 0..2 {
            // Two chains a row, which do not wait for each other.
            let [even, odd] = [0, 1].map(|odd| {
                let mut greatest = scores[2 * row + odd];
                for four in scores[4..].chunks_exact(4) {
                    greatest = k.greater(greatest, four[2 * row + odd]);
                }
                greatest
            });
            let greatest = k.greater(even, odd);
            let greatest = k.join_lanes(greatest, 4, Builder::greater);
            let greatest = k.mul(greatest, scale);
            let newest = k.greater(greatest, most[row]);
            // Where nothing was seen yet, nothing is subtracted: no difference of infinities.
            let nothing = k.equal(newest, least);
            let base = k.select(nothing, zero, newest);
            let fewer = k.sub(most[row], base);
            shrunk[row] = k.exp2_approx(fewer);
            bases[row] = k.neg(base);
            most[row] = newest;
        }
        let mut parts = [[zero; 2]; 2];
        for (at, score) in scores.iter_mut().enumerate() {
            let (row, odd) = (at / 2 % 2, at % 2);
            let exponent = k.fma(*score, scale, bases[row]);
            *score = k.exp2_approx(exponent);
            let part = &mut parts[row][odd];
            *part = if at < 4 { *score } else { k.add(*part, *score) };
        }
        for row in 0..2 {
            let part = k.add(parts[row][0], parts[row][1]);
            totals[row] = k.fma(totals[row], shrunk[row], part);
        }
        (shrunk, most, totals)
    }

    fn shrink(
        &self,
        k: &mut Builder<'c>,
        sums: Vec<F32<'c>>,
        shrunk: [F32<'c>; 2],
    ) -> Vec<F32<'c>> {
        let shrunk = |at: usize| shrunk[at / 2 % 2];
        sums.into_iter().enumerate().map(|(at, sum)| k.mul(sum, shrunk(at))).collect()
    }
}

/// Bytes of a piece of a warpgroup's vectors.
const PIECE_OF_GROUP: u64 = Shape::PIECE_BYTES / 2;

/// Weights, rounded, as they stand in the threads: the left side of the product with the values.
fn operands<'c>(k: &mut Builder<'c>, weights: &[F32<'c>]) -> Weights<'c> {
    weights
        .chunks_exact(8)
        .map(|eight| [0, 1, 2, 3].map(|at| k.round_pair(eight[2 * at], eight[2 * at + 1])))
        .collect()
}
