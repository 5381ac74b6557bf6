//! Arithmetic on numbers and vectors: sums, products, comparisons, conversions, lanes.
//!
//! Two operands have one width, or one of them is single and is spread over the lanes of the other.

use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicValueEnum, InstructionOpcode, VectorValue};
use inkwell::{FloatPredicate, IntPredicate};

use super::{Bf16, Bool, Builder, ElementKind, F32, I32, Index, Number, Value};

impl<'c> Builder<'c> {
    #[must_use]
    pub fn index(&self, value: u64) -> Index<'c> {
        Index(self.context.i64_type().const_int(value, false).into())
    }

    /// One f32 constant.
    #[must_use]
    pub fn f32(&self, value: f32) -> F32<'c> {
        F32(self.context.f32_type().const_float(f64::from(value)).into())
    }

    /// One i32 constant.
    #[must_use]
    pub fn i32(&self, value: i32) -> I32<'c> {
        I32(self.context.i32_type().const_int(i64::from(value) as u64, true).into())
    }

    /// `value` in each of `width` lanes.
    pub fn f32s(&mut self, value: f32, width: u32) -> F32<'c> {
        let one = self.f32(value);
        self.splat(one, width)
    }

    /// `value` in each of `width` lanes.
    pub fn i32s(&mut self, value: i32, width: u32) -> I32<'c> {
        let one = self.i32(value);
        self.splat(one, width)
    }

    /// 0, 1, 2, … in the lanes.
    #[must_use]
    pub fn lane_numbers(&self, width: u32) -> I32<'c> {
        let word = self.context.i32_type();
        let numbers: Vec<_> = (0..width).map(|lane| word.const_int(lane.into(), false)).collect();
        if width == 1 {
            return I32(numbers[0].into());
        }
        I32(inkwell::types::VectorType::const_vector(&numbers).into())
    }

    /// A single value in each of `width` lanes.
    pub fn splat<T: Value<'c>>(&mut self, value: T, width: u32) -> T {
        if value.width() == width {
            return value;
        }
        assert_eq!(value.width(), 1, "only a single value is spread over lanes");
        let (vector, zero) = match value.raw() {
            BasicValueEnum::FloatValue(one) => {
                (one.get_type().vec_type(width), self.context.i64_type().const_zero())
            }
            BasicValueEnum::IntValue(one) => {
                (one.get_type().vec_type(width), self.context.i64_type().const_zero())
            }
            other => panic!("{other} has no lanes"),
        };
        let first = self
            .llvm
            .build_insert_element(vector.get_poison(), value.raw(), zero, "")
            .expect("the builder is positioned");
        let all = self.lane_mask(&vec![0; width as usize]);
        let spread = self.llvm.build_shuffle_vector(first, vector.get_poison(), all, "spread");
        T::from_raw(spread.expect("the builder is positioned").into())
    }

    fn same_width<T: Value<'c>>(&mut self, a: T, b: T) -> (T, T) {
        let width = a.width().max(b.width());
        (self.splat(a, width), self.splat(b, width))
    }

    pub(crate) fn binary<T: Value<'c>>(&mut self, op: InstructionOpcode, a: T, b: T) -> T {
        let (a, b) = self.same_width(a, b);
        let value = self.llvm.build_binop(op, a.raw(), b.raw(), "");
        T::from_raw(value.expect("the builder is positioned"))
    }

    fn number<T: Number<'c>>(
        &mut self,
        float: InstructionOpcode,
        int: InstructionOpcode,
        a: T,
        b: T,
    ) -> T {
        self.binary(if T::FLOAT { float } else { int }, a, b)
    }

    pub fn add<T: Number<'c>>(&mut self, a: T, b: T) -> T {
        self.number(InstructionOpcode::FAdd, InstructionOpcode::Add, a, b)
    }

    pub fn sub<T: Number<'c>>(&mut self, a: T, b: T) -> T {
        self.number(InstructionOpcode::FSub, InstructionOpcode::Sub, a, b)
    }

    pub fn mul<T: Number<'c>>(&mut self, a: T, b: T) -> T {
        self.number(InstructionOpcode::FMul, InstructionOpcode::Mul, a, b)
    }

    /// Quotient; of integers, both taken as unsigned, rounded down.
    pub fn div<T: Number<'c>>(&mut self, a: T, b: T) -> T {
        self.number(InstructionOpcode::FDiv, InstructionOpcode::UDiv, a, b)
    }

    /// Remainder of unsigned integers.
    pub fn rem(&mut self, a: Index<'c>, b: Index<'c>) -> Index<'c> {
        self.binary(InstructionOpcode::URem, a, b)
    }

    pub fn add_constant(&mut self, a: Index<'c>, b: u64) -> Index<'c> {
        let b = self.index(b);
        self.add(a, b)
    }

    pub fn sub_constant(&mut self, a: Index<'c>, b: u64) -> Index<'c> {
        let b = self.index(b);
        self.sub(a, b)
    }

    pub fn mul_constant(&mut self, a: Index<'c>, b: u64) -> Index<'c> {
        let b = self.index(b);
        self.mul(a, b)
    }

    pub fn div_constant(&mut self, a: Index<'c>, b: u64) -> Index<'c> {
        let b = self.index(b);
        self.div(a, b)
    }

    pub fn rem_constant(&mut self, a: Index<'c>, b: u64) -> Index<'c> {
        let b = self.index(b);
        self.rem(a, b)
    }

    /// `a · b + c`, rounded once.
    pub fn fma(&mut self, a: F32<'c>, b: F32<'c>, c: F32<'c>) -> F32<'c> {
        let width = a.width().max(b.width()).max(c.width());
        let [a, b, c] = [a, b, c].map(|value| self.splat(value, width).0);
        F32(self.intrinsic("llvm.fma", &[a.get_type()], &[a, b, c]))
    }

    /// `a` where it is less, else `b` (so `b` where one is not a number).
    pub fn min<T: Number<'c>>(&mut self, a: T, b: T) -> T {
        let less = self.less(a, b);
        self.select(less, a, b)
    }

    /// `a` where it is greater, else `b` (so `b` where one is not a number).
    pub fn max<T: Number<'c>>(&mut self, a: T, b: T) -> T {
        let greater = self.less(b, a);
        self.select(greater, a, b)
    }

    pub fn neg(&mut self, a: F32<'c>) -> F32<'c> {
        let sign = self.i32s(i32::MIN, a.width());
        let bits = self.bits(a);
        let bits = self.xor(bits, sign);
        self.of_bits(bits)
    }

    pub fn abs(&mut self, a: F32<'c>) -> F32<'c> {
        F32(self.intrinsic("llvm.fabs", &[a.0.get_type()], &[a.0]))
    }

    /// Correctly rounded.
    pub fn sqrt(&mut self, a: F32<'c>) -> F32<'c> {
        F32(self.intrinsic("llvm.sqrt", &[a.0.get_type()], &[a.0]))
    }

    /// To the nearest whole number, ties to even.
    pub fn round_even(&mut self, a: F32<'c>) -> F32<'c> {
        F32(self.intrinsic("llvm.roundeven", &[a.0.get_type()], &[a.0]))
    }

    // Comparisons. Integers are signed; a comparison with a NaN is false.

    pub fn less<T: Number<'c>>(&mut self, a: T, b: T) -> Bool<'c> {
        self.compare(FloatPredicate::OLT, IntPredicate::SLT, a, b)
    }

    pub fn less_equal<T: Number<'c>>(&mut self, a: T, b: T) -> Bool<'c> {
        self.compare(FloatPredicate::OLE, IntPredicate::SLE, a, b)
    }

    pub fn equal<T: Number<'c>>(&mut self, a: T, b: T) -> Bool<'c> {
        self.compare(FloatPredicate::OEQ, IntPredicate::EQ, a, b)
    }

    /// Whether a value is no number.
    pub fn is_nan(&mut self, a: F32<'c>) -> Bool<'c> {
        self.compare(FloatPredicate::UNO, IntPredicate::NE, a, a)
    }

    fn compare<T: Value<'c>>(
        &mut self,
        float: FloatPredicate,
        int: IntPredicate,
        a: T,
        b: T,
    ) -> Bool<'c> {
        use BasicValueEnum::{FloatValue, IntValue, VectorValue};
        let (a, b) = self.same_width(a, b);
        let value: Result<BasicValueEnum<'c>, _> = match (a.raw(), b.raw()) {
            (FloatValue(a), FloatValue(b)) => {
                self.llvm.build_float_compare(float, a, b, "").map(Into::into)
            }
            (IntValue(a), IntValue(b)) => {
                self.llvm.build_int_compare(int, a, b, "").map(Into::into)
            }
            (VectorValue(a), VectorValue(b)) => {
                if matches!(a.get_type().get_element_type(), BasicTypeEnum::FloatType(_)) {
                    self.llvm.build_float_compare(float, a, b, "").map(Into::into)
                } else {
                    self.llvm.build_int_compare(int, a, b, "").map(Into::into)
                }
            }
            (a, b) => panic!("{a} and {b} have no order"),
        };
        Bool(value.expect("the builder is positioned"))
    }

    /// `yes` where `condition` holds, else `no`; both are computed.
    pub fn select<T: Value<'c>>(&mut self, condition: Bool<'c>, yes: T, no: T) -> T {
        let (yes, no) = self.same_width(yes, no);
        let width = yes.width().max(condition.width());
        let (yes, no) = (self.splat(yes, width), self.splat(no, width));
        let value = match condition.0 {
            BasicValueEnum::IntValue(c) => self.llvm.build_select(c, yes.raw(), no.raw(), ""),
            BasicValueEnum::VectorValue(c) => self.llvm.build_select(c, yes.raw(), no.raw(), ""),
            other => panic!("{other} is no truth value"),
        };
        T::from_raw(value.expect("the builder is positioned"))
    }

    /// Both hold; also the bitwise and of integers.
    pub fn and<T: Value<'c>>(&mut self, a: T, b: T) -> T {
        self.binary(InstructionOpcode::And, a, b)
    }

    /// One of both holds; also the bitwise or of integers.
    pub fn or<T: Value<'c>>(&mut self, a: T, b: T) -> T {
        self.binary(InstructionOpcode::Or, a, b)
    }

    pub fn xor<T: Value<'c>>(&mut self, a: T, b: T) -> T {
        self.binary(InstructionOpcode::Xor, a, b)
    }

    pub fn not(&mut self, a: Bool<'c>) -> Bool<'c> {
        let yes = Bool(self.context.bool_type().const_all_ones().into());
        self.xor(a, yes)
    }

    /// Bits moved up by `by`, zeros from below.
    pub fn shift_left(&mut self, a: I32<'c>, by: i32) -> I32<'c> {
        let by = self.i32(by);
        self.binary(InstructionOpcode::Shl, a, by)
    }

    /// Bits moved down by `by`, zeros from above.
    pub fn shift_right(&mut self, a: I32<'c>, by: i32) -> I32<'c> {
        let by = self.i32(by);
        self.binary(InstructionOpcode::LShr, a, by)
    }

    /// Bits moved down by `by`, the sign from above.
    pub fn shift_right_signed(&mut self, a: I32<'c>, by: i32) -> I32<'c> {
        let by = self.i32(by);
        self.binary(InstructionOpcode::AShr, a, by)
    }

    /// As [`Self::shift_left`], by less than 32 that is known when the kernel runs.
    pub fn shift_left_by(&mut self, a: I32<'c>, by: I32<'c>) -> I32<'c> {
        self.binary(InstructionOpcode::Shl, a, by)
    }

    /// As [`Self::shift_right`], by less than 32 that is known when the kernel runs.
    pub fn shift_right_by(&mut self, a: I32<'c>, by: I32<'c>) -> I32<'c> {
        self.binary(InstructionOpcode::LShr, a, by)
    }

    // Conversions.

    pub(crate) fn cast<T: Value<'c>>(
        &mut self,
        op: InstructionOpcode,
        a: BasicValueEnum<'c>,
        to: BasicTypeEnum<'c>,
    ) -> T {
        let value = self.llvm.build_cast(op, a, to, "");
        T::from_raw(value.expect("the builder is positioned"))
    }

    /// A single i32, as an index; negative stays negative.
    pub fn index_of(&mut self, a: I32<'c>) -> Index<'c> {
        self.cast(InstructionOpcode::SExt, a.0, self.context.i64_type().into())
    }

    /// The low 32 bits of an index.
    pub fn i32_of(&mut self, a: Index<'c>) -> I32<'c> {
        self.cast(InstructionOpcode::Trunc, a.0, self.context.i32_type().into())
    }

    /// Signed integers as f32, rounded to nearest.
    pub fn f32_of(&mut self, a: I32<'c>) -> F32<'c> {
        let to = self.vector_type(ElementKind::F32, a.width());
        self.cast(InstructionOpcode::SIToFP, a.0, to)
    }

    /// f32 as signed integers, cut towards zero; the value must fit.
    pub fn truncate(&mut self, a: F32<'c>) -> I32<'c> {
        let to = self.vector_type(ElementKind::I32, a.width());
        self.cast(InstructionOpcode::FPToSI, a.0, to)
    }

    /// The 32 bits of each value.
    pub fn bits(&mut self, a: F32<'c>) -> I32<'c> {
        let to = self.vector_type(ElementKind::I32, a.width());
        self.cast(InstructionOpcode::BitCast, a.0, to)
    }

    /// The values that have these bits.
    pub fn of_bits(&mut self, a: I32<'c>) -> F32<'c> {
        let to = self.vector_type(ElementKind::F32, a.width());
        self.cast(InstructionOpcode::BitCast, a.0, to)
    }

    /// bf16 as f32; exact.
    pub fn widen(&mut self, a: Bf16<'c>) -> F32<'c> {
        let to = self.vector_type(ElementKind::I32, a.width());
        let bits: I32<'c> = self.cast(InstructionOpcode::ZExt, a.0, to);
        let bits = self.shift_left(bits, 16);
        self.of_bits(bits)
    }

    /// f32 rounded to bf16, ties to even; a NaN stays one. Values below the least normal f32 may
    /// become zero, as the targets' own instruction does.
    pub fn round(&mut self, a: F32<'c>) -> Bf16<'c> {
        if self.is_gpu() {
            return self.round_on_gpu(a);
        }
        if let Some(rounded) = self.round_natively(a) {
            return rounded;
        }
        let bits = self.bits(a);
        let kept = self.shift_right(bits, 16);
        let one = self.i32(1);
        let odd = self.and(kept, one);
        let half = self.i32(0x7fff);
        let sum = self.add(bits, half);
        let sum = self.add(sum, odd);
        let near = self.shift_right(sum, 16);
        let quiet = self.i32(0x40);
        let quiet = self.or(kept, quiet);
        let nan = self.is_nan(a);
        let bits = self.select(nan, quiet, near);
        let to = self.vector_type(ElementKind::Bf16, a.width());
        self.cast(InstructionOpcode::Trunc, bits.0, to)
    }

    /// f32 rounded to bf16 and back: a rounding point of the model.
    pub fn rounded(&mut self, a: F32<'c>) -> F32<'c> {
        let narrow = self.round(a);
        self.widen(narrow)
    }

    /// Neighbouring bf16 values as pairs: `2n` values become `n` pairs.
    pub fn as_pairs(&mut self, a: Bf16<'c>) -> I32<'c> {
        let to = self.vector_type(ElementKind::I32, a.width() / 2);
        self.cast(InstructionOpcode::BitCast, a.0, to)
    }

    /// Pairs as their bf16 values: `n` pairs become `2n` values.
    pub fn as_bf16(&mut self, a: I32<'c>) -> Bf16<'c> {
        let to = self.vector_type(ElementKind::Bf16, a.width() * 2);
        self.cast(InstructionOpcode::BitCast, a.0, to)
    }

    /// Pair lane by lane: `low[i]` then `high[i]`.
    pub fn pair(&mut self, low: Bf16<'c>, high: Bf16<'c>) -> I32<'c> {
        let to = self.vector_type(ElementKind::I32, low.width());
        let low: I32<'c> = self.cast(InstructionOpcode::ZExt, low.0, to);
        let high: I32<'c> = self.cast(InstructionOpcode::ZExt, high.0, to);
        let high = self.shift_left(high, 16);
        self.or(low, high)
    }

    /// The first value of each pair, as f32.
    pub fn low_of_pairs(&mut self, pairs: I32<'c>) -> F32<'c> {
        let bits = self.shift_left(pairs, 16);
        self.of_bits(bits)
    }

    /// The second value of each pair, as f32.
    pub fn high_of_pairs(&mut self, pairs: I32<'c>) -> F32<'c> {
        let mask = self.i32(0xffff_0000_u32 as i32);
        let bits = self.and(pairs, mask);
        self.of_bits(bits)
    }

    // Lanes.

    pub(crate) fn lane_mask(&self, lanes: &[u32]) -> VectorValue<'c> {
        let word = self.context.i32_type();
        let lanes: Vec<_> =
            lanes.iter().map(|lane| word.const_int((*lane).into(), false)).collect();
        inkwell::types::VectorType::const_vector(&lanes)
    }

    /// Lanes picked from `a` (numbered from 0) and `b` (numbered on from there); at least two.
    pub fn shuffle<T: Value<'c>>(&mut self, a: T, b: T, lanes: &[u32]) -> T {
        let mask = self.lane_mask(lanes);
        let (a, b) = (a.raw().into_vector_value(), b.raw().into_vector_value());
        let value = self.llvm.build_shuffle_vector(a, b, mask, "");
        T::from_raw(value.expect("the builder is positioned").into())
    }

    /// The single value in lane `at`.
    pub fn lane<T: Value<'c>>(&mut self, a: T, at: u32) -> T {
        if a.width() == 1 {
            return a;
        }
        let at = self.context.i64_type().const_int(at.into(), false);
        let value = self.llvm.build_extract_element(a.raw().into_vector_value(), at, "");
        T::from_raw(value.expect("the builder is positioned"))
    }

    /// All lanes as one: the upper half is joined to the lower by `join` until one is left.
    pub fn reduce<T: Value<'c>>(&mut self, a: T, mut join: impl FnMut(&mut Self, T, T) -> T) -> T {
        let mut width = a.width();
        assert!(width.is_power_of_two(), "a tree has a power of two leaves");
        let mut a = a;
        while width > 2 {
            width /= 2;
            let low: Vec<u32> = (0..width).collect();
            let high: Vec<u32> = (width..2 * width).collect();
            let (low, high) = (self.shuffle(a, a, &low), self.shuffle(a, a, &high));
            a = join(self, low, high);
        }
        if width == 1 {
            return a;
        }
        let (low, high) = (self.lane(a, 0), self.lane(a, 1));
        join(self, low, high)
    }

    /// Sum of all lanes, by halves.
    pub fn sum_lanes<T: Number<'c>>(&mut self, a: T) -> T {
        self.reduce(a, Self::add)
    }

    /// Greatest of all lanes.
    pub fn max_lanes<T: Number<'c>>(&mut self, a: T) -> T {
        self.reduce(a, Self::max)
    }
}
