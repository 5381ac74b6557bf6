//! What warps, and then blocks, saw of the positions of a row, joined in their order.

use super::flash::{Flash, State, VECTORS};
use crate::emit::gpu::Cache;
use crate::emit::{Bf16, Builder, F32, I32, Index, Ptr};

/// Parts that are read at once.
const AT_ONCE: u32 = 16;

/// What warps saw, in shared memory: for each warp and vector the sums, the largest score and the sum of
/// weights.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    pub warps: u32,
    /// Query vectors that there are.
    pub vectors: u32,
    pub flash: Flash,
}

/// A pair of neighbouring sums, the largest score, the sum of weights.
type Part<'c> = (F32<'c>, F32<'c>, F32<'c>);

impl Parts {
    /// f32 of one vector: its sums and four more.
    fn row(self) -> u64 {
        self.flash.padded() + 4
    }

    /// Bytes of what the warps of a block saw.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.warps) * self.published_bytes()
    }

    /// Bytes of what one block saw.
    #[must_use]
    pub fn published_bytes(self) -> u64 {
        4 * u64::from(self.vectors) * self.row()
    }

    fn place<'c>(
        self,
        k: &mut Builder<'c>,
        base: Ptr<'c>,
        [part, vector]: [Index<'c>; 2],
    ) -> Ptr<'c> {
        let first = k.mul_constant(part, self.vectors.into());
        let at = k.add(first, vector);
        let at = k.mul_constant(at, self.row());
        k.at::<F32>(base, at)
    }

    /// Where the largest score and the sum of weights stand.
    fn ends<'c>(self, k: &mut Builder<'c>, place: Ptr<'c>) -> Ptr<'c> {
        k.at_bytes_constant(place, 4 * self.flash.padded())
    }

    pub fn put<'c>(
        self,
        k: &mut Builder<'c>,
        (base, warp): (Ptr<'c>, Index<'c>),
        state: &State<'c>,
    ) {
        let flash = self.flash;
        let totals = flash.totals(k, state);
        let rows = flash.rows(k);
        let end = k.index(self.vectors.into());
        let places = rows.map(|row| self.place(k, base, [warp, row]));
        let has = rows.map(|row| k.less(row, end));
        let (lane, zero) = (k.lane_id(), k.index(0));
        let q = k.rem_constant(lane, 4);
        let first = k.equal(q, zero);
        let two = self.vectors > VECTORS / 2;
        for row in 0..1 + usize::from(two) {
            k.when(has[row], |k| {
                flash.each_pair(k, state, |k, of, column, pair| {
                    if of == row {
                        let place = k.at::<F32>(places[row], column);
                        let pair = k.vector_of(&pair);
                        k.store_whole(place, pair);
                    }
                });
                k.when(first, |k| {
                    let place = self.ends(k, places[row]);
                    let both = k.vector_of(&[state.1[row], totals[row]]);
                    k.store_whole(place, both);
                });
            });
        }
    }

    /// Run `body` for the vectors and pairs of columns that are this thread's.
    fn each<'c>(
        self,
        k: &mut Builder<'c>,
        body: impl FnOnce(&mut Builder<'c>, Index<'c>, Index<'c>),
    ) {
        let (thread, threads) = (k.thread(), k.threads());
        let pairs = u64::from(self.flash.head_dim) / 2;
        let end = k.index(u64::from(self.vectors) * pairs);
        k.for_each(thread, end, threads.into(), |k, at| {
            let (member, pair) = (k.div_constant(at, pairs), k.rem_constant(at, pairs));
            let column = k.mul_constant(pair, 2);
            body(k, member, column);
        });
    }

    /// Parts joined in their order, of which some saw something.
    fn joined<'c>(self, k: &mut Builder<'c>, parts: &[Part<'c>]) -> Part<'c> {
        let most = parts[1..].iter().fold(parts[0].1, |most, part| k.max(part.1, most));
        let scale = k.f32(self.flash.scale());
        let (mut sum, mut total) = (k.f32s(0.0, 2), k.f32(0.0));
        for part in parts {
            let below = k.sub(part.1, most);
            let below = k.mul(below, scale);
            let share = k.exp2_approx(below);
            total = k.fma(part.2, share, total);
            sum = k.fma(part.0, share, sum);
        }
        (sum, most, total)
    }

    /// What the warps at `base` saw of a vector.
    fn of_warps<'c>(
        self,
        k: &mut Builder<'c>,
        base: Ptr<'c>,
        [vector, column]: [Index<'c>; 2],
    ) -> Part<'c> {
        let parts: Vec<_> = (0..self.warps)
            .map(|warp| {
                let warp = k.index(warp.into());
                let place = self.place(k, base, [warp, vector]);
                let ends = self.ends(k, place);
                let ends = k.load_whole::<F32>(ends, 2);
                let ends = k.lanes_of(ends);
                let place = k.at::<F32>(place, column);
                (k.load_whole::<F32>(place, 2), ends[0], ends[1])
            })
            .collect();
        self.joined(k, &parts)
    }
}

