//! x86-64: how a kernel is called and compiled there, and the instructions it has special words for.

use std::sync::Once;

use inkwell::OptimizationLevel;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::targets::{
    CodeModel, InitializationConfig, RelocMode, Target as LlvmTarget, TargetMachine,
    TargetMachineOptions, TargetTriple,
};
use inkwell::types::{BasicType, BasicTypeEnum};
use inkwell::values::InstructionOpcode;
use sail_ir::target::Target;

use super::{Bf16, Builder, ElementKind, F32, I32, Value};

/// Scheduling model for all targets: the machines at hand, and a good guess for others.
const TUNE: &str = "znver4";

/// Attributes of a kernel's function: the target's features, and no library in sight.
pub(super) fn decorate(k: &Builder<'_>) {
    let texts = [
        ("target-cpu", "x86-64"),
        ("tune-cpu", TUNE),
        ("target-features", &llvm_features(&k.target)),
        ("prefer-vector-width", "512"),
        ("min-legal-vector-width", "512"),
        ("no-builtins", ""),
    ];
    for (name, value) in texts {
        let attribute = k.context.create_string_attribute(name, value);
        k.function.add_attribute(AttributeLoc::Function, attribute);
    }
    for name in ["nounwind", "noredzone", "norecurse"] {
        let attribute = k.context.create_enum_attribute(Attribute::get_named_enum_kind_id(name), 0);
        k.function.add_attribute(AttributeLoc::Function, attribute);
    }
}

fn llvm_features(target: &Target) -> String {
    let names = target.features.iter().map(|name| if name == "bmi1" { "bmi" } else { name });
    names.map(|name| format!("+{name}")).collect::<Vec<_>>().join(",")
}

/// The machine that prints code for `target`: position-independent, small.
pub(crate) fn machine(target: &Target) -> TargetMachine {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| LlvmTarget::initialize_x86(&InitializationConfig::default()));
    let triple = TargetTriple::create("x86_64-unknown-linux-gnu");
    let options = TargetMachineOptions::default()
        .set_cpu("x86-64")
        .set_features(&llvm_features(target))
        .set_level(OptimizationLevel::Aggressive)
        .set_reloc_mode(RelocMode::PIC)
        .set_code_model(CodeModel::Small);
    LlvmTarget::from_triple(&triple)
        .ok()
        .and_then(|llvm| llvm.create_target_machine_from_options(&triple, options))
        .expect("this LLVM was built with x86-64")
}

