//! The token in whose part of the sum a random number falls, ids ascending.
//!
//! A row is cut into tiles, one piece for each thread of a warp. Warps sum runs of tiles, the run in which
//! the place lies is shared out among the warps again, until it is one tile.

use sail_ir::draw::{MULTIPLIERS, ROUNDS, WEYL};

use super::NONE;
use super::row::{Row, key, of_key};
use super::select::Cut;
use crate::emit::gpu::{WARP, piece_width};
use crate::emit::{Builder, F32, I32, Index};

/// Words of what a warp sums.
const RECORD: u32 = 4;

/// What is kept of a run of tokens.
#[derive(Clone, Copy)]
struct Kept<'c> {
    /// Weights of keys above the cut's.
    above: Index<'c>,
    /// Tokens whose key is the cut's.
    equal: I32<'c>,
}

/// A place among the tokens from some id on.
#[derive(Clone, Copy)]
struct Place<'c> {
    /// How much of the sum comes before it.
    left: Index<'c>,
    /// How many tokens with the cut's key are kept.
    ties: I32<'c>,
}

/// Where the part of this thread lies among those of its warp.
struct Along<'c> {
    /// Sums of the parts before it, and with it.
    sums: [Index<'c>; 2],
    /// How many tokens with the cut's key may be kept from it on.
    ties: I32<'c>,
}

/// The draw of a row.
pub(super) struct Walk<'c> {
    pub row: Row<'c>,
    pub top: F32<'c>,
    pub cut: Cut<'c>,
    /// Weight of a token whose key is the cut's.
    each: Index<'c>,
}

/// Tiles that a warp sums at each step, the last time one.
fn steps(vocabulary: u32, threads: u32) -> Vec<u64> {
    let tile = u64::from(WARP * piece_width(vocabulary.into()));
    let mut run = u64::from(vocabulary).div_ceil(tile);
    let mut steps = Vec::new();
    while run > 1 || steps.is_empty() {
        run = run.div_ceil(u64::from(threads / WARP));
        steps.push(run);
    }
    steps
}

/// Shared memory that a walk takes.
pub(super) fn shared_bytes(vocabulary: u32, threads: u32) -> u32 {
    steps(vocabulary, threads).len() as u32 * 4 * RECORD * (threads / WARP)
}

impl<'c> Walk<'c> {
    pub fn new(k: &mut Builder<'c>, row: Row<'c>, top: F32<'c>, cut: Cut<'c>) -> Self {
        let value = of_key(k, cut.key);
        let each = row.weight(k, value, top);
        let each = at_least(k, each, row.least);
        // Where every key is above the cut's, that one has no logit.
        let (none, zero) = (k.i32(0), k.index(0));
        let few = k.equal(cut.ties, none);
        let each = k.index_of(each);
        let each = k.select(few, zero, each);
        Self { row, top, cut, each }
    }

