//! Values of a kernel under construction, typed by what they hold.
//!
//! `F32`, `I32`, `Bf16` and `Bool` are one value or a vector of `width()` values; `Index` (64 bits)
//! and `Ptr` are single. All are copies of a handle: nothing is computed when they are passed on.

use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct $name<'c>(pub(super) BasicValueEnum<'c>);

        impl<'c> Value<'c> for $name<'c> {
            fn raw(self) -> BasicValueEnum<'c> {
                self.0
            }
            fn from_raw(value: BasicValueEnum<'c>) -> Self {
                Self(value)
            }
        }
    };
}

handle! {
    /// f32 values.
    F32
}
handle! {
    /// i32 values; also pairs of bf16, one pair in 32 bits, the first in the low half.
    I32
}
handle! {
    /// bf16 values as 16 bits; arithmetic needs `widen` first.
    Bf16
}
handle! {
    /// Truth values: conditions and lane masks.
    Bool
}
handle! {
    /// A count, an offset, a row: 64-bit signed.
    Index
}
handle! {
    /// An address in memory.
    Ptr
}

/// Anything a kernel can hold in a variable.
pub trait Value<'c>: Copy {
    fn raw(self) -> BasicValueEnum<'c>;
    fn from_raw(value: BasicValueEnum<'c>) -> Self;

    /// Lanes; 1 for a single value.
    fn width(self) -> u32 {
        match self.raw().get_type() {
            BasicTypeEnum::VectorType(vector) => vector.get_size(),
            _ => 1,
        }
    }
}

/// What `load` and `store` move: values with a size in memory.
pub trait Element<'c>: Value<'c> {
    const BYTES: u64;
    const KIND: ElementKind;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementKind {
    F32,
    I32,
    Bf16,
}

impl<'c> Element<'c> for F32<'c> {
    const BYTES: u64 = 4;
    const KIND: ElementKind = ElementKind::F32;
}

impl<'c> Element<'c> for I32<'c> {
    const BYTES: u64 = 4;
    const KIND: ElementKind = ElementKind::I32;
}

impl<'c> Element<'c> for Bf16<'c> {
    const BYTES: u64 = 2;
    const KIND: ElementKind = ElementKind::Bf16;
}

/// Values with sums, products and an order.
pub trait Number<'c>: Value<'c> {
    const FLOAT: bool;
}

impl<'c> Number<'c> for F32<'c> {
    const FLOAT: bool = true;
}

impl<'c> Number<'c> for I32<'c> {
    const FLOAT: bool = false;
}

impl<'c> Number<'c> for Index<'c> {
    const FLOAT: bool = false;
}

impl<'c> Index<'c> {
    pub(super) fn int(self) -> IntValue<'c> {
        self.0.into_int_value()
    }
}

impl<'c> Bool<'c> {
    pub(super) fn int(self) -> IntValue<'c> {
        self.0.into_int_value()
    }
}

impl<'c> Ptr<'c> {
    pub(super) fn pointer(self) -> PointerValue<'c> {
        self.0.into_pointer_value()
    }
}

/// What a loop carries from one turn to the next, or a branch gives back: one value, several of one
/// kind, or a tuple.
pub trait Carried<'c>: Sized {
    fn values(&self, into: &mut Vec<BasicValueEnum<'c>>);
    /// The same shape with other values, taken from the front of `from`.
    fn with(&self, from: &mut dyn Iterator<Item = BasicValueEnum<'c>>) -> Self;
}

macro_rules! carried_value {
    ($($name:ident)*) => {$(
        impl<'c> Carried<'c> for $name<'c> {
            fn values(&self, into: &mut Vec<BasicValueEnum<'c>>) {
                into.push(self.0);
            }
            fn with(&self, from: &mut dyn Iterator<Item = BasicValueEnum<'c>>) -> Self {
                Self(from.next().expect("a carried value has a successor"))
            }
        }
    )*};
}

carried_value!(F32 I32 Bf16 Bool Index Ptr);

impl<'c> Carried<'c> for () {
    fn values(&self, _: &mut Vec<BasicValueEnum<'c>>) {}
    fn with(&self, _: &mut dyn Iterator<Item = BasicValueEnum<'c>>) -> Self {}
}

impl<'c, T: Carried<'c>> Carried<'c> for Vec<T> {
    fn values(&self, into: &mut Vec<BasicValueEnum<'c>>) {
        self.iter().for_each(|value| value.values(into));
    }
    fn with(&self, from: &mut dyn Iterator<Item = BasicValueEnum<'c>>) -> Self {
        self.iter().map(|value| value.with(from)).collect()
    }
}

impl<'c, T: Carried<'c>, const N: usize> Carried<'c> for [T; N] {
    fn values(&self, into: &mut Vec<BasicValueEnum<'c>>) {
        self.iter().for_each(|value| value.values(into));
    }
    fn with(&self, from: &mut dyn Iterator<Item = BasicValueEnum<'c>>) -> Self {
        std::array::from_fn(|i| self[i].with(from))
    }
}

macro_rules! carried_tuple {
    ($($name:ident $at:tt),*) => {
        impl<'c, $($name: Carried<'c>),*> Carried<'c> for ($($name,)*) {
            fn values(&self, into: &mut Vec<BasicValueEnum<'c>>) {
                $(self.$at.values(into);)*
            }
            fn with(&self, from: &mut dyn Iterator<Item = BasicValueEnum<'c>>) -> Self {
                ($(self.$at.with(from),)*)
            }
        }
    };
}

carried_tuple!(A 0, B 1);
carried_tuple!(A 0, B 1, C 2);
carried_tuple!(A 0, B 1, C 2, D 3);
