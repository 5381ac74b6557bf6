//! Down to which logit tokens are kept, by their number and by the share of their weights.
//!
//! Keys are looked at digit by digit, the highest first: how many tokens, with what sum of weights, have
//! each digit, of those whose higher digits are the ones found so far. The digit at which the number or
//! the sum is reached is the next one found. Logits that nobody penalised have two digits, others four.

use super::row::{Row, key, of_key, weight_of_power};
use crate::emit::gpu::WARP;
use crate::emit::{Builder, F32, I32, Index, Ptr};

/// Bits of a digit, and how many digits there are.
const DIGIT: i32 = 8;
const DIGITS: u32 = 1 << DIGIT;

/// Threads that a cut needs: one for each digit.
pub(super) const THREADS: u32 = DIGITS;

/// Each digit is counted in as many places, so that neighbouring threads seldom meet at one.
const PLACES: u32 = 16;

/// Of each place: tokens, low words of their weights, carries of those.
const WORDS: u32 = 3;

const BYTES: u32 = 4 * WORDS * DIGITS * PLACES;

/// Warps that have a digit for each thread.
const WARPS: u32 = DIGITS / WARP;

/// Words of what a warp sums, and of the digit that is found.
const RECORD: u32 = 4;

/// Digits are counted at one place of the code for all keys, at three more for each way to find one.
const COUNTED: u32 = 7;
const FOUND: u32 = 8;

/// Shared memory that [`Cut::of`] takes.
pub(super) const SHARED: u32 = BYTES + 4 * RECORD * (COUNTED * WARPS + FOUND);

/// Tokens with a greater key are kept, and as many of those that have it, the lower ids first.
#[derive(Clone, Copy)]
pub(super) struct Cut<'c> {
    pub key: I32<'c>,
    pub ties: I32<'c>,
}

/// What is counted for the digit of this thread; threads beyond have none.
#[derive(Clone, Copy)]
struct Counted<'c> {
    /// Tokens of greater digits, and with this one.
    tokens: [Index<'c>; 2],
    /// Sums of their weights.
    weights: [Index<'c>; 2],
    all_tokens: Index<'c>,
    all_weights: Index<'c>,
}

/// What is still to be reached, and the weights of greater keys.
type Reached<'c> = (I32<'c>, Index<'c>, Index<'c>);

struct Selection<'c> {
    row: Row<'c>,
    top: F32<'c>,
    places: Ptr<'c>,
}

impl<'c> Cut<'c> {
    /// That of a row whose largest logit is `top`. All threads of the block, [`THREADS`] at least.
    pub fn of(k: &mut Builder<'c>, row: Row<'c>, top: F32<'c>) -> Self {
        assert!(k.threads() >= THREADS, "every digit has a thread");
        let places = k.shared(BYTES.into(), 16);
        let selection = Selection { row, top, places };
        let (all, every) = (k.i32(sail_ir::draw::Draw::ALL.cast_signed()), k.index(u64::MAX));
        let [all, every] = [k.equal(row.top_k, all), k.equal(row.share, every)];
        let both = k.and(all, every);
        let (key, ties) = k.choose(
            both,
            |k| everything(k),
            |k| {
                let Cut { key, ties } = selection.cut(k);
                (key, ties)
            },
        );
        Self { key, ties }
    }
}

/// No key is less, and none is this one.
fn everything<'c>(k: &mut Builder<'c>) -> (I32<'c>, I32<'c>) {
    (k.i32(i32::MIN), k.i32(0))
}

impl<'c> Selection<'c> {
    fn cut(&self, k: &mut Builder<'c>) -> Cut<'c> {
        let Self { row, .. } = self;
        let first = self.count(k, 24, None);
        let most = k.index_of(row.top_k);
        let fewer = k.less(most, first.all_tokens);
        let (key, ties, weights) = k.choose(
            fewer,
            |k| {
                let (key, ties, above) = self.descend(k, &first, most, false);
                let each = self.weight_of(k, key);
                let weights = k.mul(ties, each);
                (key, k.i32_of(ties), k.add(above, weights))
            },
            |k| {
                let (key, ties) = everything(k);
                (key, ties, first.all_weights)
            },
        );
        let every = k.index(u64::MAX);
        let every = k.equal(row.share, every);
        let (key, ties) = k.choose(
            every,
            |_| (key, ties),
            |k| {
                let share = share_of(k, weights, row.share);
                let (key, left, _) = self.descend(k, &first, share, true);
                let each = self.weight_of(k, key);
                let ties = k.add(left, each);
                let ties = k.sub_constant(ties, 1);
                let ties = k.div(ties, each);
                (key, k.i32_of(ties))
            },
        );
        Cut { key, ties }
    }

    /// The weight of the logit with this key.
    fn weight_of(&self, k: &mut Builder<'c>, key: I32<'c>) -> Index<'c> {
        let value = of_key(k, key);
        let weight = self.row.weight(k, value, self.top);
        k.index_of(weight)
    }

