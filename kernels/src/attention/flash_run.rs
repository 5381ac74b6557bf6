//! Runs of cached positions as they come to shared memory: of bf16 as they are; of bytes with their
//! scales, and spread out to bf16 there.

use super::flash::{Flash, Source};
use super::nvptx::PlainPage;
use crate::emit::{Builder, I32, Index, Ptr};
use sail_ir::scheme::CacheScheme;

/// Bytes of one copy.
const UNIT: u64 = 16;

/// Most copies of a thread that stand one after the other in the code.
const UNROLLED: u64 = 16;

/// How runs come, and where they stand in shared memory: all threads of a team share one run.
#[derive(Clone, Copy)]
pub struct Runs {
    pub flash: Flash,
    pub page: PlainPage,
}

/// Shared memory of one run: bf16 keys, then bf16 values; or one of the two, then the bytes of the keys
/// and of the values, their scales and those.
#[derive(Clone, Copy)]
pub struct Place<'c> {
    pub runs: Runs,
    pub start: Ptr<'c>,
}

/// Positions of a page, of which the first `rows` have something to see.
#[derive(Clone, Copy)]
pub struct Seen<'c> {
    /// The block of the page and head.
    pub block: Ptr<'c>,
    /// The run's first position in the page.
    pub first: Index<'c>,
    pub rows: Index<'c>,
}

/// Number of a thread among those that share a run, and how many they are.
pub type Team<'c> = (Index<'c>, u32);

impl Runs {
    /// Bytes of [`Place`].
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self.page.scheme {
            CacheScheme::Bf16 => 2 * self.flash.run_bytes(),
            CacheScheme::Int8 => self.flash.run_bytes() + 2 * (self.packed() + self.scales()),
        }
    }

    /// Bytes of the keys or the values of a run where they are kept.
    fn packed(self) -> u64 {
        self.flash.positions * self.page.row_bytes()
    }

    /// Bytes of the scales of the keys or the values of a run.
    fn scales(self) -> u64 {
        4 * self.flash.positions
    }
}

impl<'c> Place<'c> {
    /// Ask for the keys, and for all scales there are; or for the values.
    pub fn ask(self, k: &mut Builder<'c>, team: Team<'c>, seen: Seen<'c>, values: bool) {
        let Runs { flash, page } = self.runs;
        let part = if values { page.keys_bytes() } else { 0 };
        let start = k.mul_constant(seen.first, page.row_bytes());
        let from = k.at_bytes(seen.block, start);
        let from = k.at_bytes_constant(from, part);
        if page.scheme == CacheScheme::Int8 {
            let to = k.at_bytes_constant(self.start, self.packed_at(values));
            let bytes = k.mul_constant(seen.rows, page.row_bytes());
            ask_units(k, team, self.runs.packed(), [to, from], bytes);
            if !values {
                let bytes = k.mul_constant(seen.rows, 4);
                for (offset, to) in page.scale_offsets(0).into_iter().zip(self.scale_places(k)) {
                    let from = k.at_bytes_constant(seen.block, offset);
                    let skipped = k.mul_constant(seen.first, 4);
                    let from = k.at_bytes(from, skipped);
                    ask_units(k, team, self.runs.scales(), [to, from], bytes);
                }
            }
            return;
        }
        let at = if values { flash.run_bytes() } else { 0 };
        let to = k.at_bytes_constant(self.start, at);
        if page.row_bytes() == 2 * u64::from(flash.head_dim)
            && self.ask_whole(k, team, to, (from, seen))
        {
            return;
        }
        let source = Source { first: from, stride: page.row_bytes(), piece: 16, rows: seen.rows };
        flash.ask_run(k, team, to, source);
    }

