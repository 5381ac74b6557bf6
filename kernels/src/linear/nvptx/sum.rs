//! What is added up, by scheme: f32 of bf16, of floats of 8 bits and of scaled groups of integers,
//! i32 of signed bytes.

use sail_ir::scheme::Scheme;

use crate::emit::gpu::Left;
use crate::emit::{Builder, Carried, Element, F32, I32, Index, Number};

/// A sum of products, 32 bits.
pub trait Sum<'c>: Number<'c> + Element<'c> + Carried<'c> {
    fn zero(k: &mut Builder<'c>) -> Self;

    /// `sum + a · b` over 32 bytes of each row; fragments as in [`crate::emit::gpu::matrix`].
    fn multiply(
        k: &mut Builder<'c>,
        scheme: Scheme,
        sum: [Self; 4],
        a: [I32<'c>; 4],
        b: [I32<'c>; 2],
    ) -> [Self; 4];

    /// As [`Builder::product_bf16`] or those of other elements, both sides in shared memory.
    fn product(
        k: &mut Builder<'c>,
        scheme: Scheme,
        sums: &[Self],
        sides: [Index<'c>; 2],
        fresh: bool,
    ) -> Vec<Self>;

    /// `sum + group · scale`, each of the group's sums having its scale.
    fn add_group(
        k: &mut Builder<'c>,
        sum: [Self; 4],
        group: [I32<'c>; 4],
        scales: [F32<'c>; 4],
    ) -> [Self; 4];

    /// As f32, before any scale.
    fn as_f32(self, k: &mut Builder<'c>) -> F32<'c>;
}

impl<'c> Sum<'c> for F32<'c> {
    fn zero(k: &mut Builder<'c>) -> Self {
        k.f32(0.0)
    }

    fn multiply(
        k: &mut Builder<'c>,
        scheme: Scheme,
        sum: [Self; 4],
        a: [I32<'c>; 4],
        b: [I32<'c>; 2],
    ) -> [Self; 4] {
        match scheme {
            Scheme::Fp8 => k.matrix_e4m3(sum, a, b),
            _ => k.matrix_bf16(sum, a, b),
        }
    }

    fn product(
        k: &mut Builder<'c>,
        scheme: Scheme,
        sums: &[Self],
        [left, right]: [Index<'c>; 2],
        fresh: bool,
    ) -> Vec<Self> {
        match scheme {
            Scheme::Fp8 => k.product_e4m3(sums, Left::Shared(left), right, fresh),
            _ => k.product_bf16(sums, Left::Shared(left), right, fresh),
        }
    }

    fn add_group(
        k: &mut Builder<'c>,
        sum: [Self; 4],
        group: [I32<'c>; 4],
        scales: [F32<'c>; 4],
    ) -> [Self; 4] {
        std::array::from_fn(|at| {
            // 128 products of 15 · 127 at most are below 2^22.
            let group = k.f32_of_small(group[at]);
            k.fma(group, scales[at], sum[at])
        })
    }

    fn as_f32(self, _: &mut Builder<'c>) -> F32<'c> {
        self
    }
}

impl<'c> Sum<'c> for I32<'c> {
    fn zero(k: &mut Builder<'c>) -> Self {
        k.i32(0)
    }

    fn multiply(
        k: &mut Builder<'c>,
        _: Scheme,
        sum: [Self; 4],
        a: [I32<'c>; 4],
        b: [I32<'c>; 2],
    ) -> [Self; 4] {
        k.matrix_int8(sum, a, b)
    }

    fn product(
        k: &mut Builder<'c>,
        _: Scheme,
        sums: &[Self],
        [left, right]: [Index<'c>; 2],
        fresh: bool,
    ) -> Vec<Self> {
        k.product_int8(sums, Left::Shared(left), right, fresh)
    }

    fn add_group(_: &mut Builder<'c>, _: [Self; 4], _: [I32<'c>; 4], _: [F32<'c>; 4]) -> [Self; 4] {
        panic!("sums of scaled groups are no integers");
    }

    fn as_f32(self, k: &mut Builder<'c>) -> F32<'c> {
        k.f32_of(self)
    }
}
