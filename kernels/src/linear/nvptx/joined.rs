//! The sums of a block's warps, which share K, as one.

use super::few::{Few, ROWS};
use super::finish::GroupPart;
use super::sum::Sum;
use crate::emit::{Builder, Index, Ptr};
use crate::packing::rows::RUN;

/// Sums of all warps in shared memory.
#[derive(Clone, Copy)]
pub struct Joined<'c> {
    few: Few,
    place: Ptr<'c>,
}

impl<'c> Joined<'c> {
    /// Those of a turn, in the places that begin at `shared`; `count` as [`super::turn::Turn`] has it.
    pub fn new(
        k: &mut Builder<'c>,
        few: Few,
        shared: Ptr<'c>,
        (number, each): (Index<'c>, u64),
    ) -> Self {
        let before = k.div_constant(number, each);
        let place = k.rem_constant(before, few.places());
        let start = k.mul_constant(place, few.sums_bytes());
        Self { few, place: k.at_bytes(shared, start) }
    }

    /// Sums of a warp.
    fn of_warp(&self) -> u64 {
        u64::from(self.few.rows()) * u64::from(self.few.stride())
    }

    pub fn put<T: Sum<'c>>(&self, k: &mut Builder<'c>, sums: &[[T; 4]]) {
        let (warp, lane) = (k.warp(), k.lane_id());
        let (g, q) = (k.div_constant(lane, 4), k.rem_constant(lane, 4));
        let stride = u64::from(self.few.stride());
        let of_warp = k.mul_constant(warp, self.of_warp());
        let eights = u64::from(self.few.eights);
        for (at, sums) in (0..).zip(sums) {
            let (run, eight) = (at / eights, at % eights);
            for (which, sum) in (0..).zip(sums) {
                let row = k.mul_constant(q, 2);
                let row = k.add_constant(row, u64::from(ROWS) * eight + which % 2);
                let row = k.mul_constant(row, stride);
                let column = k.add_constant(g, u64::from(RUN) * run + 8 * (which / 2));
                let place = k.add(row, column);
                let place = k.add(place, of_warp);
                let place = k.at::<T>(self.place, place);
                k.store(place, *sum);
            }
        }
    }

    /// The column of the block where a part begins, and its sums over the warps in their order.
    pub fn get<T: Sum<'c>>(&self, k: &mut Builder<'c>, part: GroupPart<'c>) -> (Index<'c>, T) {
        let row = k.mul_constant(part.row, u64::from(self.few.stride()));
        let column = part.column(k);
        let at = k.add(row, column);
        let place = k.at::<T>(self.place, at);
        let mut sum = k.load_whole::<T>(place, part.width);
        for warp in 1..u64::from(self.few.warps) {
            let place = k.at_bytes_constant(place, 4 * warp * self.of_warp());
            let next = k.load_whole::<T>(place, part.width);
            sum = k.add(sum, next);
        }
        (column, sum)
    }
}
