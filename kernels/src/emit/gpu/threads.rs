//! Which thread this is, waiting for one another, and values passed between the threads of a warp or
//! a block. All sums and maxima are in an order fixed by the number of threads alone.

use inkwell::values::BasicValueEnum;

use super::super::{Bool, Builder, F32, I32, Index, Number, Ptr, Value};
use super::WARP;

/// All 32 threads of a warp.
const EVERYONE: i32 = -1;

impl<'c> Builder<'c> {
    /// Number of this thread in its block.
    pub fn thread(&mut self) -> Index<'c> {
        self.special_register("llvm.nvvm.read.ptx.sreg.tid.x")
    }

    /// Number of this thread's warp in its block, the same for all its threads as far as the
    /// assembler can see.
    pub fn warp(&mut self) -> Index<'c> {
        let thread = self.thread();
        let warp = self.div_constant(thread, u64::from(WARP));
        let warp = self.i32_of(warp);
        let warp = self.from_lane(warp, 0);
        self.index_of(warp)
    }

    /// Number of this thread in its warp.
    pub fn lane_id(&mut self) -> Index<'c> {
        self.special_register("llvm.nvvm.read.ptx.sreg.laneid")
    }

    /// Threads of the block.
    #[must_use]
    pub fn threads(&self) -> u32 {
        self.shape().threads
    }

    /// Wait for all threads of the block; what they wrote to shared and global memory is seen.
    pub fn barrier(&mut self) {
        let zero = self.i32(0).0;
        self.call_intrinsic("llvm.nvvm.barrier.cta.sync.aligned.all", &[], &[zero]);
    }

    /// Wait at barrier `number` (1 to 15) until `threads` threads have come there.
    pub fn barrier_of(&mut self, number: u32, threads: u32) {
        let operands = [number, threads].map(|value| self.i32(value as i32).0);
        self.call_intrinsic("llvm.nvvm.barrier.cta.sync.aligned.count", &[], &operands);
    }

    /// As [`Builder::barrier_of`], where `number` is known when the kernel runs: the same for all
    /// threads of a warp.
    pub fn barrier_numbered(&mut self, number: I32<'c>, threads: u32) {
        let threads = self.i32(threads as i32);
        self.call_intrinsic(
            "llvm.nvvm.barrier.cta.sync.aligned.count",
            &[],
            &[number.0, threads.0],
        );
    }

    /// Come to a barrier as [`Builder::barrier_numbered`] without waiting there.
    pub fn arrive_at_numbered(&mut self, number: I32<'c>, threads: u32) {
        let threads = self.i32(threads as i32);
        let name = "llvm.nvvm.barrier.cta.arrive.aligned.count";
        self.call_intrinsic(name, &[], &[number.0, threads.0]);
    }

    /// Come to barrier `number` without waiting there.
    pub fn arrive_at_barrier(&mut self, number: u32, threads: u32) {
        let operands = [number, threads].map(|value| self.i32(value as i32).0);
        self.call_intrinsic("llvm.nvvm.barrier.cta.arrive.aligned.count", &[], &operands);
    }

    /// Wait for the threads of the warp; what they wrote to shared memory is seen.
    pub fn warp_barrier(&mut self) {
        let everyone = self.i32(EVERYONE).0;
        self.call_intrinsic("llvm.nvvm.bar.warp.sync", &[], &[everyone]);
    }

    /// The value of the thread whose number in the warp differs from this one's in the bits `mask`.
    pub fn from_lane_across<T: Number<'c>>(&mut self, value: T, mask: u32) -> T {
        let mask = self.i32(mask as i32);
        self.pass("bfly", value, mask)
    }

    /// The value of thread `lane` of the warp.
    pub fn from_lane<T: Number<'c>>(&mut self, value: T, lane: u32) -> T {
        let lane = self.i32(lane as i32);
        self.pass("idx", value, lane)
    }

    /// The value of the thread of the warp that each thread asks for.
    pub fn from_any_lane<T: Number<'c>>(&mut self, value: T, lane: I32<'c>) -> T {
        self.pass("idx", value, lane)
    }

    /// The value of the thread `by` before this one, its own in the first `by` threads.
    pub fn from_lane_before<T: Number<'c>>(&mut self, value: T, by: u32) -> T {
        let by = self.i32(by as i32);
        self.pass("up", value, by)
    }

    fn pass<T: Number<'c>>(&mut self, how: &str, value: T, which: I32<'c>) -> T {
        let kind = if T::FLOAT { "f32" } else { "i32" };
        // Within the whole warp: no segments; `up` clamps at thread 0, the others at 31.
        let clamp = if how == "up" { 0 } else { WARP as i32 - 1 };
        let [everyone, clamp] = [EVERYONE, clamp].map(|value| self.i32(value).0);
        let name = format!("llvm.nvvm.shfl.sync.{how}.{kind}");
        T::from_raw(self.intrinsic(&name, &[], &[everyone, value.raw(), which.0, clamp]))
    }

    /// `value` of each run of `lanes` neighbouring threads joined, in every one of them.
    pub fn join_lanes<T: Number<'c>>(
        &mut self,
        value: T,
        lanes: u32,
        join: impl Fn(&mut Self, T, T) -> T,
    ) -> T {
        assert!(lanes.is_power_of_two() && lanes <= WARP, "threads are joined by halves");
        let mut value = value;
        let mut distance = lanes / 2;
        while distance > 0 {
            let other = self.from_lane_across(value, distance);
            value = join(self, value, other);
            distance /= 2;
        }
        value
    }

    /// `value` of all threads of the warp joined, in every one of them.
    pub fn join_warp<T: Number<'c>>(&mut self, value: T, join: impl Fn(&mut Self, T, T) -> T) -> T {
        self.join_lanes(value, WARP, join)
    }

    /// `value` of all threads of the block joined, in every one of them: within warps by halves, then
    /// warp after warp.
    ///
    /// All threads must come here, once: in a loop, the last turn's values would still be read. Takes
    /// 4 bytes of shared memory for each warp, whole 16 together.
    pub fn join_block<T: Number<'c>>(
        &mut self,
        value: T,
        join: impl Fn(&mut Self, T, T) -> T,
    ) -> T {
        let value = self.join_warp(value, &join);
        let warps = self.threads() / WARP;
        if warps == 1 {
            return value;
        }
        let places = self.shared(u64::from(Self::join_block_bytes(self.threads())), 16);
        let (warp, lane, zero) = (self.warp(), self.lane_id(), self.index(0));
        let first = self.equal(lane, zero);
        self.when(first, |k| {
            let place = k.at::<I32>(places, warp);
            k.put_word(place, value);
        });
        if warps % 4 == 3 {
            // LLVM reads three words as four, and the fourth must have been written.
            let (thread, last) = (self.thread(), self.index(u64::from(self.threads() - 1)));
            let last = self.equal(thread, last);
            self.when(last, |k| {
                let place = k.at_bytes_constant(places, 4 * u64::from(warps));
                k.put_word(place, value);
            });
        }
        self.barrier();
        let mut all = self.word_at::<T>(places, 0);
        for warp in 1..warps {
            let next = self.word_at::<T>(places, warp);
            all = join(self, all, next);
        }
        all
    }

    /// Shared memory that one call of [`Builder::join_block`] takes with `threads` threads.
    #[must_use]
    pub const fn join_block_bytes(threads: u32) -> u32 {
        if threads == WARP { 0 } else { (4 * threads / WARP).next_multiple_of(16) }
    }

    fn put_word<T: Value<'c>>(&mut self, place: Ptr<'c>, value: T) {
        let store = self.llvm.build_store(place.pointer(), value.raw());
        store.expect("the builder is positioned").set_alignment(4).expect("a power of two");
    }

    fn word_at<T: Number<'c>>(&mut self, base: Ptr<'c>, index: u32) -> T {
        let place = self.at_bytes_constant(base, 4 * u64::from(index));
        if T::FLOAT {
            T::from_raw(self.load::<F32>(place, 1).0)
        } else {
            T::from_raw(self.load::<I32>(place, 1).0)
        }
    }

    /// Sum over the threads of the warp.
    pub fn sum_of_warp<T: Number<'c>>(&mut self, value: T) -> T {
        self.join_warp(value, Self::add)
    }

    /// Greatest over the threads of the warp.
    pub fn max_of_warp<T: Number<'c>>(&mut self, value: T) -> T {
        self.join_warp(value, Self::max)
    }

    /// Greatest over the threads of the warp, by one instruction.
    pub fn greatest_of_warp(&mut self, value: I32<'c>) -> I32<'c> {
        let everyone = self.i32(EVERYONE).0;
        I32(self.intrinsic("llvm.nvvm.redux.sync.max", &[], &[value.0, everyone]))
    }

    /// Sum over the threads of the warp up to this one.
    pub fn sum_upto(&mut self, value: I32<'c>) -> I32<'c> {
        let lane = self.lane_id();
        [1, 2, 4, 8, 16].into_iter().fold(value, |upto, by| {
            let other = self.from_lane_before(upto, by);
            let sum = self.add(upto, other);
            let by = self.index(by.into());
            let has = self.less_equal(by, lane);
            self.select(has, sum, upto)
        })
    }

    /// Sum over the threads of the block.
    pub fn sum_of_block<T: Number<'c>>(&mut self, value: T) -> T {
        self.join_block(value, Self::add)
    }

    /// Greatest over the threads of the block.
    pub fn max_of_block<T: Number<'c>>(&mut self, value: T) -> T {
        self.join_block(value, Self::max)
    }

    /// A bit for each thread of the warp: does `condition` hold there?
    pub fn ballot(&mut self, condition: Bool<'c>) -> I32<'c> {
        let everyone = self.i32(EVERYONE).0;
        I32(self.intrinsic("llvm.nvvm.vote.ballot.sync", &[], &[everyone, condition.0]))
    }

    /// Number of ones.
    pub fn ones(&mut self, bits: I32<'c>) -> I32<'c> {
        I32(self.intrinsic("llvm.ctpop", &[self.word_type()], &[bits.0]))
    }

    /// The bits of the threads of the warp before this one.
    pub fn lanes_before(&mut self) -> I32<'c> {
        let value: BasicValueEnum<'c> =
            self.intrinsic("llvm.nvvm.read.ptx.sreg.lanemask.lt", &[], &[]);
        I32(value)
    }
}