    /// The key at which `left` tokens, or that sum of weights, are reached, what is left of it for those
    /// that have this key, and the weights of greater keys. `first` is what is counted for the highest
    /// digits; together they reach `left`.
    fn descend(
        &self,
        k: &mut Builder<'c>,
        first: &Counted<'c>,
        left: Index<'c>,
        by_weight: bool,
    ) -> Reached<'c> {
        let (digit, left, above) = found(k, first, left, by_weight);
        // The sign is the highest bit, and less than none.
        let sign = k.i32(1 << (DIGIT - 1));
        let prefix = k.xor(digit, sign);
        let next = |k: &mut Builder<'c>, shift, (prefix, left, above): Reached<'c>| {
            let counted = self.count(k, shift, Some(prefix));
            let (digit, left, between) = found(k, &counted, left, by_weight);
            let prefix = k.shift_left(prefix, DIGIT);
            (k.or(prefix, digit), left, k.add(above, between))
        };
        let half = next(k, 16, (prefix, left, above));
        k.choose(
            self.row.penalised,
            |k| {
                let most = next(k, 8, half);
                next(k, 0, most)
            },
            |k| {
                // The lower half of a bf16 is zeros, and so the key's, or ones where the sign turns it.
                let (prefix, left, above) = half;
                let high = k.shift_left(prefix, 16);
                let sign = k.shift_right_signed(high, 31);
                let low = k.i32(0xffff);
                let low = k.and(sign, low);
                (k.or(high, low), left, above)
            },
        )
    }

    /// Count the digits from bit `shift` on, of keys whose higher bits are `prefix` and whose tokens have
    /// a weight.
    fn count(&self, k: &mut Builder<'c>, shift: i32, prefix: Option<I32<'c>>) -> Counted<'c> {
        let Self { row, top, places } = self;
        let thread = k.thread();
        let begin = k.mul_constant(thread, 4);
        let end = k.index((BYTES / 4).into());
        let zeros = k.i32s(0, 4);
        k.for_each(begin, end, u64::from(4 * k.threads()), |k, at| {
            let place = k.at::<I32>(*places, at);
            k.store_whole(place, zeros);
        });
        k.barrier();
        let lane = k.lane_id();
        let own = k.rem_constant(lane, PLACES.into());
        let own = k.at::<I32>(*places, own);
        row.for_each(k, |k, value| {
            let key = key(k, value);
            let (power, near) = row.power(k, value, *top);
            let here = match prefix {
                None => near,
                Some(prefix) => {
                    let high = k.shift_right(key, shift + DIGIT);
                    let here = k.equal(high, prefix);
                    k.and(near, here)
                }
            };
            k.when(here, |k| {
                let weight = weight_of_power(k, power);
                let zero = k.i32(0);
                let some = k.less(zero, weight);
                k.when(some, |k| {
                    let digit = digit_of(k, key, shift);
                    add_to(k, own, digit, weight);
                });
            });
        });
        k.barrier();
        self.sum(k)
    }

    /// Join the places of each digit, then the digits from the greatest on.
    fn sum(&self, k: &mut Builder<'c>) -> Counted<'c> {
        let (thread, last) = (k.thread(), k.index((DIGITS - 1).into()));
        let digits = k.index(DIGITS.into());
        let has = k.less(thread, digits);
        let [tokens, weights] = k.choose(
            has,
            |k| {
                let digit = k.sub(last, thread);
                let row = k.mul_constant(digit, PLACES.into());
                // Neighbouring threads begin at different places.
                let turn = k.div_constant(thread, 2);
                let mut sums = [k.index(0); WORDS as usize];
                for place in 0..PLACES {
                    let place = k.add_constant(turn, place.into());
                    let place = k.rem_constant(place, PLACES.into());
                    let place = k.add(row, place);
                    let place = k.at::<I32>(self.places, place);
                    for (word, sum) in (0..).zip(&mut sums) {
                        let place = k.at_bytes_constant(place, word_bytes(word));
                        let word = k.load::<I32>(place, 1);
                        let word = k.unsigned(word);
                        *sum = k.add(*sum, word);
                    }
                }
                let [tokens, low, carries] = sums;
                let high = k.mul_constant(carries, 1 << 32);
                [tokens, k.add(low, high)]
            },
            |k| [k.index(0); 2],
        );
        let tokens = k.sums_along_warp(tokens);
        let weights = k.sums_along_warp(weights);
        along_block(k, tokens, weights)
    }
}

