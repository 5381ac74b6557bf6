//! `sm_90`: matrix products of a warpgroup (four warps), the left side 64 rows, both sides or the
//! right one from shared memory, sums in registers while the next copies are under way.
//!
//! Order: `begin_products`, products, `commit_products`, `wait_for_products`. Between the first and
//! the last, the sums must not be touched: the assembler then waits after every product and says so
//! (C7510), which counts as an error.
//!
//! Sums of `n` columns are `n / 2` registers a thread. With `w = warp % 4`, `g = lane / 4`,
//! `q = lane % 4`: register `4·j + 2·h + c` is row `16·w + g + 8·h`, column `8·j + 2·q + c`.

use inkwell::types::BasicTypeEnum;
use inkwell::values::BasicValueEnum;

use super::super::{Bool, Builder, F32, I32, Index, Number, Ptr, Value};
use super::WARP;
use super::asm::Effect;

/// Threads of a warpgroup.
pub const WARPGROUP: u32 = 4 * WARP;

/// How the 16-byte units of a row of shared memory are swapped by the number of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swizzle {
    None = 0,
    Bytes128 = 1,
    Bytes64 = 2,
    Bytes32 = 3,
}

/// The left side of a product: 64 rows.
#[derive(Debug, Clone, Copy)]
pub enum Left<'c> {
    /// A descriptor of rows in shared memory.
    Shared(Index<'c>),
    /// The thread's part, as `a` of [`Builder::matrix_bf16`] for the 16 rows of its warp.
    Registers([I32<'c>; 4]),
}

impl<'c> Builder<'c> {
    /// Run `multiply` in the first `multiplying` threads of the block, `others` in those after them, which
    /// is given this warp's number and that of the first of them.
    pub fn by_role(
        &mut self,
        multiplying: u32,
        multiply: impl FnOnce(&mut Self),
        others: impl FnOnce(&mut Self, [Index<'c>; 2]),
    ) {
        let warp = self.warp();
        let first = self.index(u64::from(multiplying / WARP));
        let multiplies = self.less(warp, first);
        self.choose(multiplies, multiply, |k| others(k, [warp, first]));
    }

    /// Run `body` in one thread of the warp for which `condition` holds.
    pub fn in_one_when(&mut self, condition: Bool<'c>, body: impl FnOnce(&mut Self)) {
        self.when(condition, |k| {
            let one = k.elected();
            k.when(one, body);
        });
    }

    /// The descriptor of a matrix in shared memory, its rows along the inner size (`K-major`).
    ///
    /// `repeat` is the bytes from one run of 8 rows to the next: 1024 for rows of 128 bytes. `place`
    /// is aligned to what the swizzle repeats after (1024, 512, 256). Along the inner size, add
    /// bytes / 16 to the descriptor.
    pub fn descriptor(&mut self, place: Ptr<'c>, repeat: u32, swizzle: Swizzle) -> Index<'c> {
        const LEADING: u32 = 16; // not used by swizzled layouts
        self.described(place, [LEADING, repeat], swizzle)
    }

    /// The descriptor of the right side of [`Builder::add_turned_bf16`]: rows of shared memory are
    /// along the columns of the product (`MN-major`), one for each inner element.
    ///
    /// A row holds 64 columns (128 bytes, swizzled by 128); `leading` is the bytes from the rows of 64
    /// columns to those of the next 64, 1024 those from one run of 8 rows to the next. `place` is
    /// aligned to 1024. Along the inner size, add bytes / 16 of 16 rows to the descriptor.
    pub fn turned_descriptor(&mut self, place: Ptr<'c>, leading: u32) -> Index<'c> {
        self.described(place, [leading, 1024], Swizzle::Bytes128)
    }

    fn described(
        &mut self,
        place: Ptr<'c>,
        [leading, stride]: [u32; 2],
        swizzle: Swizzle,
    ) -> Index<'c> {
        let address = self.shared_address(place);
        let units = self.shift_right(address, 4);
        let mask = self.i32(0x3fff);
        let units = self.and(units, mask);
        let units = self.index_of(units);
        let [leading, stride] = [leading, stride].map(|bytes| u64::from(bytes >> 4));
        let fixed = leading << 16 | stride << 32 | (swizzle as u64) << 62;
        let fixed = self.index(fixed);
        self.or(units, fixed)
    }

    /// What this warpgroup wrote to registers and, after `fence_async`, to shared memory is ready for
    /// products.
    pub fn begin_products(&mut self) {
        self.call_intrinsic("llvm.nvvm.wgmma.fence.sync.aligned", &[], &[]);
    }

    /// As [`Builder::begin_products`], with sums that were set or read since the last products: what
    /// comes out is what the products must be given, so that nothing moves a sum in between.
    pub fn begin_products_on<T: Number<'c>>(&mut self, sums: &[T]) -> Vec<T> {
        self.begin_products_with(sums, &[]).0
    }

    /// As [`Builder::begin_products_on`], with words that were computed to be a left side.
    pub fn begin_products_with<T: Number<'c>>(
        &mut self,
        sums: &[T],
        left: &[[I32<'c>; 4]],
    ) -> (Vec<T>, Vec<[I32<'c>; 4]>) {
        let words = left.as_flattened();
        let all: Vec<_> = raw(sums).chain(raw(words)).collect();
        let mut after = self.tied("wgmma.fence.sync.aligned;", &all, &[]).into_iter();
        let sums = after.by_ref().take(sums.len()).map(T::from_raw).collect();
        let words: Vec<_> = after.map(I32).collect();
        let (left, _) = words.as_chunks::<4>();
        (sums, left.to_vec())
    }

    /// The products asked for since the last call are one group.
    pub fn commit_products(&mut self) {
        self.call_intrinsic("llvm.nvvm.wgmma.commit_group.sync.aligned", &[], &[]);
    }

    /// Wait until at most `pending` groups are under way. `sums` are those of the groups waited for:
    /// what comes out may be read.
    pub fn wait_for_products<T: Number<'c>>(&mut self, pending: u32, sums: &[T]) -> Vec<T> {
        self.wait_for_products_of(pending, sums, &[])
    }

    /// As [`Builder::wait_for_products`], of products whose left side were the registers `left`: until
    /// here nothing else may stand there.
    pub fn wait_for_products_of<T: Number<'c>>(
        &mut self,
        pending: u32,
        sums: &[T],
        left: &[[I32<'c>; 4]],
    ) -> Vec<T> {
        let text = format!("wgmma.wait_group.sync.aligned {pending};");
        let sums: Vec<_> = raw(sums).collect();
        let held: Vec<_> = raw(left.as_flattened()).collect();
        self.tied(&text, &sums, &held).into_iter().map(T::from_raw).collect()
    }

    /// An instruction after which `values` count as new ones, in the registers where they are, and up to
    /// which nothing else is in those of `held`.
    fn tied(
        &mut self,
        text: &str,
        values: &[BasicValueEnum<'c>],
        held: &[BasicValueEnum<'c>],
    ) -> Vec<BasicValueEnum<'c>> {
        let class = |value: &BasicValueEnum<'c>| if value.is_float_value() { "f" } else { "r" };
        let results = values.iter().map(|value| format!("={}", class(value)));
        let ties = (0..values.len()).map(|at| at.to_string());
        let constraints: Vec<String> =
            results.chain(ties).chain(held.iter().map(|value| class(value).to_owned())).collect();
        let types: Vec<_> = values.iter().map(|value| value.get_type()).collect();
        let operands: Vec<_> = values.iter().chain(held).copied().collect();
        self.ptx(text, &constraints.join(","), &types, &operands, Effect::Memory)
    }

    /// `sums + left · right` of bf16 for 16 inner elements; `n / 2` sums for `n` columns. With
    /// `fresh`, what stood in the sums is not added.
    pub fn product_bf16(
        &mut self,
        sums: &[F32<'c>],
        left: Left<'c>,
        right: Index<'c>,
        fresh: bool,
    ) -> Vec<F32<'c>> {
        self.product("k16.f32.bf16.bf16", of_bf16(left, false), sums, left, right, fresh)
    }

    /// As [`Builder::product_bf16`], the right side described by [`Builder::turned_descriptor`].
    pub fn add_turned_bf16(
        &mut self,
        sums: &[F32<'c>],
        left: Left<'c>,
        right: Index<'c>,
    ) -> Vec<F32<'c>> {
        self.product("k16.f32.bf16.bf16", of_bf16(left, true), sums, left, right, false)
    }

    /// `sums + left · right` of signed bytes for 32 inner elements, exact.
    pub fn product_int8(
        &mut self,
        sums: &[I32<'c>],
        left: Left<'c>,
        right: Index<'c>,
        fresh: bool,
    ) -> Vec<I32<'c>> {
        self.product("k32.s32.s8.s8", "p", sums, left, right, fresh)
    }

    /// `sums + left · right` of floats of 8 bits (e4m3) for 32 inner elements. The hardware keeps 13
    /// bits of a sum: what many products add up to belongs in sums of one's own.
    pub fn product_e4m3(
        &mut self,
        sums: &[F32<'c>],
        left: Left<'c>,
        right: Index<'c>,
        fresh: bool,
    ) -> Vec<F32<'c>> {
        self.product("k32.f32.e4m3.e4m3", "p, 1, 1", sums, left, right, fresh)
    }

    fn product<T: Number<'c>>(
        &mut self,
        kind: &str,
        tail: &str,
        sums: &[T],
        left: Left<'c>,
        right: Index<'c>,
        fresh: bool,
    ) -> Vec<T> {
        let count = sums.len();
        let columns = 2 * count;
        assert!(columns.is_multiple_of(8) && (8..=256).contains(&columns), "no {columns} columns");
        let class = if T::FLOAT { "f" } else { "r" };
        let list = |from: usize, count: usize| {
            let names: Vec<String> = (from..from + count).map(|at| format!("${at}")).collect();
            format!("{{{}}}", names.join(", "))
        };
        // Operands after the sums, which are results and, where they are added to, tied to them: left,
        // right, `fresh`. Results that are not tied have registers of their own.
        let tied = if fresh { 0 } else { count };
        let first = count + tied;
        let (left_text, left_class, left_values) = match left {
            Left::Shared(descriptor) => (format!("${first}"), "l", vec![descriptor.0]),
            Left::Registers(values) => {
                (list(first, 4), "r,r,r,r", values.map(|value| value.0).to_vec())
            }
        };
        let after = first + left_values.len();
        let text = format!(
            "{{ .reg .pred p; setp.ne.b32 p, ${}, 0; \
             wgmma.mma_async.sync.aligned.m64n{columns}{kind} {}, {left_text}, ${after}, {tail}; }}",
            after + 1,
            list(0, count),
        );
        let own = if fresh { "&" } else { "" };
        let results = format!("={own}{class},").repeat(count);
        let ties: String = (0..tied).map(|at| format!("{at},")).collect();
        let constraints = format!("{results}{ties}{left_class},l,n");
        let types = vec![self.sum_type::<T>(); count];
        let keep = self.i32(i32::from(!fresh));
        let operands: Vec<_> =
            raw(&sums[..tied]).chain(left_values).chain([right.0, keep.0]).collect();
        let values = self.ptx(&text, &constraints, &types, &operands, Effect::Memory);
        values.into_iter().map(T::from_raw).collect()
    }

    fn sum_type<T: Number<'c>>(&self) -> BasicTypeEnum<'c> {
        if T::FLOAT { self.context.f32_type().into() } else { self.word_type() }
    }

    /// Have `registers` (a multiple of 8, 24 to 256) a thread from here on: more than before. All
    /// warps of a warpgroup come here.
    pub fn take_registers(&mut self, registers: u32) {
        let text = format!("setmaxnreg.inc.sync.aligned.u32 {registers};");
        self.ptx(&text, "", &[], &[], Effect::Ordered);
    }

    /// As [`Builder::take_registers`]: fewer than before.
    pub fn give_registers(&mut self, registers: u32) {
        let text = format!("setmaxnreg.dec.sync.aligned.u32 {registers};");
        self.ptx(&text, "", &[], &[], Effect::Ordered);
    }
}

/// What follows the descriptors of a product of bf16: whether sums are kept, signs, which sides are
/// turned.
fn of_bf16(left: Left<'_>, turned: bool) -> &'static str {
    match (left, turned) {
        (Left::Shared(_), false) => "p, 1, 1, 0, 0",
        (Left::Shared(_), true) => "p, 1, 1, 0, 1",
        (Left::Registers(_), false) => "p, 1, 1, 0",
        (Left::Registers(_), true) => "p, 1, 1, 1",
    }
}

fn raw<'c, T: Value<'c>>(values: &[T]) -> impl Iterator<Item = BasicValueEnum<'c>> {
    values.iter().map(|value| value.raw())
}
