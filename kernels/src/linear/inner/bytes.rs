//! Rows of 8-bit values, quantized when they are packed: what `int8` and `int4` have in common.
//!
//! A packed row is its values in quads along K, then what is needed to undo the quantization:
//!
//! ```text
//! values   i8, quads as they are; i16 as (x0 x2) (x1 x3) where bytes cannot be multiplied
//! scale    f32: a value is its integer times this
//! sums     i32 of the integers: one for each group of K that has a zero point of its own
//! ```

use sail_ir::target::Target;

use super::super::product::{Product, Step};
use crate::emit::{Bf16, Builder, F32, I32, Index, Ptr};

/// Quads in one turn of the inner loop.
pub const UNROLL: u64 = 4;

/// Rows multiplied at once, and whether values are widened to 16 bits. Two sums a row; what is left
/// of the registers holds the panel's vectors (twice as many when they are widened), a mask and the
/// rows' values.
pub fn shape(target: &Target) -> (u32, bool) {
    match (target.has("avx512vnni"), target.limits().registers) {
        (true, _) => (12, false),
        (false, 32) => (8, true),
        (false, _) => (4, true),
    }
}

/// Bytes of the quad of a packed row.
fn quad_bytes(product: &Product) -> u64 {
    if product.widened { 8 } else { 4 }
}

/// Bytes of the values of a packed row: whole vectors when they are written.
fn value_bytes(product: &Product) -> u64 {
    u64::from(product.k.next_multiple_of(product.lanes)) * quad_bytes(product) / 4
}

/// Bytes of a packed row whose K is cut into `groups`.
pub fn row_bytes(product: &Product, groups: u64) -> u64 {
    value_bytes(product) + 4 + 4 * groups
}

/// The scale of the packed row at `row`.
pub fn scale<'c>(k: &mut Builder<'c>, product: &Product, row: Ptr<'c>) -> F32<'c> {
    let place = k.at_bytes_constant(row, value_bytes(product));
    k.load::<F32>(place, 1)
}

/// Where the sums of the packed row at `row` begin.
pub fn sums<'c>(k: &mut Builder<'c>, product: &Product, row: Ptr<'c>) -> Ptr<'c> {
    k.at_bytes_constant(row, value_bytes(product) + 4)
}

/// Quantize the row at `staged` into the packed row at `packed`: the greatest magnitude becomes 127,
/// all else the nearest integer, ties to even. Groups are of `group` values.
pub fn quantize_row<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    group: u64,
    staged: Ptr<'c>,
    packed: Ptr<'c>,
) {
    let greatest = k.greatest_magnitude(staged, product.k.into());
    let [step, inverse] = k.byte_step(greatest);
    let place = k.at_bytes_constant(packed, value_bytes(product));
    k.store(place, step);

    let length = u64::from(product.k);
    let whole = length - length % group;
    let sums = sums(k, product, packed);
    let [first, end] = [0, whole].map(|at| k.index(at));
    k.for_each(first, end, group, |k, at| {
        let index = k.div_constant(at, group);
        let sum = quantize_group(k, product, (at, group), inverse, [staged, packed]);
        let place = k.at::<I32>(sums, index);
        k.store(place, sum);
    });
    if whole < length {
        let sum = quantize_group(k, product, (end, length - whole), inverse, [staged, packed]);
        let place = k.at_bytes_constant(sums, 4 * (whole / group));
        k.store(place, sum);
    }
}

/// Quantize `length` values from `at` on; gives the sum of their integers.
fn quantize_group<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    (at, length): (Index<'c>, u64),
    inverse: F32<'c>,
    [staged, packed]: [Ptr<'c>; 2],
) -> I32<'c> {
    let from = k.at::<Bf16>(staged, at);
    let offset = k.mul_constant(at, quad_bytes(product));
    let offset = k.div_constant(offset, 4);
    let to = k.at_bytes(packed, offset);
    let none = k.i32s(0, product.lanes);
    let sum = k.fold_pieces(length, none, |k, piece, sum| {
        let value = k.read_widened(from, piece);
        let value = k.mul(value, inverse);
        let value = k.round_to_i32(value);
        let offset = k.mul_constant(piece.at, quad_bytes(product));
        let offset = k.div_constant(offset, 4);
        let place = k.at_bytes(to, offset);
        store_values(k, product, place, value);
        k.add(sum, value)
    });
    k.sum_lanes(sum)
}

fn store_values<'c>(k: &mut Builder<'c>, product: &Product, to: Ptr<'c>, values: I32<'c>) {
    if !product.widened {
        return k.store_bytes(to, values);
    }
    let order: Vec<u32> =
        (0..product.lanes).map(|lane| lane - lane % 4 + [0, 2, 1, 3][lane as usize % 4]).collect();
    let values = k.shuffle(values, values, &order);
    k.store_shorts(to, values);
}

/// A quad of weights for each output of a vector, unsigned.
#[derive(Clone, Copy)]
pub enum Quads<'c> {
    Bytes(I32<'c>),
    /// As 16 bits: the first and third of each quad, then the second and fourth.
    Shorts([I32<'c>; 2]),
}

/// Quads from bits `from` on of each byte, `bits` of them.
pub fn quads<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    packed: I32<'c>,
    (from, bits): (i32, u32),
) -> Quads<'c> {
    let low = (1_i32 << bits) - 1;
    let mut take = |by: i32, mask: i32| {
        let moved = if by == 0 { packed } else { k.shift_right(packed, by) };
        let mask = k.i32(mask);
        k.and(moved, mask)
    };
    match (product.widened, bits) {
        (false, 8) => Quads::Bytes(packed),
        (false, _) => Quads::Bytes(take(from, 0x0101_0101 * low)),
        (true, _) => Quads::Shorts([0, 8].map(|skip| take(from + skip, 0x0001_0001 * low))),
    }
}

/// `sums + weights · x` for two vectors of outputs and the quad `x` of a packed row.
pub fn multiply<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    sums: [I32<'c>; 2],
    weights: [Quads<'c>; 2],
    x: Ptr<'c>,
) -> [I32<'c>; 2] {
    let lanes = product.lanes;
    if let [Quads::Bytes(one), Quads::Bytes(other)] = weights {
        let x = k.load_word_everywhere(x, lanes);
        return [k.dot_bytes(sums[0], one, x), k.dot_bytes(sums[1], other, x)];
    }
    let mut sums = sums;
    for at in [0, 1] {
        let place = k.at_bytes_constant(x, 4 * at);
        let x = k.load_word_everywhere(place, lanes);
        for (sum, weights) in sums.iter_mut().zip(weights) {
            if let Quads::Shorts(shorts) = weights {
                *sum = k.dot_shorts(*sum, shorts[at as usize], x);
            }
        }
    }
    sums
}

/// Where quad number `quad` of each row of `step` is.
pub fn row_quads<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    step: Step<'c>,
    quad: Index<'c>,
) -> Vec<Ptr<'c>> {
    let offset = k.mul_constant(quad, quad_bytes(product));
    step.each_row(k, product, offset)
}