/// Sums along the block out of those along its warps.
fn along_block<'c>(
    k: &mut Builder<'c>,
    tokens: [Index<'c>; 2],
    weights: [Index<'c>; 2],
) -> Counted<'c> {
    let records = k.shared((4 * RECORD * WARPS).into(), 16);
    let (warp, lane, last) = (k.warp(), k.lane_id(), k.index((WARP - 1).into()));
    let warps = k.index(WARPS.into());
    let [has, is_last] = [k.less(warp, warps), k.equal(lane, last)];
    let writes = k.and(has, is_last);
    k.when(writes, |k| {
        let at = k.mul_constant(warp, RECORD.into());
        let place = k.at::<I32>(records, at);
        let digit = k.i32(0);
        put_record(k, place, (tokens[1], weights[1], digit));
    });
    k.barrier();
    let zero = k.index(0);
    let mut before = [zero; 2];
    let mut all = [zero; 2];
    for number in 0..WARPS {
        let place = k.at_bytes_constant(records, (4 * RECORD * number).into());
        let (tokens, weights, _) = record(k, place);
        let number = k.index(number.into());
        let earlier = k.less(number, warp);
        for ((before, all), sum) in before.iter_mut().zip(&mut all).zip([tokens, weights]) {
            *all = k.add(*all, sum);
            let sum = k.select(earlier, sum, zero);
            *before = k.add(*before, sum);
        }
    }
    Counted {
        tokens: tokens.map(|sum| k.add(sum, before[0])),
        weights: weights.map(|sum| k.add(sum, before[1])),
        all_tokens: all[0],
        all_weights: all[1],
    }
}

/// The digit at which `left` is reached, what is left of it there, and the weights of greater ones.
fn found<'c>(
    k: &mut Builder<'c>,
    counted: &Counted<'c>,
    left: Index<'c>,
    by_weight: bool,
) -> Reached<'c> {
    let place = k.shared((4 * RECORD).into(), 16);
    let [before, with] = if by_weight { counted.weights } else { counted.tokens };
    let [below, reached] = [k.less(before, left), k.less_equal(left, with)];
    // Where a digit has no token, both are the same.
    let here = k.and(below, reached);
    k.when(here, |k| {
        let (thread, last) = (k.thread(), k.index((DIGITS - 1).into()));
        let digit = k.sub(last, thread);
        let digit = k.i32_of(digit);
        put_record(k, place, (counted.tokens[0], counted.weights[0], digit));
    });
    k.barrier();
    let (tokens, weights, digit) = record(k, place);
    let passed = if by_weight { weights } else { tokens };
    (digit, k.sub(left, passed), weights)
}

/// Tokens, the sum of their weights, and a digit.
type Record<'c> = (Index<'c>, Index<'c>, I32<'c>);

fn put_record<'c>(k: &mut Builder<'c>, place: Ptr<'c>, (tokens, weights, digit): Record<'c>) {
    let tokens = k.i32_of(tokens);
    let [low, high] = k.halves(weights);
    let words = k.vector_of(&[tokens, low, high, digit]);
    k.store_whole(place, words);
}

fn record<'c>(k: &mut Builder<'c>, place: Ptr<'c>) -> Record<'c> {
    let words = k.load_whole::<I32>(place, RECORD);
    let [tokens, low, high, digit] = k.lanes_of(words)[..] else { unreachable!("four words") };
    (k.unsigned(tokens), k.of_halves([low, high]), digit)
}

/// Byte of a place's `word`, from that of its first one.
fn word_bytes(word: u64) -> u64 {
    4 * u64::from(DIGITS * PLACES) * word
}

fn digit_of<'c>(k: &mut Builder<'c>, key: I32<'c>, shift: i32) -> I32<'c> {
    let digit = k.shift_right(key, shift);
    let mask = k.i32(DIGITS as i32 - 1);
    let digit = k.and(digit, mask);
    if shift + DIGIT < 32 {
        return digit;
    }
    let sign = k.i32(1 << (DIGIT - 1));
    k.xor(digit, sign)
}

/// One more token of a digit, at this thread's `own` place of the first one.
fn add_to<'c>(k: &mut Builder<'c>, own: Ptr<'c>, digit: I32<'c>, weight: I32<'c>) {
    let digit = k.index_of(digit);
    let at = k.mul_constant(digit, u64::from(4 * PLACES));
    let tokens = k.at_bytes(own, at);
    let [low, carries] = [1, 2].map(|word| k.at_bytes_constant(tokens, word_bytes(word)));
    let one = k.i32(1);
    k.add_atomically(tokens, one);
    let before = k.add_atomically(low, weight);
    let after = k.add(before, weight);
    let [before, after] = [before, after].map(|word| k.unsigned(word));
    let carried = k.less(after, before);
    k.when(carried, |k| {
        k.add_atomically(carries, one);
    });
}

/// [`sail_ir::draw::share_of`], at least 1.
fn share_of<'c>(k: &mut Builder<'c>, total: Index<'c>, share: Index<'c>) -> Index<'c> {
    let (high, low) = (k.high_of_product(total, share), k.mul(total, share));
    let (zero, one) = (k.index(0), k.index(1));
    let whole = k.equal(low, zero);
    let more = k.add(high, one);
    let share = k.select(whole, high, more);
    k.max(share, one)
}