    /// The token, for the random number of `position`. All threads of the block.
    pub fn token(&self, k: &mut Builder<'c>, position: I32<'c>) -> I32<'c> {
        let random = random(k, position, self.row.seed);
        let mut start = k.index(0);
        let mut place: Option<Place<'c>> = None;
        for run in steps(self.row.vocabulary, k.threads()) {
            let warp = k.warp();
            let first = k.mul_constant(warp, run);
            let first = k.add(start, first);
            let end = k.add_constant(first, run);
            let kept = self.of_tiles(k, first, end);
            let kept = shared_out(k, kept);
            let ties = place.map_or(self.cut.ties, |place| place.ties);
            let along = self.along_warp(k, kept, ties);
            let left = match place {
                Some(place) => place.left,
                None => {
                    let sum = k.halves(along.sums[1]).map(|half| k.from_lane(half, WARP - 1));
                    let sum = k.of_halves(sum);
                    k.high_of_product(random, sum)
                }
            };
            let (warp, here) = along.at(k, left);
            let further = k.mul_constant(warp, run);
            start = k.add(start, further);
            place = Some(here);
        }
        let place = place.expect("there is a step");
        self.in_tile(k, start, place)
    }

    /// What is kept of the tiles from `first` to before `end`, summed over the warp.
    fn of_tiles(&self, k: &mut Builder<'c>, first: Index<'c>, end: Index<'c>) -> Kept<'c> {
        let zero = (k.index(0), k.i32(0));
        let (above, equal) = k.fold(first, end, 1, zero, |k, tile, (above, equal)| {
            let tokens = self.of_tile(k, tile);
            tokens.into_iter().fold((above, equal), |(above, equal), (weight, tie)| {
                let weight = k.index_of(weight);
                (k.add(above, weight), k.add(equal, tie))
            })
        });
        Kept { above: k.wide_sum_of_warp(above), equal: k.sum_of_warp(equal) }
    }

    /// Of each token of a thread's piece of a tile its weight if its key is above the cut's, and 1 if it
    /// is the cut's.
    fn of_tile(&self, k: &mut Builder<'c>, tile: Index<'c>) -> Vec<(I32<'c>, I32<'c>)> {
        let row = &self.row;
        let width = row.piece_width();
        let at = self.first_id(k, tile);
        let length = k.index(row.vocabulary.into());
        let inside = k.less(at, length);
        k.choose(
            inside,
            |k| {
                let values = row.piece(k, at);
                let tokens = values.into_iter().map(|value| {
                    let key = key(k, value);
                    let [above, equal] = [k.less(self.cut.key, key), k.equal(self.cut.key, key)];
                    let (zero, one) = (k.i32(0), k.i32(1));
                    let weight = k.choose(
                        above,
                        |k| {
                            let weight = row.weight(k, value, self.top);
                            at_least(k, weight, row.least)
                        },
                        |_| zero,
                    );
                    (weight, k.select(equal, one, zero))
                });
                tokens.collect()
            },
            |k| (0..width).map(|_| (k.i32(0), k.i32(0))).collect(),
        )
    }

    /// The first id of this thread's piece of a tile.
    fn first_id(&self, k: &mut Builder<'c>, tile: Index<'c>) -> Index<'c> {
        let width = self.row.piece_width();
        let lane = k.lane_id();
        let lane = k.mul_constant(lane, width.into());
        let tile = k.mul_constant(tile, u64::from(WARP * width));
        k.add(tile, lane)
    }

    /// The weights of a run of tokens of which at most `ties` with the cut's key are kept, and how many
    /// may be kept after it.
    fn part(&self, k: &mut Builder<'c>, kept: Kept<'c>, ties: I32<'c>) -> (Index<'c>, I32<'c>) {
        let equal = k.min(kept.equal, ties);
        let rest = k.sub(ties, equal);
        let equal = k.index_of(equal);
        let equal = k.mul(equal, self.each);
        (k.add(kept.above, equal), rest)
    }

    /// What the threads of the warp have, one after another, where at most `ties` with the cut's key are
    /// kept of all of it.
    fn along_warp(&self, k: &mut Builder<'c>, kept: Kept<'c>, ties: I32<'c>) -> Along<'c> {
        let equal = k.unsigned(kept.equal);
        let [before, _] = k.sums_along_warp(equal);
        let (before, none) = (k.i32_of(before), k.i32(0));
        let ties = k.sub(ties, before);
        let ties = k.max(ties, none);
        let (part, _) = self.part(k, kept, ties);
        Along { sums: k.sums_along_warp(part), ties }
    }

    /// The token of a tile at `place`; every warp for itself.
    fn in_tile(&self, k: &mut Builder<'c>, tile: Index<'c>, place: Place<'c>) -> I32<'c> {
        let tokens = self.of_tile(k, tile);
        let zero = (k.index(0), k.i32(0));
        let (above, equal) = tokens.iter().fold(zero, |(above, equal), (weight, tie)| {
            let weight = k.index_of(*weight);
            (k.add(above, weight), k.add(equal, *tie))
        });
        let Along { sums: [before, _], mut ties } =
            self.along_warp(k, Kept { above, equal }, place.ties);
        let mut left = k.sub(place.left, before);
        let first = self.first_id(k, tile);
        let first = k.i32_of(first);
        let mut id = k.i32(NONE);
        for (number, (weight, equal)) in (0..).zip(tokens) {
            let above = k.index_of(weight);
            let (part, rest) = self.part(k, Kept { above, equal }, ties);
            let (zero, number) = (k.index(0), k.i32(number));
            let [reached, within] = [k.less_equal(zero, left), k.less(left, part)];
            let here = k.and(reached, within);
            let token = k.add(first, number);
            id = k.select(here, token, id);
            left = k.sub(left, part);
            ties = rest;
        }
        k.join_warp(id, Builder::min)
    }
}

impl<'c> Along<'c> {
    /// The thread in whose part `left` lies, and the place there.
    fn at(&self, k: &mut Builder<'c>, left: Index<'c>) -> (Index<'c>, Place<'c>) {
        let [before, with] = self.sums;
        let [reached, within] = [k.less_equal(before, left), k.less(left, with)];
        let here = k.and(reached, within);
        let (lane, none) = (k.lane_id(), k.i32(NONE));
        let lane = k.i32_of(lane);
        let lane = k.select(here, lane, none);
        let lane = k.join_warp(lane, Builder::min);
        let left = k.sub(left, before);
        let left = k.halves(left).map(|half| k.from_any_lane(half, lane));
        let (left, ties) = (k.of_halves(left), k.from_any_lane(self.ties, lane));
        (k.index_of(lane), Place { left, ties })
    }
}

/// For each thread of a warp what the warp of its number has; nothing beyond the last warp.
fn shared_out<'c>(k: &mut Builder<'c>, kept: Kept<'c>) -> Kept<'c> {
    let warps = k.threads() / WARP;
    let records = k.shared((4 * RECORD * warps).into(), 16);
    let (warp, lane, zero) = (k.warp(), k.lane_id(), k.index(0));
    let first = k.equal(lane, zero);
    k.when(first, |k| {
        let [low, high] = k.halves(kept.above);
        let unused = k.i32(0);
        let words = k.vector_of(&[low, high, kept.equal, unused]);
        let at = k.mul_constant(warp, RECORD.into());
        let place = k.at::<I32>(records, at);
        k.store_whole(place, words);
    });
    k.barrier();
    let warps = k.index(warps.into());
    let has = k.less(lane, warps);
    let (above, equal) = k.choose(
        has,
        |k| {
            let at = k.mul_constant(lane, RECORD.into());
            let place = k.at::<I32>(records, at);
            let words = k.load_whole::<I32>(place, RECORD);
            let [low, high, equal, _] = k.lanes_of(words)[..] else { unreachable!("four words") };
            (k.of_halves([low, high]), equal)
        },
        |k| (k.index(0), k.i32(0)),
    );
    Kept { above, equal }
}

/// A weight that is not below `least`, else none.
fn at_least<'c>(k: &mut Builder<'c>, weight: I32<'c>, least: I32<'c>) -> I32<'c> {
    let (below, zero) = (k.less(weight, least), k.i32(0));
    k.select(below, zero, weight)
}

/// 64 random bits: two words of [`sail_ir::draw::philox`].
fn random<'c>(k: &mut Builder<'c>, position: I32<'c>, seed: [I32<'c>; 2]) -> Index<'c> {
    let word = |k: &Builder<'c>, value: u32| k.i32(value.cast_signed());
    let zero = k.i32(0);
    let mut counter = [position, zero, zero, zero];
    let mut key = seed;
    for _ in 0..ROUNDS {
        let [low, high] = [0, 1].map(|half| {
            let factor = k.index(MULTIPLIERS[half].into());
            let word = k.unsigned(counter[2 * half]);
            let product = k.mul(word, factor);
            k.halves(product)
        });
        let mixed = [(high, 1, 0), (low, 3, 1)].map(|(product, word, half)| {
            let mixed = k.xor(product[1], counter[word]);
            k.xor(mixed, key[half])
        });
        counter = [mixed[0], high[0], mixed[1], low[0]];
        key = [0, 1].map(|half| {
            let step = word(k, WEYL[half]);
            k.add(key[half], step)
        });
    }
    let [high, low, ..] = counter;
    k.of_halves([low, high])
}
