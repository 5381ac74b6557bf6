//! A row of logits as a draw sees it: after the penalty, in their order, with their weights.
//!
//! Every value is what [`sail_ir::draw`] says, operation by operation.

use sail_ir::draw;

use super::NONE;
use crate::emit::gpu::piece_width;
use crate::emit::{Bool, Builder, F32, I32, Index, Piece, Ptr};
use crate::rows::row_at;

/// Bits of a word.
const BITS: u64 = 32;

/// Where a row stands and how its token is drawn, alike in all threads.
#[derive(Clone, Copy)]
pub(super) struct Row<'c> {
    pub vocabulary: u32,
    logits: Ptr<'c>,
    /// A bit for each token that was chosen before.
    seen: Ptr<'c>,
    rate: F32<'c>,
    pub top_k: I32<'c>,
    pub share: Index<'c>,
    pub least: I32<'c>,
    penalty: F32<'c>,
    pub seed: [I32<'c>; 2],
    /// Whether the penalty changes anything.
    pub penalised: Bool<'c>,
}

impl<'c> Row<'c> {
    /// Row `row` of `logits`, with its words of `draws` and its bits of `seen`.
    pub fn of(
        k: &mut Builder<'c>,
        vocabulary: u32,
        [logits, draws, seen]: [Ptr<'c>; 3],
        row: Index<'c>,
    ) -> Self {
        let logits = row_at(k, logits, row, vocabulary);
        let first = k.mul_constant(row, draw::Draw::WORDS as u64);
        let words = [0, 4].map(|at| {
            let at = k.add_constant(first, at);
            let place = k.at::<I32>(draws, at);
            let words = k.load_whole::<I32>(place, 4);
            k.lanes_of(words)
        });
        let [rate, top_k, share_low, share_high] = words[0][..] else { unreachable!("four") };
        let [least, penalty, seed_low, seed_high] = words[1][..] else { unreachable!("four") };
        let [rate, penalty] = [rate, penalty].map(|bits| k.of_bits(bits));
        let share = k.of_halves([share_low, share_high]);
        let first = k.mul_constant(row, seen_words(vocabulary.into()));
        let seen = k.at::<I32>(seen, first);
        let one = k.f32(1.0);
        let same = k.equal(penalty, one);
        let penalised = k.not(same);
        let seed = [seed_low, seed_high];
        Self { vocabulary, logits, seen, rate, top_k, share, least, penalty, seed, penalised }
    }

    /// Whether nothing but the largest logit counts.
    pub fn is_greedy(&self, k: &mut Builder<'c>) -> Bool<'c> {
        let one = k.i32(1);
        let single = k.equal(self.top_k, one);
        let plain = k.not(self.penalised);
        k.and(single, plain)
    }

    pub fn piece_width(&self) -> u32 {
        piece_width(self.vocabulary.into())
    }

    /// The logits of the piece at `at`, after the penalty.
    pub fn piece(&self, k: &mut Builder<'c>, at: Index<'c>) -> Vec<F32<'c>> {
        let width = self.piece_width();
        let values = k.read_widened(self.logits, Piece { at, count: None, width });
        let values = k.lanes_of(values);
        k.choose(self.penalised, |k| self.penalise(k, at, &values), |_| values.clone())
    }

    fn penalise(&self, k: &mut Builder<'c>, at: Index<'c>, values: &[F32<'c>]) -> Vec<F32<'c>> {
        // A piece has a power of two of tokens, at most eight: its bits stand in one word.
        let [word, bit] = [k.div_constant(at, BITS), k.rem_constant(at, BITS)];
        let place = k.at::<I32>(self.seen, word);
        let bits = k.load::<I32>(place, 1);
        let bit = k.i32_of(bit);
        let bits = k.shift_right_by(bits, bit);
        let mask = k.i32((1 << self.piece_width()) - 1);
        let (bits, zero) = (k.and(bits, mask), k.i32(0));
        let none = k.equal(bits, zero);
        k.choose(
            none,
            |_| values.to_vec(),
            |k| {
                let (nothing, one) = (k.f32(0.0), k.i32(1));
                let values = (0..).zip(values).map(|(number, value)| {
                    let bit = k.shift_right(bits, number);
                    let bit = k.and(bit, one);
                    let plain = k.equal(bit, zero);
                    let above = k.less(nothing, *value);
                    let (less, more) = (k.div(*value, self.penalty), k.mul(*value, self.penalty));
                    let changed = k.select(above, less, more);
                    k.select(plain, *value, changed)
                });
                values.collect()
            },
        )
    }

    /// `body` for every logit of the row that is this thread's, in no order.
    pub fn for_each(&self, k: &mut Builder<'c>, mut body: impl FnMut(&mut Builder<'c>, F32<'c>)) {
        self.fold(k, (), |k, _, value, ()| body(k, value));
    }

    fn fold<T: crate::emit::Carried<'c>>(
        &self,
        k: &mut Builder<'c>,
        first: T,
        mut body: impl FnMut(&mut Builder<'c>, Index<'c>, F32<'c>, T) -> T,
    ) -> T {
        let width = self.piece_width();
        let thread = k.thread();
        let begin = k.mul_constant(thread, width.into());
        let end = k.index(self.vocabulary.into());
        let turn = u64::from(width * k.threads());
        k.fold(begin, end, turn, first, |k, at, carried| {
            let values = self.piece(k, at);
            (0..).zip(values).fold(carried, |carried, (number, value)| {
                let id = k.add_constant(at, number);
                body(k, id, value, carried)
            })
        })
    }

    /// The largest logit, and the lowest id of what is none ([`NONE`] where all are).
    pub fn largest(&self, k: &mut Builder<'c>) -> (F32<'c>, I32<'c>) {
        let (least, infinite) = (k.f32(f32::NEG_INFINITY), k.f32(f32::INFINITY));
        let none = k.i32(NONE);
        let (most, bad) = self.fold(k, (least, none), |k, id, value, (most, bad)| {
            let (missing, above) = (k.is_nan(value), k.equal(value, infinite));
            let no_logit = k.or(missing, above);
            let id = k.i32_of(id);
            let earlier = k.min(bad, id);
            // Nothing is more than no number.
            (k.max(value, most), k.select(no_logit, earlier, bad))
        });
        (k.max_of_block(most), k.join_block(bad, Builder::min))
    }

    /// The weight of a logit.
    pub fn weight(&self, k: &mut Builder<'c>, value: F32<'c>, top: F32<'c>) -> I32<'c> {
        let (power, near) = self.power(k, value, top);
        k.choose(near, |k| weight_of_power(k, power), |k| k.i32(0))
    }

    /// The power of two that a logit is, and whether that has a weight.
    pub fn power(&self, k: &mut Builder<'c>, value: F32<'c>, top: F32<'c>) -> (F32<'c>, Bool<'c>) {
        let distance = k.sub(value, top);
        let power = k.mul(distance, self.rate);
        let farthest = k.f32(draw::FARTHEST);
        (power, k.less(farthest, power))
    }

    /// The token is one of those that were chosen before; for one thread of the block.
    pub fn note(&self, k: &mut Builder<'c>, id: I32<'c>) {
        let [word, bit] = [k.shift_right(id, 5), k.i32(31)];
        let bit = k.and(id, bit);
        let one = k.i32(1);
        let bit = k.shift_left_by(one, bit);
        let word = k.index_of(word);
        let place = k.at::<I32>(self.seen, word);
        let bits = k.load::<I32>(place, 1);
        let bits = k.or(bits, bit);
        k.store(place, bits);
    }
}

/// Words of a row of `seen`.
pub(super) fn seen_words(vocabulary: u64) -> u64 {
    vocabulary.div_ceil(BITS)
}

/// The weight of a power of two that has one.
pub(super) fn weight_of_power<'c>(k: &mut Builder<'c>, power: F32<'c>) -> I32<'c> {
    let (rounder, rounder_bits) = (k.f32(draw::ROUNDER), k.i32(draw::ROUNDER.to_bits() as i32));
    let rounded = k.add(power, rounder);
    let whole = k.sub(rounded, rounder);
    let rest = k.sub(power, whole);
    let bits = k.bits(rounded);
    let whole = k.sub(bits, rounder_bits);
    let [coefficients @ .., last] = draw::POWER;
    let mut slope = k.f32(last);
    for next in coefficients.iter().rev() {
        // Not fused, as the definition is not.
        let next = k.f32(*next);
        let product = k.mul(slope, rest);
        slope = k.add(product, next);
    }
    let bias = k.i32(draw::UNIT_BITS + 127);
    let exponent = k.add(whole, bias);
    let scale = k.shift_left(exponent, 23);
    let scale = k.of_bits(scale);
    let (one, product) = (k.f32(1.0), k.mul(slope, rest));
    let near = k.add(product, one);
    let scaled = k.mul(near, scale);
    k.truncate(scaled)
}

/// A number that is greater, with a sign, for a greater logit, and the same for equal ones.
pub(super) fn key<'c>(k: &mut Builder<'c>, value: F32<'c>) -> I32<'c> {
    // Of two zeros, the one without a sign.
    let zero = k.f32(0.0);
    let value = k.add(value, zero);
    let bits = k.bits(value);
    turned(k, bits)
}

/// The logit that has a key.
pub(super) fn of_key<'c>(k: &mut Builder<'c>, key: I32<'c>) -> F32<'c> {
    let bits = turned(k, key);
    k.of_bits(bits)
}

/// Bits of a negative number in the order of its value, and back.
fn turned<'c>(k: &mut Builder<'c>, bits: I32<'c>) -> I32<'c> {
    let sign = k.shift_right_signed(bits, 31);
    let rest = k.i32(i32::MAX);
    let turn = k.and(sign, rest);
    k.xor(bits, turn)
}