    /// Ask for whole rows, each thread for the same units of some of them; `false` where the team does
    /// not divide the rows so.
    fn ask_whole(
        self,
        k: &mut Builder<'c>,
        (thread, threads): Team<'c>,
        to: Ptr<'c>,
        (from, seen): (Ptr<'c>, Seen<'c>),
    ) -> bool {
        let Runs { flash, page } = self.runs;
        let units = page.row_bytes() / UNIT;
        let together = u64::from(threads) / units;
        let divides = u64::from(threads).is_multiple_of(units)
            && flash.positions.is_multiple_of(together.max(1));
        if !divides || flash.positions / together > UNROLLED {
            return false;
        }
        let (row, unit) = (k.div_constant(thread, units), k.rem_constant(thread, units));
        let skipped = k.mul_constant(unit, UNIT);
        let [to_row, from_row] =
            [flash.row_bytes(), page.row_bytes()].map(|bytes| k.mul_constant(row, bytes));
        let (to, from) = (k.at_bytes(to, to_row), k.at_bytes(from, from_row));
        let [to, from] = [to, from].map(|place| k.at_bytes(place, skipped));
        for first in (0..flash.positions).step_by(together as usize) {
            let to = k.at_bytes_constant(to, first * flash.row_bytes());
            let from = k.at_bytes_constant(from, first * page.row_bytes());
            let row = k.add_constant(row, first);
            let has = k.less(row, seen.rows);
            let [unit, none] = [k.i32(UNIT as i32), k.i32(0)];
            let bytes = k.select(has, unit, none);
            k.copy_async_partial(to, from, bytes);
        }
        true
    }

    /// Where the keys, or the values, of the run stand as bf16, after what was asked for has come and
    /// `meet` has had the team wait for each other.
    pub fn bf16(
        self,
        k: &mut Builder<'c>,
        team: Team<'c>,
        values: bool,
        meet: impl Fn(&mut Builder<'c>),
    ) -> Ptr<'c> {
        let Runs { flash, page } = self.runs;
        if page.scheme == CacheScheme::Bf16 {
            return k.at_bytes_constant(self.start, if values { flash.run_bytes() } else { 0 });
        }
        let from = k.at_bytes_constant(self.start, self.packed_at(values));
        let units = page.row_bytes() / UNIT;
        each_unit(k, team, flash.positions * units, |k, at| {
            let start = k.mul_constant(at, UNIT);
            let place = k.at_bytes(from, start);
            let words = k.load_whole::<I32>(place, 4);
            let pairs: Vec<_> = k
                .lanes_of(words)
                .into_iter()
                .flat_map(|word| k.bf16_of_signed_bytes(word))
                .collect();
            let (row, unit) = (k.div_constant(at, units), k.rem_constant(at, units));
            let (row, unit) =
                (k.mul_constant(row, flash.row_bytes()), k.mul_constant(unit, 2 * UNIT));
            let to = k.at_bytes(self.start, row);
            let to = k.at_bytes(to, unit);
            for (half, pairs) in pairs.chunks_exact(4).enumerate() {
                let to = k.at_bytes_constant(to, half as u64 * UNIT);
                let pairs = k.vector_of(pairs);
                k.store_whole(to, pairs);
            }
        });
        meet(k);
        self.start
    }

    /// Scales of the keys and of the values of the run.
    pub fn scales(self, k: &mut Builder<'c>) -> Option<[Ptr<'c>; 2]> {
        (self.runs.page.scheme == CacheScheme::Int8).then(|| self.scale_places(k))
    }

    fn packed_at(self, values: bool) -> u64 {
        self.runs.flash.run_bytes() + if values { self.runs.packed() } else { 0 }
    }

    fn scale_places(self, k: &mut Builder<'c>) -> [Ptr<'c>; 2] {
        let first = self.packed_at(true) + self.runs.packed();
        [0, self.runs.scales()].map(|skipped| k.at_bytes_constant(self.start, first + skipped))
    }
}

/// `body` for the numbers below `count` that are this thread's.
fn each_unit<'c>(
    k: &mut Builder<'c>,
    (thread, threads): Team<'c>,
    count: u64,
    mut body: impl FnMut(&mut Builder<'c>, Index<'c>),
) {
    let threads = u64::from(threads);
    if count.is_multiple_of(threads) && count / threads <= UNROLLED {
        for first in (0..count).step_by(threads as usize) {
            let at = k.add_constant(thread, first);
            body(k, at);
        }
        return;
    }
    let end = k.index(count);
    k.for_each(thread, end, threads, |k, at| body(k, at));
}

/// Ask for `all` neighbouring bytes, of which the first `bytes` there are; zeros after.
fn ask_units<'c>(
    k: &mut Builder<'c>,
    team: Team<'c>,
    all: u64,
    [to, from]: [Ptr<'c>; 2],
    bytes: Index<'c>,
) {
    each_unit(k, team, all / UNIT, |k, at| {
        let skipped = k.mul_constant(at, UNIT);
        let [to, from] = [to, from].map(|place| k.at_bytes(place, skipped));
        let left = k.sub(bytes, skipped);
        k.copy_unit(to, from, UNIT as u32, Some(left));
    });
}
