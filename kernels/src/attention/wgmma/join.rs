//! Results of a cluster whose blocks took parts of the steps: each lays out what it has in its shared
//! memory, and joins a share of the vectors from all, in the parts' order.

use super::attend::{Attending, State};
use super::ring::AMONG_ATTENDING;
use super::{ATTENDING, Shape, VECTORS};
use crate::emit::{Bool, Builder, F32, Index, Ptr};
use crate::linear::nvptx::finish::{GROUP, GroupPart, Staged};

/// Bytes of a vector's greatest score and sum of weights.
const ENTRY: u64 = 16;

impl Shape {
    /// Bytes of the sums of weighted values that are laid out.
    fn laid_bytes(self) -> u64 {
        4 * u64::from(VECTORS) * u64::from(self.head_dim)
    }
}

impl<'c> Attending<'c> {
    /// Store the cluster's vectors; as [`Attending::finish`].
    pub fn join(
        &self,
        k: &mut Builder<'c>,
        state: &State<'c>,
        place: impl FnOnce(&mut Builder<'c>, Index<'c>) -> (Ptr<'c>, Bool<'c>),
    ) {
        let shape = self.shape();
        let laid = Staged { place: self.ring.free_memory(), columns: shape.head_dim };
        let entries = k.at_bytes_constant(laid.place, shape.laid_bytes());
        // Both warpgroups have read all stages.
        k.barrier_of(AMONG_ATTENDING, ATTENDING);
        self.lay_out(k, (laid, entries), state);
        k.cluster_barrier();
        let share = VECTORS / shape.parts;
        let first = k.mul_constant(self.part, share.into());
        let groups = u64::from(shape.head_dim) / GROUP;
        let (thread, end) = (k.thread(), k.index(u64::from(share) * groups));
        k.for_each(thread, end, ATTENDING.into(), |k, at| {
            let (row, group) = (k.div_constant(at, groups), k.rem_constant(at, groups));
            let vector = k.add(row, first);
            let values = self.joined(k, (laid, entries), [vector, group]);
            let (to, has) = place(k, vector);
            k.when(has, |k| {
                let start = k.mul_constant(group, 2 * GROUP);
                let to = k.at_bytes(to, start);
                let values = k.round(values);
                k.store_whole(to, values);
            });
        });
        // Nobody leaves while another reads its memory.
        k.cluster_barrier();
    }

    fn lay_out(
        &self,
        k: &mut Builder<'c>,
        (laid, entries): (Staged<'c>, Ptr<'c>),
        (sums, most, totals, _): &State<'c>,
    ) {
        let vectors = self.vectors(k);
        for row in 0..2 {
            let total = k.join_lanes(totals[row], 4, Builder::add);
            let zero = k.f32(0.0);
            let entry = k.vector_of(&[most[row], total, zero, zero]);
            let start = k.mul_constant(vectors[row], ENTRY);
            let place = k.at_bytes(entries, start);
            // All four threads of a vector have the same.
            let (lane, none) = (k.lane_id(), k.index(0));
            let member = k.rem_constant(lane, 4);
            let first = k.equal(member, none);
            k.when(first, |k| k.store_whole(place, entry));
        }
        let column = k.index_of(self.column);
        for (at, pair) in sums.chunks_exact(2).enumerate() {
            let column = k.add_constant(column, 8 * (at as u64 / 2));
            laid.put(k, [vectors[at % 2], column], [pair[0], pair[1]]);
        }
    }

    /// A group of values of a vector.
    fn joined(
        &self,
        k: &mut Builder<'c>,
        (laid, entries): (Staged<'c>, Ptr<'c>),
        [vector, group]: [Index<'c>; 2],
    ) -> F32<'c> {
        let start = k.mul_constant(vector, ENTRY);
        let entry = k.at_bytes(entries, start);
        let ranks: Vec<_> = (0..self.shape().parts).map(|rank| k.i32(rank as i32)).collect();
        let entries: Vec<_> = ranks.iter().map(|rank| k.load_in_cluster(entry, *rank)).collect();
        let greatest: Vec<_> = entries.iter().map(|entry| k.lane(*entry, 0)).collect();
        // The part with the first step has seen something.
        let most = greatest[1..].iter().fold(greatest[0], |most, other| k.greater(most, *other));
        let (mut total, mut values) = (k.f32(0.0), k.f32s(0.0, GROUP as u32));
        for (part, rank) in ranks.into_iter().enumerate() {
            let fewer = k.sub(greatest[part], most);
            let share = k.exp2_approx(fewer);
            let of_part = k.lane(entries[part], 1);
            total = k.fma(of_part, share, total);
            let halves = [0, GROUP / 2].map(|first| {
                let width = GROUP as u32 / 2;
                let place = laid.at(k, GroupPart { row: vector, group, first, width });
                k.load_in_cluster(place, rank)
            });
            let lanes: Vec<_> = halves.into_iter().flat_map(|half| k.lanes_of(half)).collect();
            let sums = k.vector_of(&lanes);
            values = k.fma(sums, share, values);
        }
        let one = k.f32(1.0);
        let share = k.div(one, total);
        k.mul(values, share)
    }
}
