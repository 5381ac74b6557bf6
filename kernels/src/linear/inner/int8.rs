//! Scheme `int8`: bytes times bytes, i32 sums, one scale for each output and each row.
//!
//! A weight byte is 128 more than its integer, so that one factor is unsigned, as the instructions
//! want; 128 times the sum of a row's integers is taken off at the end. All of that is exact.

use super::super::product::{Product, Step};
use super::bytes::{self, Quads, UNROLL};
use crate::emit::{Builder, F32, I32, Index, Ptr};

pub use super::bytes::shape;

/// What a weight byte is more than its integer, as a power of two.
const OFFSET_BITS: i32 = 7;

pub fn row_bytes(product: &Product) -> u64 {
    bytes::row_bytes(product, 1)
}

pub fn quantize_row<'c>(k: &mut Builder<'c>, product: &Product, staged: Ptr<'c>, packed: Ptr<'c>) {
    bytes::quantize_row(k, product, product.k.into(), staged, packed);
}

fn quads(product: &Product) -> u64 {
    u64::from(product.k).div_ceil(4)
}

/// The sums of the rows of `step`.
pub fn sums<'c>(k: &mut Builder<'c>, product: &Product, step: Step<'c>) -> Vec<[F32<'c>; 2]> {
    let quads = quads(product);
    let none = k.i32s(0, product.lanes);
    let sums = vec![[none; 2]; step.rows as usize];
    let even = quads - quads % UNROLL;
    let [zero, even, end] = [0, even, quads].map(|at| k.index(at));
    let sums = k.fold(zero, even, UNROLL, sums, |k, quad, mut sums| {
        for ahead in 0..UNROLL {
            let quad = k.add_constant(quad, ahead);
            sums = multiply(k, product, step, quad, sums);
        }
        sums
    });
    let sums = k.fold(even, end, 1, sums, |k, quad, sums| multiply(k, product, step, quad, sums));
    scaled(k, product, step, sums)
}

fn multiply<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    step: Step<'c>,
    quad: Index<'c>,
    mut sums: Vec<[I32<'c>; 2]>,
) -> Vec<[I32<'c>; 2]> {
    let offset = k.mul_constant(quad, 2 * product.vector_bytes());
    let first = k.at_bytes(step.panel, offset);
    let second = k.at_bytes_constant(first, product.vector_bytes());
    let weights: [Quads<'c>; 2] = [first, second].map(|place| {
        let packed = k.load_in_order::<I32>(place, product.lanes);
        bytes::quads(k, product, packed, (0, 8))
    });
    step.foresee(k, product, first, 2);
    let rows = bytes::row_quads(k, product, step, quad);
    for (row, sums) in rows.into_iter().zip(&mut sums) {
        *sums = bytes::multiply(k, product, *sums, weights, row);
    }
    sums
}

/// Sums of integers as the sums they stand for: times the output's scale, then the row's.
fn scaled<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    step: Step<'c>,
    sums: Vec<[I32<'c>; 2]>,
) -> Vec<[F32<'c>; 2]> {
    let end = quads(product) * 2 * product.vector_bytes();
    let scales = [0, 1].map(|half| {
        let place = k.at_bytes_constant(step.panel, end + half * product.vector_bytes());
        k.load_in_order::<F32>(place, product.lanes)
    });
    let zero = k.index(0);
    let rows = step.each_row(k, product, zero);
    let rows = rows.into_iter().zip(sums).map(|(row, sums)| {
        let scale = bytes::scale(k, product, row);
        let total = bytes::sums(k, product, row);
        let total = k.load::<I32>(total, 1);
        let offset = k.shift_left(total, OFFSET_BITS);
        [0, 1].map(|half| {
            let sum = k.sub(sums[half], offset);
            let sum = k.f32_of(sum);
            let sum = k.mul(sum, scales[half]);
            k.mul(sum, scale)
        })
    });
    rows.collect()
}
