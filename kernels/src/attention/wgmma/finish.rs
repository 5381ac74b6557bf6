//! Results of a block: divided by the sums of weights, laid out where the vectors were, stored row by
//! row.

use super::VECTORS;
use super::attend::{Attending, State};
use crate::emit::gpu::WARPGROUP;
use crate::emit::{Bf16, Bool, Builder, Index, Ptr};

/// Barrier of the first warpgroup alone; the next is the second one's.
const OF_GROUP: i32 = 4;

impl<'c> Attending<'c> {
    /// Store the vectors; `place` gives a vector's, and whether there is one.
    pub fn finish(
        &self,
        k: &mut Builder<'c>,
        state: &State<'c>,
        place: impl FnOnce(&mut Builder<'c>, Index<'c>) -> (Ptr<'c>, Bool<'c>),
    ) {
        k.note("3 results");
        self.end_turns(k);
        if self.shape().parts > 1 {
            return self.join(k, state, place);
        }
        let (sums, _, totals, _) = state;
        let one = k.f32(1.0);
        let shares = totals.map(|total| {
            let total = k.join_lanes(total, 4, Builder::add);
            k.div(one, total)
        });
        // All warps of the group have read their vectors.
        let (group, first) = (k.i32_of(self.group), k.i32(OF_GROUP));
        let barrier = k.add(group, first);
        k.barrier_numbered(barrier, WARPGROUP);
        let warp = k.warp();
        let own = k.mul_constant(warp, 16);
        let [row, half] = k.matrix_row(false);
        let row = k.add(row, own);
        for (pair, sums) in sums.chunks_exact(8).enumerate() {
            let words: Vec<_> = sums
                .chunks_exact(2)
                .enumerate()
                .map(|(at, two)| {
                    let [first, second] = [two[0], two[1]].map(|sum| k.mul(sum, shares[at % 2]));
                    k.round_pair(first, second)
                })
                .collect();
            let unit = k.add_constant(half, 2 * pair as u64);
            let to = self.place(k, row, unit);
            k.store_matrices(to, &words, false);
        }
        k.warp_barrier();
        let units = u64::from(self.shape().head_dim) / 8;
        let (lane, end) = (k.lane_id(), k.index(u64::from(VECTORS / 8) * units));
        k.for_each(lane, end, 32, |k, at| {
            let (row, unit) = (k.div_constant(at, units), k.rem_constant(at, units));
            let vector = k.add(row, own);
            let (to, has) = place(k, vector);
            let from = self.place(k, vector, unit);
            k.when(has, |k| {
                let values = k.load_whole::<Bf16>(from, 8);
                let start = k.mul_constant(unit, 16);
                let to = k.at_bytes(to, start);
                k.store_whole(to, values);
            });
        });
    }
}
