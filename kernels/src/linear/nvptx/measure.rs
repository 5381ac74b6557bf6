//! What the values of rows are scaled by: the norm's scale, and the steps of rows that become integers.

use super::few::Rows;
use super::input::{Input, normalised, steps};
use crate::emit::gpu::{WARP, piece_width};
use crate::emit::{Bf16, Builder, F32, Index, Ptr};
use crate::linear::Prologue;
use crate::norm::nvptx::root_of_mean;

/// Pieces of a row that a thread has under way when it measures the row, where registers are few and where
/// there is nothing but one block for them.
pub(super) const AT_ONCE: [u64; 2] = [4, 8];

/// Three f32 of each row in shared memory: the norm's scale, steps in 1, the size of a step.
#[derive(Clone, Copy)]
pub struct Statistics<'c> {
    place: Ptr<'c>,
    found: Ptr<'c>,
}

impl<'c> Statistics<'c> {
    const EACH: u64 = 16;

    /// Bytes of what the warps of a block have found before they join it: most warps, two values.
    const FOUND: u64 = 32 * 2 * 4;

    #[must_use]
    pub const fn bytes(rows: u32) -> u64 {
        Self::EACH * rows as u64 + Self::FOUND
    }

    pub fn carve(k: &mut Builder<'c>, rows: u32) -> Self {
        let found = k.shared(Self::FOUND, 16);
        Self { place: k.shared(Self::EACH * u64::from(rows), 16), found }
    }

    pub(super) fn at(self, k: &mut Builder<'c>, row: Index<'c>, which: u64) -> Ptr<'c> {
        let row = k.mul_constant(row, Self::EACH);
        let place = k.at_bytes(self.place, row);
        k.at_bytes_constant(place, 4 * which)
    }

    fn put(self, k: &mut Builder<'c>, row: Index<'c>, measured: Measured<'c>) {
        let steps = measured.steps.map_or([None; 2], |steps| steps.map(Some));
        for (which, value) in (0..).zip([measured.scale, steps[0], steps[1]]) {
            if let Some(value) = value {
                let place = self.at(k, row, which);
                k.store(place, value);
            }
        }
    }

    /// What an integer of the row stands for.
    pub fn step(self, k: &mut Builder<'c>, row: Index<'c>) -> F32<'c> {
        let place = self.at(k, row, 2);
        k.load::<F32>(place, 1)
    }
}

/// What was found of a row.
struct Measured<'c> {
    /// The norm's.
    scale: Option<F32<'c>>,
    /// Steps in 1, and the size of one.
    steps: Option<[F32<'c>; 2]>,
}

/// Warps that measure a row together.
#[derive(Clone, Copy)]
struct Team<'c> {
    warps: u32,
    /// The first of them in the block, and the number of this thread's one among them.
    first: Index<'c>,
    member: Index<'c>,
    /// What the warps of the block have found, value after value.
    found: Ptr<'c>,
    at_once: u64,
}

impl<'c> Team<'c> {
    /// Value number `which`, of which each warp has a part. All threads of the block come here where a
    /// team has several warps.
    fn join(
        self,
        k: &mut Builder<'c>,
        part: F32<'c>,
        which: u64,
        join: impl Fn(&mut Builder<'c>, F32<'c>, F32<'c>) -> F32<'c>,
    ) -> F32<'c> {
        if self.warps == 1 {
            return part;
        }
        let found = k.at_bytes_constant(self.found, which * Statistics::FOUND / 2);
        let (lane, zero) = (k.lane_id(), k.index(0));
        let one = k.equal(lane, zero);
        k.when(one, |k| {
            let mine = k.add(self.first, self.member);
            let place = k.at::<F32>(found, mine);
            k.store(place, part);
        });
        k.barrier();
        let place = k.at::<F32>(found, self.first);
        let parts = (0..u64::from(self.warps)).map(|at| {
            let place = k.at_bytes_constant(place, 4 * at);
            k.load::<F32>(place, 1)
        });
        let parts: Vec<_> = parts.collect();
        parts[1..].iter().fold(parts[0], |all, part| join(k, all, *part))
    }
}

