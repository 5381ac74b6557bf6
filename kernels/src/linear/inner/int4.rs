//! Scheme `int4`: nibbles times bytes, i32 sums of a group, f32 sums of groups in their order.

use sail_ir::scheme::Scheme;

use super::super::product::{Product, Step};
use super::bytes::{self, UNROLL};
use crate::emit::{Builder, F32, I32, Index, Ptr};

pub use super::bytes::shape;

/// Where the scale is in a word: bf16 in the upper half, so that the word is nearly the f32.
const SCALE: i32 = 0xffff_0000_u32 as i32;
const ZERO_POINT: i32 = 0xff;

fn groups(product: &Product) -> u64 {
    u64::from(product.k).div_ceil(Scheme::GROUP)
}

/// Bytes of a panel's group of `length` values.
fn group_bytes(product: &Product, length: u64) -> u64 {
    length.div_ceil(4) * product.vector_bytes() + 2 * product.vector_bytes()
}

pub fn row_bytes(product: &Product) -> u64 {
    bytes::row_bytes(product, groups(product))
}

pub fn quantize_row<'c>(k: &mut Builder<'c>, product: &Product, staged: Ptr<'c>, packed: Ptr<'c>) {
    bytes::quantize_row(k, product, Scheme::GROUP, staged, packed);
}

/// The sums of the rows of `step`.
pub fn sums<'c>(k: &mut Builder<'c>, product: &Product, step: Step<'c>) -> Vec<[F32<'c>; 2]> {
    let length = u64::from(product.k);
    let whole = length / Scheme::GROUP;
    let none = k.f32s(0.0, product.lanes);
    let sums = vec![[none; 2]; step.rows as usize];
    let [zero, end] = [0, whole].map(|at| k.index(at));
    let mut sums = k.fold(zero, end, 1, sums, |k, index, sums| {
        group(k, product, step, (index, Scheme::GROUP), sums)
    });
    if length > whole * Scheme::GROUP {
        sums = group(k, product, step, (end, length - whole * Scheme::GROUP), sums);
    }
    let rows = step.each_row(k, product, zero);
    let rows = rows.into_iter().zip(sums).map(|(row, sums)| {
        let scale = bytes::scale(k, product, row);
        sums.map(|sum| k.mul(sum, scale))
    });
    rows.collect()
}

/// `sums` and what group number `index`, of `length` values, adds to them.
fn group<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    step: Step<'c>,
    (index, length): (Index<'c>, u64),
    sums: Vec<[F32<'c>; 2]>,
) -> Vec<[F32<'c>; 2]> {
    let offset = k.mul_constant(index, group_bytes(product, Scheme::GROUP));
    let at = k.at_bytes(step.panel, offset);
    let first = k.mul_constant(index, Scheme::GROUP / 4);
    let none = k.i32s(0, product.lanes);
    let integers = vec![[none; 2]; sums.len()];
    let quads = length.div_ceil(4);
    let even = quads - quads % UNROLL;
    let [zero, even, end] = [0, even, quads].map(|at| k.index(at));
    let integers = k.fold(zero, even, UNROLL, integers, |k, quad, mut integers| {
        for ahead in 0..UNROLL {
            let quad = k.add_constant(quad, ahead);
            integers = multiply(k, product, (step, at, first), quad, integers);
        }
        integers
    });
    let integers = k.fold(even, end, 1, integers, |k, quad, integers| {
        multiply(k, product, (step, at, first), quad, integers)
    });
    let words = k.at_bytes_constant(at, quads * product.vector_bytes());
    add_group(k, product, step, (index, words), (integers, sums))
}

/// One quad of each row times the panel's quads at `at`, where quad `first` of the rows begins.
fn multiply<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    (step, at, first): (Step<'c>, Ptr<'c>, Index<'c>),
    quad: Index<'c>,
    mut integers: Vec<[I32<'c>; 2]>,
) -> Vec<[I32<'c>; 2]> {
    let offset = k.mul_constant(quad, product.vector_bytes());
    let place = k.at_bytes(at, offset);
    let packed = k.load_in_order::<I32>(place, product.lanes);
    step.foresee(k, product, place, 1);
    let weights = [0, 4].map(|from| bytes::quads(k, product, packed, (from, 4)));
    let quad = k.add(first, quad);
    let rows = bytes::row_quads(k, product, step, quad);
    for (row, integers) in rows.into_iter().zip(&mut integers) {
        *integers = bytes::multiply(k, product, *integers, weights, row);
    }
    integers
}

/// `sums + (integers - zero point · sum of the row's integers) · scale`, the last two rounded once.
fn add_group<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    step: Step<'c>,
    (index, words): (Index<'c>, Ptr<'c>),
    (integers, sums): (Vec<[I32<'c>; 2]>, Vec<[F32<'c>; 2]>),
) -> Vec<[F32<'c>; 2]> {
    let second = k.at_bytes_constant(words, product.vector_bytes());
    let words = [words, second].map(|place| k.load_in_order::<I32>(place, product.lanes));
    let [scale, zero] = [SCALE, ZERO_POINT].map(|mask| k.i32(mask));
    let scales = words.map(|word| {
        let bits = k.and(word, scale);
        k.of_bits(bits)
    });
    let zeros = words.map(|word| k.and(word, zero));
    let start = k.index(0);
    let rows = step.each_row(k, product, start);
    let rows = rows.into_iter().zip(integers).zip(sums).map(|((row, integers), sums)| {
        let totals = bytes::sums(k, product, row);
        let total = k.at::<I32>(totals, index);
        let total = k.load::<I32>(total, 1);
        [0, 1].map(|half| {
            let offset = k.mul(zeros[half], total);
            let integer = k.sub(integers[half], offset);
            let value = k.f32_of(integer);
            k.fma(value, scales[half], sums[half])
        })
    });
    rows.collect()
}
