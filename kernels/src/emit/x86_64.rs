//! x86-64: how a kernel is called and compiled there, and the instructions it has special words for.

use std::sync::Once;

use inkwell::OptimizationLevel;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::module::Module;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{
    CodeModel, FileType, InitializationConfig, RelocMode, Target as LlvmTarget, TargetMachine,
    TargetMachineOptions, TargetTriple,
};
use inkwell::types::{BasicType, BasicTypeEnum};
use inkwell::values::InstructionOpcode;
use sail_ir::target::Target;

use super::{Bf16, Builder, ElementKind, F32, I32, Value};

/// Scheduling model for all targets: the machines at hand, and a good guess for others.
const TUNE: &str = "znver4";

/// Optimisation of the module; vectors and unrolling are the kernels' own business.
const PASSES: &str = "default<O2>";

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

/// Optimise a module in place. The message is LLVM's.
pub(crate) fn optimise(module: &Module<'_>, machine: &TargetMachine) -> Result<(), String> {
    let options = PassBuilderOptions::create();
    options.set_loop_vectorization(false);
    options.set_loop_slp_vectorization(false);
    options.set_loop_unrolling(false);
    options.set_loop_interleaving(false);
    module.set_triple(&machine.get_triple());
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    module.verify().map_err(|message| message.to_string())?;
    module.run_passes(PASSES, machine, options).map_err(|message| message.to_string())
}

/// The object file or the assembly text of an optimised module.
pub(crate) fn print(
    module: &Module<'_>,
    machine: &TargetMachine,
    kind: FileType,
) -> Result<Vec<u8>, String> {
    let buffer =
        machine.write_to_memory_buffer(module, kind).map_err(|message| message.to_string())?;
    Ok(buffer.as_slice().to_vec())
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
        if a.width() == 1 || !self.target.has("avx512f") {
            return a;
        }
        let kind = a.raw().get_type();
        let signature = kind.fn_type(&[kind.into()], false);
        let same = self.context.create_inline_asm(
            signature,
            String::new(),
            "=v,0".to_owned(),
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
