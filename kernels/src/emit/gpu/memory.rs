//! Whole vectors to and from memory, with what the caches should think of them; counters that
//! threads share.

use inkwell::values::{BasicValue, InstructionValue};
use inkwell::{AtomicOrdering, AtomicRMWBinOp};

use super::super::{Bool, Builder, Element, F32, I32, Index, Ptr, Value};
use super::asm::Effect;

/// What the caches should think of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// Kept as usual.
    Usual,
    /// Read-only for the whole kernel, and by this block once: weights. Does not stay in the first
    /// cache, and the second fetches 256 bytes at a time.
    Once,
    /// From the second cache, past the first: written by another block of this launch.
    Shared,
}

/// Most bytes of one access.
const WIDEST: u64 = 16;

impl<'c> Builder<'c> {
    /// What was read before is not kept in registers to save reading it again.
    pub fn forget_memory(&mut self) {
        self.ptx("", "", &[], &[], Effect::Memory);
    }

    /// `width` neighbouring elements that together start at a multiple of their size (of 16 bytes, if
    /// they are more): one access for each 16 bytes.
    pub fn load_whole<T: Element<'c>>(&mut self, from: Ptr<'c>, width: u32) -> T {
        let value = self.load::<T>(from, width);
        let load = value.raw().as_instruction_value().expect("a load is an instruction");
        align::<T>(load, width);
        value
    }

    /// Store all lanes; the place is aligned as for [`Builder::load_whole`].
    pub fn store_whole<T: Element<'c>>(&mut self, to: Ptr<'c>, value: T) {
        let store = self.llvm.build_store(to.pointer(), value.raw());
        align::<T>(store.expect("the builder is positioned"), value.width());
    }

    /// 1, 2 or 4 neighbouring words of global memory, aligned to their size. Stays where it stands
    /// among barriers and waits: a load before `wait_for_predecessor` is not moved behind it.
    pub fn load_words(&mut self, from: Ptr<'c>, words: u32, cache: Cache) -> I32<'c> {
        if cache == Cache::Usual {
            return self.load_whole::<I32>(from, words);
        }
        let how = match cache {
            Cache::Once => "nc.L1::no_allocate.L2::256B",
            Cache::Shared => "cg",
            Cache::Usual => unreachable!("handled above"),
        };
        let word = self.word_type();
        let (vector, results) = match words {
            1 => ("", "$0".to_owned()),
            2 => (".v2", "{$0, $1}".to_owned()),
            4 => (".v4", "{$0, $1, $2, $3}".to_owned()),
            other => panic!("no load of {other} words"),
        };
        let text = format!("ld.global.{how}{vector}.b32 {results}, [${words}];");
        let constraints = format!("{}l", "=r,".repeat(words as usize));
        let types = vec![word; words as usize];
        let values = self.ptx(&text, &constraints, &types, &[from.0], Effect::Ordered);
        let values: Vec<_> = values.into_iter().map(I32).collect();
        self.vector_of(&values)
    }

    /// Single values side by side.
    pub fn vector_of<T: Value<'c>>(&mut self, values: &[T]) -> T {
        if let [one] = values {
            return *one;
        }
        let mut vector = self.splat(values[0], values.len() as u32).raw().into_vector_value();
        for (at, value) in values.iter().enumerate().skip(1) {
            let at = self.context.i64_type().const_int(at as u64, false);
            let next = self.llvm.build_insert_element(vector, value.raw(), at, "");
            vector = next.expect("the builder is positioned");
        }
        T::from_raw(vector.into())
    }

    /// The lanes of a vector, one by one.
    pub fn lanes_of<T: Value<'c>>(&mut self, value: T) -> Vec<T> {
        (0..value.width()).map(|at| self.lane(value, at)).collect()
    }

    /// Sum of the lanes of a vector, from the first to the last.
    pub fn sum_lanes_in_order(&mut self, value: F32<'c>) -> F32<'c> {
        let lanes = self.lanes_of(value);
        let (first, rest) = lanes.split_first().expect("a value has a lane");
        rest.iter().fold(*first, |sum, lane| self.add(sum, *lane))
    }

    /// Have the line at `from` brought into the second cache.
    pub fn prefetch_l2(&mut self, from: Ptr<'c>) {
        self.ptx("prefetch.global.L2 [$0];", "l", &[], &[from.0], Effect::Ordered);
    }

    /// Add to an i32 in shared or global memory; gives what stood there before. In no order: only
    /// for what does not depend on one.
    pub fn add_atomically(&mut self, place: Ptr<'c>, value: I32<'c>) -> I32<'c> {
        let old = self.llvm.build_atomicrmw(
            AtomicRMWBinOp::Add,
            place.pointer(),
            value.0.into_int_value(),
            AtomicOrdering::Monotonic,
        );
        I32(old.expect("the builder is positioned").into())
    }

    /// Add to an i32 in global memory after everything this thread wrote before can be seen.
    pub fn signal(&mut self, place: Ptr<'c>, value: I32<'c>) {
        let text = "red.release.gpu.global.add.u32 [$0], $1;";
        self.ptx(text, "l,r", &[], &[place.0, value.0], Effect::Memory);
    }

    /// An i32 of global memory; what was written before the signal that made it so can be seen.
    pub fn load_signalled(&mut self, place: Ptr<'c>) -> I32<'c> {
        let text = "ld.acquire.gpu.global.u32 $0, [$1];";
        let word = self.word_type();
        I32(self.ptx(text, "=r,l", &[word], &[place.0], Effect::Memory)[0])
    }

    /// Count up an i32 of global memory from `last` to 0, from all else by one; gives what stood there.
    /// What this thread wrote or has learned of before can be seen by who counts later, and what those
    /// wrote who counted before can be seen after this.
    pub fn count_around(&mut self, place: Ptr<'c>, last: I32<'c>) -> I32<'c> {
        let text = "atom.acq_rel.gpu.global.inc.u32 $0, [$1], $2;";
        let word = self.word_type();
        I32(self.ptx(text, "=r,l,r", &[word], &[place.0, last.0], Effect::Memory)[0])
    }

    /// Is this the last of `last + 1` blocks to come here? Then what all of them wrote before can be seen.
    /// All threads of the block come here, after a barrier behind what they wrote, and do `meanwhile` what they
    /// have to before the answer is there; `counter` is 0 before the first and after the last block, `flag` is
    /// 4 bytes of shared memory.
    pub fn comes_last(
        &mut self,
        counter: Ptr<'c>,
        last: Index<'c>,
        flag: Ptr<'c>,
        meanwhile: impl FnOnce(&mut Self),
    ) -> Bool<'c> {
        let (thread, zero) = (self.thread(), self.index(0));
        let first = self.equal(thread, zero);
        let last = self.i32_of(last);
        self.when(first, |k| {
            let came = k.count_around(counter, last);
            k.store(flag, came);
        });
        meanwhile(self);
        self.barrier();
        let came = self.load::<I32>(flag, 1);
        self.equal(came, last)
    }

    /// Add to an f32 in global memory. The order of such sums is not fixed: not for results that
    /// must be the same from run to run.
    pub fn add_float_atomically(&mut self, place: Ptr<'c>, value: F32<'c>) {
        let text = "red.relaxed.gpu.global.add.f32 [$0], $1;";
        self.ptx(text, "l,f", &[], &[place.0, value.0], Effect::Memory);
    }
}

fn align<'c, T: Element<'c>>(access: InstructionValue<'c>, width: u32) {
    let bytes = (T::BYTES * u64::from(width)).next_power_of_two().min(WIDEST);
    access.set_alignment(bytes as u32).expect("a power of two");
}
