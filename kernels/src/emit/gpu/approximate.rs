//! Functions of real numbers by the special function unit, for inner loops that can afford its
//! error. Denormals are zero.

use inkwell::types::BasicTypeEnum;
use inkwell::values::InstructionOpcode;

use super::super::{Bf16, Builder, ElementKind, F32, I32, Value};
use super::asm::Effect;

impl<'c> Builder<'c> {
    /// `2^x`, relative error below 2^-22.
    pub fn exp2_approx(&mut self, x: F32<'c>) -> F32<'c> {
        self.special("ex2.approx.ftz.f32", x)
    }

    /// `1 / x`, 1 ulp.
    pub fn reciprocal_approx(&mut self, x: F32<'c>) -> F32<'c> {
        self.special("rcp.approx.ftz.f32", x)
    }

    /// `1 / sqrt(x)`, relative error below 2^-22.9.
    pub fn rsqrt_approx(&mut self, x: F32<'c>) -> F32<'c> {
        self.special("rsqrt.approx.ftz.f32", x)
    }

    /// `x / (1 + e^-x)` from the three above: relative error some 2^-21.
    pub fn silu_approx(&mut self, x: F32<'c>) -> F32<'c> {
        let minus_log2_e = self.f32(-std::f32::consts::LOG2_E);
        let scaled = self.mul(x, minus_log2_e);
        let small = self.exp2_approx(scaled);
        let one = self.f32(1.0);
        let below = self.add(small, one);
        let share = self.reciprocal_approx(below);
        self.mul(x, share)
    }

    /// The greater of two, the other where one is not a number: one instruction.
    pub fn greater(&mut self, a: F32<'c>, b: F32<'c>) -> F32<'c> {
        F32(self.intrinsic("llvm.maxnum", &[a.0.get_type()], &[a.0, b.0]))
    }

    fn special(&mut self, instruction: &str, x: F32<'c>) -> F32<'c> {
        let float: BasicTypeEnum<'c> = self.context.f32_type().into();
        let text = format!("{instruction} $0, $1;");
        let lanes = self.lanes_of(x);
        let values: Vec<_> = lanes
            .into_iter()
            .map(|x| F32(self.ptx(&text, "=f,f", &[float], &[x.0], Effect::None)[0]))
            .collect();
        self.vector_of(&values)
    }

    /// f32 to the nearest signed byte, ties to even, what does not fit to its nearest; one value, in
    /// the low 8 bits.
    pub fn round_to_byte(&mut self, a: F32<'c>) -> I32<'c> {
        let text = "cvt.rni.sat.s8.f32 $0, $1;";
        let word = self.word_type();
        I32(self.ptx(text, "=r,f", &[word], &[a.0], Effect::None)[0])
    }

    /// f32 rounded to bf16 by the target's instruction.
    pub(crate) fn round_on_gpu(&mut self, a: F32<'c>) -> Bf16<'c> {
        let one = self.context.bf16_type();
        let narrow: BasicTypeEnum<'c> = match a.width() {
            1 => one.into(),
            width => one.vec_type(width).into(),
        };
        let rounded = self.llvm.build_cast(InstructionOpcode::FPTrunc, a.0, narrow, "");
        let rounded = rounded.expect("the builder is positioned");
        let bits = self.vector_type(ElementKind::Bf16, a.width());
        self.cast(InstructionOpcode::BitCast, rounded, bits)
    }
}
