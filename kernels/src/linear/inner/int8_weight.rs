//! Scheme `int8-weight`: the bytes of `int8`, made bf16 values for rows that are bf16, f32 sums.
//!
//! Every integer of 8 bits is a bf16 value, so nothing is rounded on the way. For a few rows, which
//! wait for memory, quads are converted as they are met; for many, the panel is unpacked first, into
//! the pairs of `bf16` in the thread's workspace, and multiplied as those are. Both ways add the same
//! products in the same order.

use super::super::product::{Product, Step};
use super::bf16;
use super::bytes::UNROLL;
use crate::emit::{Builder, F32, I32, Index, Ptr};

/// Most rows for which a panel is not worth unpacking; their sums leave registers for conversions.
pub fn most_direct_rows(product: &Product) -> u32 {
    let most = if product.widened { 2 } else { 8 };
    most.min(product.most_rows)
}

/// Turns a byte that is 128 more than its integer into the integer, four at a time.
const OFFSETS: i32 = 0x8080_8080_u32 as i32;

/// A quad of weights of each output of a vector, as f32.
type Quad<'c> = [F32<'c>; 4];

fn quads(product: &Product) -> u64 {
    u64::from(product.k).div_ceil(4)
}

/// Bytes of an unpacked panel.
pub fn unpacked_bytes(product: &Product) -> u64 {
    bf16::pairs(product) * 2 * product.vector_bytes()
}

/// The sums of the rows of `step`.
pub fn sums<'c>(k: &mut Builder<'c>, product: &Product, step: Step<'c>) -> Vec<[F32<'c>; 2]> {
    let sums = match step.unpacked {
        Some(_) => bf16::sums(k, product, step),
        None => direct(k, product, step),
    };
    let end = quads(product) * 2 * product.vector_bytes();
    let scales = [0, 1].map(|half| {
        let place = k.at_bytes_constant(step.panel, end + half * product.vector_bytes());
        k.load_in_order::<F32>(place, product.lanes)
    });
    let scaled = sums.into_iter().map(|sums| [0, 1].map(|half| k.mul(sums[half], scales[half])));
    scaled.collect()
}

fn direct<'c>(k: &mut Builder<'c>, product: &Product, step: Step<'c>) -> Vec<[F32<'c>; 2]> {
    let none = k.f32s(0.0, product.lanes);
    let sums = vec![[none; 2]; step.rows as usize];
    for_each_quad(k, product, sums, |k, quad, mut sums| {
        let weights = load(k, product, step.panel, quad);
        for pair in [0, 1] {
            let at = k.mul_constant(quad, 2);
            let at = k.add_constant(at, pair);
            let rows = bf16::row_pairs(k, product, step, at);
            let weights =
                weights.map(|quad| [quad[2 * pair as usize], quad[2 * pair as usize + 1]]);
            multiply(k, product, weights, &rows, &mut sums);
        }
        sums
    })
}

/// A pair of each row times that of both vectors of outputs, as `bf16` does it.
fn multiply<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    weights: [[F32<'c>; 2]; 2],
    rows: &[Ptr<'c>],
    sums: &mut [[F32<'c>; 2]],
) {
    if product.widened {
        for second in [true, false] {
            for (row, sums) in rows.iter().zip(&mut *sums) {
                let place = k.at_bytes_constant(*row, if second { 4 } else { 0 });
                let x = k.load::<F32>(place, 1);
                *sums = [0, 1].map(|half| k.fma(weights[half][usize::from(second)], x, sums[half]));
            }
        }
        return;
    }
    let weights = weights.map(|[low, high]| k.exact_pairs(low, high));
    for (row, sums) in rows.iter().zip(sums) {
        let x = k.load_word_everywhere(*row, product.lanes);
        *sums = [0, 1].map(|half| k.dot_bf16(sums[half], weights[half], x));
    }
}

/// Write the panel at `panel` as bf16 pairs to `to`.
pub fn unpack<'c>(k: &mut Builder<'c>, product: &Product, panel: Ptr<'c>, to: Ptr<'c>) {
    for_each_quad(k, product, (), |k, quad, ()| {
        let place = k.mul_constant(quad, 2 * product.vector_bytes());
        let place = k.at_bytes(panel, place);
        product.foresee(k, place, 2);
        let weights = load(k, product, panel, quad);
        let offset = k.mul_constant(quad, 4 * product.vector_bytes());
        let mut to = k.at_bytes(to, offset);
        for at in [0, 2] {
            for quad in weights {
                let pair = k.exact_pairs(quad[at], quad[at + 1]);
                k.store(to, pair);
                to = k.at_bytes_constant(to, product.vector_bytes());
            }
        }
    });
}

/// `body` for every quad along K, a few a turn.
fn for_each_quad<'c, T: crate::emit::Carried<'c> + Clone>(
    k: &mut Builder<'c>,
    product: &Product,
    first: T,
    mut body: impl FnMut(&mut Builder<'c>, Index<'c>, T) -> T,
) -> T {
    let quads = quads(product);
    let even = quads - quads % UNROLL;
    let [zero, even, end] = [0, even, quads].map(|at| k.index(at));
    let state = k.fold(zero, even, UNROLL, first, |k, quad, mut state| {
        for ahead in 0..UNROLL {
            let quad = k.add_constant(quad, ahead);
            state = body(k, quad, state);
        }
        state
    });
    k.fold(even, end, 1, state, |k, quad, state| body(k, quad, state))
}

/// Quad number `quad` of both vectors of outputs.
fn load<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    panel: Ptr<'c>,
    quad: Index<'c>,
) -> [Quad<'c>; 2] {
    let offset = k.mul_constant(quad, 2 * product.vector_bytes());
    let first = k.at_bytes(panel, offset);
    let second = k.at_bytes_constant(first, product.vector_bytes());
    [first, second].map(|place| {
        let bytes = k.load_in_order::<I32>(place, product.lanes);
        let offsets = k.i32(OFFSETS);
        let bytes = k.xor(bytes, offsets);
        k.of_bytes(bytes)
    })
}