impl<'c> Builder<'c> {
    /// `acc + a.high · b.high`, then `+ a.low · b.low`, lane by lane, each step rounded once: the
    /// definition of `vdpbf16ps`, which is used where the target has it.
    ///
    /// The instruction takes denormals as zero; the two fused multiply-adds elsewhere do not.
    pub fn dot_bf16(&mut self, acc: F32<'c>, a: I32<'c>, b: I32<'c>) -> F32<'c> {
        let width = acc.width();
        if width == 16 && self.target.has("avx512bf16") {
            let pairs = self.bf16_vector(32);
            let [a, b] = [a, b].map(|pair| {
                let pair = self.splat(pair, width);
                let cast = self.llvm.build_cast(InstructionOpcode::BitCast, pair.0, pairs, "");
                cast.expect("the builder is positioned")
            });
            return F32(self.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", &[], &[acc.0, a, b]));
        }
        let (a_high, b_high) = (self.high_of_pairs(a), self.high_of_pairs(b));
        let (a_low, b_low) = (self.low_of_pairs(a), self.low_of_pairs(b));
        let sum = self.fma(a_high, b_high, acc);
        self.fma(a_low, b_low, sum)
    }

    /// `acc + Σ a · b` over the four bytes of each lane, those of `a` unsigned and those of `b` signed,
    /// exact: the definition of `vpdpbusd`, which is used where the target has it.
    pub fn dot_bytes(&mut self, acc: I32<'c>, a: I32<'c>, b: I32<'c>) -> I32<'c> {
        let width = acc.width();
        if width == 16 && self.target.has("avx512vnni") {
            let bytes: BasicTypeEnum<'c> = self.context.i8_type().vec_type(64).into();
            let [a, b] = [a, b].map(|quad| {
                let quad = self.splat(quad, width);
                let cast = self.llvm.build_cast(InstructionOpcode::BitCast, quad.0, bytes, "");
                cast.expect("the builder is positioned")
            });
            return I32(self.intrinsic("llvm.x86.avx512.vpdpbusd.512", &[], &[acc.0, a, b]));
        }
        // First and third byte, then second and fourth, as 16 bits each.
        let low = self.i32(0x00ff_00ff);
        let even = self.and(a, low);
        let odd = self.shift_right(a, 8);
        let odd = self.and(odd, low);
        let [even_b, odd_b] = [true, false].map(|even| self.signed_shorts(b, even));
        let acc = self.dot_shorts(acc, even, even_b);
        self.dot_shorts(acc, odd, odd_b)
    }

    /// The first and third signed byte of each lane as 16 bits (`even`), or the second and fourth.
    pub fn signed_shorts(&mut self, bytes: I32<'c>, even: bool) -> I32<'c> {
        let up = if even { self.shift_left(bytes, 8) } else { bytes };
        let shorts = self.short_vector(2 * bytes.width());
        let vector = self.llvm.build_cast(InstructionOpcode::BitCast, up.0, shorts, "");
        let vector = vector.expect("the builder is positioned").into_vector_value();
        let eight = self.context.i16_type().const_int(8, false);
        let eight =
            inkwell::types::VectorType::const_vector(&vec![eight; 2 * bytes.width() as usize]);
        let down = self.llvm.build_right_shift(vector, eight, true, "");
        let down = down.expect("the builder is positioned");
        let words = self.vector_type(ElementKind::I32, bytes.width());
        let cast = self.llvm.build_cast(InstructionOpcode::BitCast, down, words, "");
        I32(cast.expect("the builder is positioned"))
    }

    /// `acc + a.low · b.low + a.high · b.high` over the two signed 16-bit halves of each lane, exact
    /// as long as the products' sum fits 32 bits. Sums are added in the order of the calls: in
    /// another, LLVM keeps more of them than there are registers.
    pub fn dot_shorts(&mut self, acc: I32<'c>, a: I32<'c>, b: I32<'c>) -> I32<'c> {
        let width = acc.width();
        let fused = width == 16 && self.target.has("avx512vnni");
        let name = match width {
            16 => "llvm.x86.avx512.pmaddw.d.512",
            8 => "llvm.x86.avx2.pmadd.wd",
            other => panic!("no vectors of {other} on x86-64"),
        };
        let shorts = self.short_vector(2 * width);
        let [a, b] = [a, b].map(|pair| {
            let pair = self.splat(pair, width);
            let cast = self.llvm.build_cast(InstructionOpcode::BitCast, pair.0, shorts, "");
            cast.expect("the builder is positioned")
        });
        if fused {
            return I32(self.intrinsic("llvm.x86.avx512.vpdpwssd.512", &[], &[acc.0, a, b]));
        }
        let products = I32(self.intrinsic(name, &[], &[a, b]));
        let sum = self.add(acc, products);
        self.opaque(sum)
    }

    /// f32 to the nearest integer, ties to even; what does not fit becomes the least i32.
    pub fn round_to_i32(&mut self, a: F32<'c>) -> I32<'c> {
        match a.width() {
            16 => {
                let none = self.i32s(0, 16);
                let mask = self.context.i16_type().const_all_ones().into();
                let current = self.context.i32_type().const_int(4, false).into();
                let values = [a.0, none.0, mask, current];
                I32(self.intrinsic("llvm.x86.avx512.mask.cvtps2dq.512", &[], &values))
            }
            8 => I32(self.intrinsic("llvm.x86.avx.cvt.ps2dq.256", &[], &[a.0])),
            other => panic!("no vectors of {other} on x86-64"),
        }
    }

    fn short_vector(&self, width: u32) -> BasicTypeEnum<'c> {
        self.context.i16_type().vec_type(width).into()
    }

    /// Rounding to bf16 by the target's instruction, where there is one for this width.
    pub(super) fn round_natively(&mut self, a: F32<'c>) -> Option<Bf16<'c>> {
        let name = match a.width() {
            16 => "llvm.x86.avx512bf16.cvtneps2bf16.512",
            8 => "llvm.x86.avx512bf16.cvtneps2bf16.256",
            _ => return None,
        };
        if !self.target.has("avx512bf16") {
            return None;
        }
        let rounded = self.intrinsic(name, &[], &[a.0]);
        let to = self.vector_type(ElementKind::Bf16, a.width());
        let cast = self.llvm.build_cast(InstructionOpcode::BitCast, rounded, to, "");
        Some(Bf16(cast.expect("the builder is positioned")))
    }

    /// `a · 2^power` by the target's instruction, where there is one for this width.
    pub(super) fn scale_natively(&mut self, a: F32<'c>, power: F32<'c>) -> Option<F32<'c>> {
        if a.width() != 16 || !self.target.has("avx512f") {
            return None;
        }
        let mask = self.context.i16_type().const_all_ones().into();
        let rounding = self.context.i32_type().const_int(4, false).into();
        let values = [a.0, power.0, a.0, mask, rounding];
        Some(F32(self.intrinsic("llvm.x86.avx512.mask.scalef.ps.512", &[], &values)))
    }

    /// The same vector, but LLVM no longer knows where it came from.
    pub(super) fn opaque<T: Value<'c>>(&mut self, a: T) -> T {
        if a.width() == 1 {
            return a;
        }
        let register = if self.target.has("avx512f") { "=v,0" } else { "=x,0" };
        let kind = a.raw().get_type();
        let signature = kind.fn_type(&[kind.into()], false);
        let same = self.context.create_inline_asm(
            signature,
            String::new(),
            register.to_owned(),
            false,
            false,
            None,
            false,
        );
        let call = self.llvm.build_indirect_call(signature, same, &[a.raw().into()], "");
        let value = call.expect("the builder is positioned").try_as_basic_value();
        T::from_raw(value.basic().expect("the type of the operand is the type of the result"))
    }

    fn bf16_vector(&self, width: u32) -> BasicTypeEnum<'c> {
        self.context.bf16_type().vec_type(width).into()
    }
}
