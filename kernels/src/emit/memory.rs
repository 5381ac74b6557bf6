//! Addresses, loads and stores.
//!
//! Whole vectors are read and written in one piece at any alignment. `_partial` forms touch only the
//! first `count` elements: a kernel must not read a byte beyond its buffers.

use inkwell::attributes::AttributeLoc;
use inkwell::types::IntType;
use inkwell::values::{BasicValue, BasicValueEnum};

use super::{Bf16, Bool, Builder, Element, F32, I32, Index, Ptr, Value};

impl<'c> Builder<'c> {
    /// `offset` bytes after `base`.
    pub fn at_bytes(&mut self, base: Ptr<'c>, offset: Index<'c>) -> Ptr<'c> {
        let byte = self.context.i8_type();
        // SAFETY: only an instruction is built here; `base` is a pointer of this function and
        // `offset` an i64 of it, which is what the instruction takes.
        let value = unsafe { self.llvm.build_gep(byte, base.pointer(), &[offset.int()], "") };
        Ptr(value.expect("the builder is positioned").into())
    }

    /// `offset` bytes after `base`.
    pub fn at_bytes_constant(&mut self, base: Ptr<'c>, offset: u64) -> Ptr<'c> {
        if offset == 0 {
            return base;
        }
        let offset = self.index(offset);
        self.at_bytes(base, offset)
    }

    /// Element `index` of an array of `T` at `base`.
    pub fn at<T: Element<'c>>(&mut self, base: Ptr<'c>, index: Index<'c>) -> Ptr<'c> {
        let offset = self.mul_constant(index, T::BYTES);
        self.at_bytes(base, offset)
    }

    /// `width` neighbouring elements.
    pub fn load<T: Element<'c>>(&mut self, from: Ptr<'c>, width: u32) -> T {
        let kind = self.vector_type(T::KIND, width);
        let value = self.llvm.build_load(kind, from.pointer(), "");
        let value = value.expect("the builder is positioned");
        let load = value.as_instruction_value().expect("a load is an instruction");
        load.set_alignment(T::BYTES as u32).expect("element sizes are powers of two");
        T::from_raw(value)
    }

    /// As [`Self::load`], but in the order in which the kernel says so: such loads are neither moved
    /// past one another nor joined with an operation.
    pub fn load_in_order<T: Element<'c>>(&mut self, from: Ptr<'c>, width: u32) -> T {
        let value = self.load::<T>(from, width);
        let load = value.raw().as_instruction_value().expect("a load is an instruction");
        load.set_volatile(true).expect("loads can be volatile");
        value
    }

    /// Have the cache line at `from` brought into the second-level cache. The address may be
    /// anything.
    pub fn prefetch(&mut self, from: Ptr<'c>) {
        const READ: u64 = 0;
        const SECOND_LEVEL: u64 = 2;
        const DATA: u64 = 1;
        let word = self.context.i32_type();
        let [read, near, data] =
            [READ, SECOND_LEVEL, DATA].map(|value| word.const_int(value, false).into());
        let kind = from.0.get_type();
        self.call_intrinsic("llvm.prefetch", &[kind], &[from.0, read, near, data]);
    }

    /// Store all lanes as neighbouring elements.
    pub fn store<T: Element<'c>>(&mut self, to: Ptr<'c>, value: T) {
        let store = self.llvm.build_store(to.pointer(), value.raw());
        let store = store.expect("the builder is positioned");
        store.set_alignment(T::BYTES as u32).expect("element sizes are powers of two");
    }

    /// Lanes below `count` are true.
    pub fn first(&mut self, count: Index<'c>, width: u32) -> Bool<'c> {
        let most = self.index(u64::from(width));
        let count = self.min(count, most);
        let count = self.i32_of(count);
        let lanes = self.lane_numbers(width);
        self.less(lanes, count)
    }

    /// The lanes of `mask`, zeros elsewhere; memory of other lanes is not touched.
    pub fn load_masked<T: Element<'c>>(&mut self, from: Ptr<'c>, mask: Bool<'c>) -> T {
        let kind = self.vector_type(T::KIND, mask.width());
        let zero = kind.const_zero();
        let call = self.call_intrinsic(
            "llvm.masked.load",
            &[kind, from.0.get_type()],
            &[from.0, mask.0, zero],
        );
        call.set_alignment_attribute(AttributeLoc::Param(0), T::BYTES as u32);
        T::from_raw(call.try_as_basic_value().basic().expect("a load gives a value"))
    }

    /// Store the lanes of `mask`; memory of other lanes is not touched.
    pub fn store_masked<T: Element<'c>>(&mut self, to: Ptr<'c>, value: T, mask: Bool<'c>) {
        let kind = self.vector_type(T::KIND, mask.width());
        // LLVM 22 joins a truncation with a masked store and then, where the mask has one lane,
        // stores that lane at the width it had before.
        let value = self.opaque(value);
        let call = self.call_intrinsic(
            "llvm.masked.store",
            &[kind, to.0.get_type()],
            &[value.raw(), to.0, mask.0],
        );
        call.set_alignment_attribute(AttributeLoc::Param(1), T::BYTES as u32);
    }

    /// The first `count` of `width` neighbouring elements, zeros after them.
    pub fn load_partial<T: Element<'c>>(
        &mut self,
        from: Ptr<'c>,
        width: u32,
        count: Index<'c>,
    ) -> T {
        let mask = self.first(count, width);
        self.load_masked(from, mask)
    }

    /// Store the first `count` lanes.
    pub fn store_partial<T: Element<'c>>(&mut self, to: Ptr<'c>, value: T, count: Index<'c>) {
        let mask = self.first(count, value.width());
        self.store_masked(to, value, mask);
    }

    /// `width` bf16 values as f32.
    pub fn load_widened(&mut self, from: Ptr<'c>, width: u32) -> F32<'c> {
        let narrow = self.load::<Bf16>(from, width);
        self.widen(narrow)
    }

    /// The first `count` of `width` bf16 values as f32, zeros after them.
    pub fn load_widened_partial(&mut self, from: Ptr<'c>, width: u32, count: Index<'c>) -> F32<'c> {
        let narrow = self.load_partial::<Bf16>(from, width, count);
        self.widen(narrow)
    }

    /// Round to bf16 and store.
    pub fn store_rounded(&mut self, to: Ptr<'c>, value: F32<'c>) {
        let narrow = self.round(value);
        self.store(to, narrow);
    }

    /// Round to bf16 and store the first `count` lanes.
    pub fn store_rounded_partial(&mut self, to: Ptr<'c>, value: F32<'c>, count: Index<'c>) {
        let narrow = self.round(value);
        self.store_partial(to, narrow, count);
    }

    /// A word from memory (a pair of bf16, a quad of bytes) in each of `width` lanes.
    pub fn load_word_everywhere(&mut self, from: Ptr<'c>, width: u32) -> I32<'c> {
        let word = self.load::<I32>(from, 1);
        self.splat(word, width)
    }

    /// Store the low byte of each lane, side by side.
    pub fn store_bytes(&mut self, to: Ptr<'c>, value: I32<'c>) {
        self.store_narrowed(to, value, self.context.i8_type());
    }

    /// Store the low 16 bits of each lane, side by side.
    pub fn store_shorts(&mut self, to: Ptr<'c>, value: I32<'c>) {
        self.store_narrowed(to, value, self.context.i16_type());
    }

    fn store_narrowed(&mut self, to: Ptr<'c>, value: I32<'c>, narrow: IntType<'c>) {
        let build = "the builder is positioned";
        let value: BasicValueEnum<'c> = if value.width() == 1 {
            let value = value.0.into_int_value();
            self.llvm.build_int_truncate(value, narrow, "narrow").expect(build).into()
        } else {
            let narrow = narrow.vec_type(value.width());
            let value = value.0.into_vector_value();
            self.llvm.build_int_truncate(value, narrow, "narrow").expect(build).into()
        };
        let store = self.llvm.build_store(to.pointer(), value);
        let store = store.expect("the builder is positioned");
        store.set_alignment(1).expect("one is a power of two");
    }

    /// Constants in the kernel's own read-only memory.
    pub fn table(&mut self, values: &[f32]) -> Ptr<'c> {
        let float = self.context.f32_type();
        let values: Vec<_> =
            values.iter().map(|value| float.const_float(f64::from(*value))).collect();
        let array = float.const_array(&values);
        let global = self.module.add_global(array.get_type(), None, "table");
        global.set_constant(true);
        global.set_linkage(inkwell::module::Linkage::Private);
        global.set_initializer(&array);
        Ptr(global.as_pointer_value().into())
    }
}
