//! Scheme `bf16`: pairs of bf16 values, f32 sums.
//!
//! A packed row is its pairs, as bf16; as f32 on targets with 16 registers, which have none to take
//! pairs apart in. Rows of `int8-weight` are the same, in whole quads.

use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::super::product::{Product, Step};
use crate::emit::{Builder, F32, Index, Ptr};
use crate::packing::bf16;

/// Pairs in one turn of the inner loop.
const UNROLL: u64 = 4;

/// Rows multiplied at once, and whether rows are widened. Two sums a row; what is left of the
/// registers holds the panel's vectors and the rows' pairs.
pub fn shape(target: &Target) -> (u32, bool) {
    if target.limits().registers == 32 { (12, false) } else { (6, true) }
}

/// Pairs of values in a row; what the last lack is zeros.
pub fn pairs(product: &Product) -> u64 {
    let k = u64::from(product.k);
    match product.scheme {
        Scheme::Int8Weight => 2 * k.div_ceil(4),
        _ => k.div_ceil(2),
    }
}

/// Bytes of a pair of a packed row.
fn pair_bytes(product: &Product) -> u64 {
    if product.widened { 8 } else { 4 }
}

pub fn row_bytes(product: &Product) -> u64 {
    pairs(product) * pair_bytes(product)
}

/// Clear what is beyond the row's values. To be called before they are put there.
pub fn pad_row<'c>(k: &mut Builder<'c>, product: &Product, row: Ptr<'c>) {
    // From the last word on that has a value or none.
    let value_bytes = u64::from(product.k) * pair_bytes(product) / 2;
    for word in (value_bytes / 4 * 4..row_bytes(product)).step_by(4) {
        let place = k.at_bytes_constant(row, word);
        let zero = k.i32(0);
        k.store(place, zero);
    }
}

/// The sums of the rows of `step`.
pub fn sums<'c>(k: &mut Builder<'c>, product: &Product, step: Step<'c>) -> Vec<[F32<'c>; 2]> {
    let pairs = pairs(product);
    let none = k.f32s(0.0, product.lanes);
    let sums = vec![[none; 2]; step.rows as usize];
    let even = pairs - pairs % UNROLL;
    let [zero, even, end] = [0, even, pairs].map(|at| k.index(at));
    let sums = k.fold(zero, even, UNROLL, sums, |k, pair, mut sums| {
        for ahead in 0..UNROLL {
            let pair = k.add_constant(pair, ahead);
            sums = multiply(k, product, step, pair, sums);
        }
        sums
    });
    k.fold(even, end, 1, sums, |k, pair, sums| multiply(k, product, step, pair, sums))
}

/// Where pair number `pair` of each row of `step` is.
pub fn row_pairs<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    step: Step<'c>,
    pair: Index<'c>,
) -> Vec<Ptr<'c>> {
    let offset = k.mul_constant(pair, pair_bytes(product));
    step.each_row(k, product, offset)
}

/// One pair of each row times the panel's pair: the second value first, as `dot_bf16` does.
fn multiply<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    step: Step<'c>,
    pair: Index<'c>,
    mut sums: Vec<[F32<'c>; 2]>,
) -> Vec<[F32<'c>; 2]> {
    let rows = row_pairs(k, product, step, pair);
    if !product.widened {
        let weights = bf16::load_pairs(k, step.pairs(), pair);
        let place = k.mul_constant(pair, 2 * product.vector_bytes());
        let place = k.at_bytes(step.pairs(), place);
        step.foresee(k, product, place, 2);
        for (row, sums) in rows.into_iter().zip(&mut sums) {
            let x = k.load_word_everywhere(row, product.lanes);
            *sums = [0, 1].map(|half| k.dot_bf16(sums[half], weights[half], x));
        }
        return sums;
    }
    for second in [true, false] {
        // Loaded anew for each half, since no register can keep the pairs meanwhile.
        let pairs = bf16::load_pairs(k, step.pairs(), pair);
        let weights = pairs.map(|w| if second { k.high_of_pairs(w) } else { k.low_of_pairs(w) });
        for (row, sums) in rows.iter().zip(&mut sums) {
            let place = k.at_bytes_constant(*row, if second { 4 } else { 0 });
            let x = k.load::<F32>(place, 1);
            *sums = [0, 1].map(|half| k.fma(weights[half], x, sums[half]));
        }
    }
    sums
}