impl Input {
    /// Measure the rows, at most `most` of them: by several warps each where they are fewer than the
    /// warps, with `at_once` pieces of a thread under way. All threads of the block come here; nothing is
    /// done where nothing needs measuring.
    pub fn measure<'c>(
        &self,
        k: &mut Builder<'c>,
        rows: Rows<'c>,
        norm: Option<Ptr<'c>>,
        statistics: Statistics<'c>,
        (most, at_once): (u32, u64),
    ) {
        if !self.has_norm() && !self.quantizes() {
            return;
        }
        let warps = k.threads() / WARP;
        let together = (warps / most.next_power_of_two()).max(1);
        let warp = k.warp();
        let [team, member] =
            [k.div_constant(warp, together.into()), k.rem_constant(warp, together.into())];
        let first = k.sub(warp, member);
        let all = Team { warps: together, first, member, found: statistics.found, at_once };
        let (lane, zero) = (k.lane_id(), k.index(0));
        let among = k.add(lane, member);
        let puts = k.equal(among, zero);
        for first in (0..most).step_by((warps / together) as usize) {
            let row = k.add_constant(team, first.into());
            let has = k.less(row, rows.count);
            let put =
                |k: &mut Builder<'c>, measured| k.when(puts, |k| statistics.put(k, row, measured));
            if together == 1 {
                k.when(has, |k| {
                    let measured = self.measured(k, (rows, row), norm, all);
                    put(k, measured);
                });
                continue;
            }
            // The joins have barriers: a team without a row measures another team's.
            let last = k.sub_constant(rows.count, 1);
            let read = k.min(row, last);
            let measured = self.measured(k, (rows, read), norm, all);
            k.when(has, |k| put(k, measured));
        }
        k.barrier();
    }

    fn measured<'c>(
        &self,
        k: &mut Builder<'c>,
        (rows, row): (Rows<'c>, Index<'c>),
        norm: Option<Ptr<'c>>,
        team: Team<'c>,
    ) -> Measured<'c> {
        let x = self.row(k, rows, row);
        let none = k.f32(0.0);
        let mut measured = Measured { scale: None, steps: None };
        if let Prologue::RmsNorm { eps } = self.prologue {
            let sum = self.fold_row(k, &[x], team, none, |k, sum, values| {
                let x = k.widen(values[0]);
                let lanes = k.lanes_of(x);
                lanes.into_iter().fold(sum, |sum, x| k.fma(x, x, sum))
            });
            let sum = k.sum_of_warp(sum);
            let sum = team.join(k, sum, 0, |k, a, b| k.add(a, b));
            measured.scale = Some(root_of_mean(k, sum, self.k, eps));
        }
        if self.quantizes() {
            let sources: Vec<_> = [x].into_iter().chain(norm).collect();
            let scale = measured.scale;
            // The row is read again: all of a long one does not fit the registers.
            k.forget_memory();
            let most = self.fold_row(k, &sources, team, none, |k, most, values| {
                let value = normalised(k, values[0], scale.zip(values.get(1).copied()));
                let value = k.abs(value);
                let lanes = k.lanes_of(value);
                lanes.into_iter().fold(most, |most, value| k.max(most, value))
            });
            let most = k.max_of_warp(most);
            let most = team.join(k, most, 1, |k, a, b| k.max(a, b));
            measured.steps = Some(steps(k, self.scheme, most));
        }
        measured
    }

    /// Fold the pieces of rows at `sources` that are this thread's of its team.
    fn fold_row<'c>(
        &self,
        k: &mut Builder<'c>,
        sources: &[Ptr<'c>],
        team: Team<'c>,
        first: F32<'c>,
        mut body: impl FnMut(&mut Builder<'c>, F32<'c>, &[Bf16<'c>]) -> F32<'c>,
    ) -> F32<'c> {
        let width = piece_width(self.k.into());
        let stride = u64::from(width * WARP * team.warps);
        let pieces = u64::from(self.k).div_ceil(stride);
        let (lane, before) = (k.lane_id(), k.mul_constant(team.member, WARP.into()));
        let mine = k.add(lane, before);
        let mine = k.mul_constant(mine, width.into());
        let mut result = first;
        for batch in (0..pieces).step_by(team.at_once as usize) {
            let batch: Vec<_> = (batch..pieces.min(batch + team.at_once))
                .map(|at| {
                    let element = k.add_constant(mine, at * stride);
                    let ragged = (at + 1) * stride > self.k.into();
                    sources
                        .iter()
                        .map(|source| self.piece(k, *source, element, width, ragged))
                        .collect::<Vec<_>>()
                })
                .collect();
            for values in &batch {
                result = body(k, result, values);
            }
        }
        result
    }
}