/// What blocks saw, in global memory, and the counters of those that have written theirs.
pub struct Published<'c> {
    pub parts: Parts,
    /// Most blocks of a row and kv head.
    pub blocks: u32,
    pub base: Ptr<'c>,
    pub counters: Ptr<'c>,
    /// [`Published::SHARED_BYTES`] of shared memory.
    pub flag: Ptr<'c>,
}

impl<'c> Published<'c> {
    pub const SHARED_BYTES: u64 = 16;

    /// Join what the warps at `warps` saw; of `used` blocks of a row and kv head (number `of_head` of all)
    /// this is number `share`, and the last to come writes the results; `to` gives where a vector's
    /// go.
    pub fn join(
        &self,
        k: &mut Builder<'c>,
        warps: Ptr<'c>,
        (of_head, share, used): (Index<'c>, Index<'c>, Index<'c>),
        to: impl Fn(&mut Builder<'c>, Index<'c>) -> Ptr<'c>,
    ) {
        let parts = self.parts;
        let store = |k: &mut Builder<'c>, [member, column]: [Index<'c>; 2], part: Part<'c>| {
            let pair = k.div(part.0, part.2);
            let place = to(k, member);
            let place = k.at::<Bf16>(place, column);
            let lanes = k.lanes_of(pair);
            let pair = k.round_pair(lanes[0], lanes[1]);
            k.store_whole(place, pair);
        };
        let one = k.index(1);
        let alone = k.equal(used, one);
        let first = k.mul_constant(of_head, self.blocks.into());
        let mine = k.add(first, share);
        parts.each(k, |k, member, column| {
            let part = parts.of_warps(k, warps, [member, column]);
            k.choose(
                alone,
                |k| store(k, [member, column], part),
                |k| {
                    let place = parts.place(k, self.base, [mine, member]);
                    let pair = k.at::<F32>(place, column);
                    k.store_whole(pair, part.0);
                    let zero = k.index(0);
                    let begins = k.equal(column, zero);
                    k.when(begins, |k| {
                        let ends = parts.ends(k, place);
                        let both = k.vector_of(&[part.1, part.2]);
                        k.store_whole(ends, both);
                    });
                },
            );
        });
        let several = k.not(alone);
        k.when(several, |k| {
            let counter = k.at::<I32>(self.counters, of_head);
            let last = k.sub_constant(used, 1);
            k.barrier();
            let is_last = k.comes_last(counter, last, self.flag, |_| ());
            k.when(is_last, |k| {
                k.note("6 join what the blocks saw, in their order");
                parts.each(k, |k, member, column| {
                    let part = self.of_blocks(k, (first, used), [member, column]);
                    store(k, [member, column], part);
                });
            });
        });
    }

    /// What `used` blocks from number `first` on saw of a vector.
    fn of_blocks(
        &self,
        k: &mut Builder<'c>,
        (first, used): (Index<'c>, Index<'c>),
        [vector, column]: [Index<'c>; 2],
    ) -> Part<'c> {
        let parts = self.parts;
        let at_once = self.blocks.min(AT_ONCE);
        let least = k.f32(f32::NEG_INFINITY);
        let nothing = (k.f32s(0.0, 2), least, k.f32(0.0));
        let last = k.sub_constant(used, 1);
        let batch = |k: &mut Builder<'c>, begin: Index<'c>| -> Vec<Part<'c>> {
            (0..at_once)
                .map(|at| {
                    let number = k.add_constant(begin, at.into());
                    let has = k.less(number, used);
                    let number = k.min(number, last);
                    let number = k.add(number, first);
                    let place = parts.place(k, self.base, [number, vector]);
                    let ends = parts.ends(k, place);
                    let place = k.at::<F32>(place, column);
                    let [pair, ends] = [place, ends].map(|place| {
                        let words = k.load_words(place, 2, Cache::Shared);
                        k.of_bits(words)
                    });
                    let ends = k.lanes_of(ends);
                    (pair, k.select(has, ends[0], least), ends[1])
                })
                .collect()
        };
        let zero = k.index(0);
        if at_once == self.blocks {
            let all = batch(k, zero);
            return parts.joined(k, &all);
        }
        k.fold(zero, used, at_once.into(), nothing, |k, begin, so_far| {
            let mut all = vec![so_far];
            all.extend(batch(k, begin));
            parts.joined(k, &all)
        })
    }
}
