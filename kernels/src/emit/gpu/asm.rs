//! Inline assembly: instructions that LLVM has no intrinsic for.

use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::types::{BasicType, BasicTypeEnum};
use inkwell::values::BasicValueEnum;

use super::super::Builder;

/// What an instruction does besides giving its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it may be joined with an equal one, moved, or left out.
    None,
    /// It stays where it stands among others of its kind.
    Ordered,
    /// As `Ordered`, and no access to memory moves past it.
    Memory,
}

impl<'c> Builder<'c> {
    /// One piece of PTX, `$0` being the first result, then the operands.
    ///
    /// `constraints` names a register class for each of `results`, then for each operand: `r` and
    /// `f` of 32 bits, `l` of 64, `h` of 16, `n` for a constant. The call is convergent: it is not
    /// moved under another condition.
    pub fn ptx(
        &mut self,
        text: &str,
        constraints: &str,
        results: &[BasicTypeEnum<'c>],
        operands: &[BasicValueEnum<'c>],
        effect: Effect,
    ) -> Vec<BasicValueEnum<'c>> {
        let types: Vec<_> = operands.iter().map(|value| value.get_type().into()).collect();
        let signature = match results {
            [] => self.context.void_type().fn_type(&types, false),
            [one] => one.fn_type(&types, false),
            several => self.context.struct_type(several, false).fn_type(&types, false),
        };
        let mut constraints = constraints.to_owned();
        if effect == Effect::Memory {
            let comma = if constraints.is_empty() { "" } else { "," };
            constraints.push_str(comma);
            constraints.push_str("~{memory}");
        }
        let code = self.context.create_inline_asm(
            signature,
            text.to_owned(),
            constraints,
            effect != Effect::None,
            false,
            None,
            false,
        );
        let operands: Vec<_> = operands.iter().map(|value| (*value).into()).collect();
        let call = self.llvm.build_indirect_call(signature, code, &operands, "");
        let call = call.expect("the builder is positioned");
        let kind = Attribute::get_named_enum_kind_id("convergent");
        let convergent = self.context.create_enum_attribute(kind, 0);
        call.add_attribute(AttributeLoc::Function, convergent);
        let value = match results {
            [] => return Vec::new(),
            _ => call.try_as_basic_value().basic().expect("the signature has a result"),
        };
        match results.len() {
            1 => vec![value],
            count => self.fields(value, count),
        }
    }

    /// The fields of a value of several.
    pub(crate) fn fields(
        &mut self,
        value: BasicValueEnum<'c>,
        count: usize,
    ) -> Vec<BasicValueEnum<'c>> {
        let value = value.into_struct_value();
        (0..count)
            .map(|at| {
                let field = self.llvm.build_extract_value(value, at as u32, "");
                field.expect("the value has so many fields")
            })
            .collect()
    }
}
