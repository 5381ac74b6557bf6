//! A head in the registers of a warp, for CUDA targets: its halves piece by piece, as RoPE turns them;
//! and how it goes to the cache.

use sail_ir::scheme::CacheScheme;

use super::nvptx::PlainPage;
use crate::emit::gpu::WARP;
use crate::emit::{Bf16, Bool, Builder, F32, I32, Index, Ptr};

/// Values of both halves of a head at the same place.
pub type Pair<'c> = [Bf16<'c>; 2];

/// How a warp shares a head.
#[derive(Debug, Clone, Copy)]
pub struct Halves {
    pub head_dim: u32,
    /// Values of a piece of half a head.
    width: u32,
}

/// A place of a piece in half a head that is this thread's.
#[derive(Clone, Copy)]
pub struct Share<'c> {
    at: Index<'c>,
    /// Whether there is such a piece, where not every thread has one; if not, `at` is another's.
    has: Option<Bool<'c>>,
}

impl Halves {
    /// Pieces as large as let most threads of the warp take part.
    #[must_use]
    pub fn of(head_dim: u32) -> Self {
        Self { head_dim, width: half_piece(head_dim / 2) }
    }

    fn half(self) -> u64 {
        u64::from(self.head_dim / 2)
    }

    /// The pieces that are this thread's.
    pub fn shares<'c>(self, k: &mut Builder<'c>) -> Vec<Share<'c>> {
        let lane = k.lane_id();
        let (width, half) = (u64::from(self.width), self.half());
        let first = k.mul_constant(lane, width);
        let turn = width * u64::from(WARP);
        (0..half.div_ceil(turn))
            .map(|number| {
                let at = k.add_constant(first, number * turn);
                if (number + 1) * turn <= half {
                    return Share { at, has: None };
                }
                let (end, last) = (k.index(half), k.index(half - width));
                let has = Some(k.less(at, end));
                Share { at: k.min(at, last), has }
            })
            .collect()
    }

    /// This thread's values of the head at `head`.
    pub fn load<'c>(
        self,
        k: &mut Builder<'c>,
        shares: &[Share<'c>],
        head: Ptr<'c>,
    ) -> Vec<Pair<'c>> {
        let across = k.at_bytes_constant(head, 2 * self.half());
        let load = |share: &Share<'c>| {
            [head, across].map(|half| {
                let place = k.at::<Bf16>(half, share.at);
                k.load_whole::<Bf16>(place, self.width)
            })
        };
        shares.iter().map(load).collect()
    }

    pub fn store<'c>(
        self,
        k: &mut Builder<'c>,
        (shares, values): (&[Share<'c>], &[Pair<'c>]),
        head: Ptr<'c>,
    ) {
        let across = k.at_bytes_constant(head, 2 * self.half());
        for (share, pair) in shares.iter().zip(values) {
            share.when(k, |k| {
                for (half, values) in [head, across].into_iter().zip(pair) {
                    let place = k.at::<Bf16>(half, share.at);
                    k.store_whole(place, *values);
                }
            });
        }
    }
}

/// Values of a piece of half a head: as many as let most threads of the warp take part.
pub fn half_piece(half: u32) -> u32 {
    let most = (half / WARP).clamp(1, 8);
    let twos = 1 << half.trailing_zeros().min(3);
    twos.min(1 << most.ilog2())
}

impl<'c> Share<'c> {
    fn when(&self, k: &mut Builder<'c>, body: impl FnOnce(&mut Builder<'c>)) {
        match self.has {
            Some(has) => k.when(has, body),
            None => body(k),
        }
    }

    /// The values of a piece that there is, zeros of one that there is not.
    pub fn or_zeros(&self, k: &mut Builder<'c>, values: F32<'c>) -> F32<'c> {
        let Some(has) = self.has else { return values };
        let zero = k.f32(0.0);
        let lanes: Vec<_> =
            k.lanes_of(values).into_iter().map(|value| k.select(has, value, zero)).collect();
        k.vector_of(&lanes)
    }
}

/// Where the key and the value of a row's kv head go.
pub struct Entry<'c> {
    pub page: PlainPage,
    /// The block of the page and head.
    pub block: Ptr<'c>,
    /// The row's position in the page.
    pub within: Index<'c>,
}

impl<'c> Entry<'c> {
    /// Write a key (`part` 0) or a value (1), by the warp.
    pub fn put(
        &self,
        k: &mut Builder<'c>,
        part: usize,
        halves: Halves,
        (shares, values): (&[Share<'c>], &[Pair<'c>]),
    ) {
        let start = k.mul_constant(self.within, self.page.row_bytes());
        let to = k.at_bytes(self.block, start);
        let to = k.at_bytes_constant(to, part as u64 * self.page.keys_bytes());
        if self.page.scheme == CacheScheme::Bf16 {
            return halves.store(k, (shares, values), to);
        }
        let greatest = greatest_magnitude(k, values);
        let [step, inverse] = k.byte_step(greatest);
        let across = k.at_bytes_constant(to, halves.half());
        for (share, pair) in shares.iter().zip(values) {
            share.when(k, |k| {
                for (half, values) in [to, across].into_iter().zip(pair) {
                    let values = k.widen(*values);
                    let values = k.mul(values, inverse);
                    let bytes: Vec<_> = k
                        .lanes_of(values)
                        .into_iter()
                        .map(|value| k.round_to_byte(value))
                        .collect();
                    let bytes = k.vector_of(&bytes);
                    let place = k.at_bytes(half, share.at);
                    k.store_bytes(place, bytes);
                }
            });
        }
        let (lane, zero) = (k.lane_id(), k.index(0));
        let first = k.equal(lane, zero);
        k.when(first, |k| {
            let list = k.at_bytes_constant(self.block, self.page.scale_offsets(0)[part]);
            let to = k.at::<F32>(list, self.within);
            k.store(to, step);
        });
    }
}

/// Of a head that a warp has; not a number when one of its values is none. A piece that a thread has
/// beside its own is another's of the same head.
fn greatest_magnitude<'c>(k: &mut Builder<'c>, values: &[Pair<'c>]) -> F32<'c> {
    // Magnitudes are ordered as their bits are, those that are no numbers last.
    let mut greatest: I32<'c> = k.i32(0);
    for half in values.iter().flatten() {
        let half = k.widen(*half);
        let bits = k.bits(half);
        for bits in k.lanes_of(bits) {
            let magnitude = k.i32(i32::MAX);
            let magnitude = k.and(bits, magnitude);
            greatest = k.max(greatest, magnitude);
        }
    }
    let greatest = k.join_warp(greatest, Builder::max);
    k.of_bits(greatest)
}
