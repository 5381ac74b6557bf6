//! What [`SoftmaxPage`] does with pages of bytes.
//!
//! Queries and weights become integers of 16 bits with a step for each vector (of weights, for each
//! page), so that their products with the bytes of a page are summed exactly, in any order. A step is
//! 1/32767 of the greatest magnitude; half of that is rounded away at most, which is less than bf16
//! would round away of whatever is more than a 128th of the greatest.
//!
//! A word of a page has four bytes, of which the first and third are taken at once, then the second
//! and fourth. So queries and weights stand four by four in the order 0, 2, 1, 3.

use super::softmax_page::{Lines, PAGE, SoftmaxPage, query_bytes};
use crate::emit::{Builder, F32, I32, Index, Ptr};

/// Greatest integer of 16 bits.
const MOST: u64 = i16::MAX as u64;

impl<'c> SoftmaxPage<'c> {
    /// Take the query at `from` as `vector`.
    pub(super) fn take_for_bytes(&self, k: &mut Builder<'c>, vector: Index<'c>, from: Ptr<'c>) {
        // The sum of a head's products fits 32 bits.
        let most = MOST.min(i32::MAX as u64 / (128 * self.layout.padded()));
        let length = u64::from(self.layout.head_dim);
        let greatest = k.greatest_magnitude(from, length);
        let [step, inverse] = k.integer_step(greatest, most as f32);
        let scale = k.f32(self.scale());
        let step = k.mul(step, scale);
        let to = k.at::<F32>(self.steps[0], vector);
        k.store(to, step);
        let line = k.mul_constant(vector, query_bytes(self.layout));
        let line = k.at_bytes(self.queries, line);
        k.for_each_piece(length, |k, piece| {
            let query = k.read_widened(from, piece);
            let at = k.mul_constant(piece.at, 2);
            let to = k.at_bytes(line, at);
            store_integers(k, to, query, inverse);
        });
    }

    /// Keep the weights of `vector` for the page at hand in `line`, with what they are worth.
    pub(super) fn keep_for_bytes(
        &self,
        k: &mut Builder<'c>,
        vector: Index<'c>,
        line: Ptr<'c>,
        weights: &[F32<'c>],
    ) {
        let mut greatest = weights[0];
        for weight in &weights[1..] {
            greatest = k.max(greatest, *weight);
        }
        let greatest = k.max_lanes(greatest);
        let [step, inverse] = k.integer_step(greatest, MOST as f32);
        let to = k.at::<F32>(self.steps[1], vector);
        k.store(to, step);
        for (column, weight) in weights.iter().enumerate() {
            let to = k.at_bytes_constant(line, 2 * u64::from(k.lanes()) * column as u64);
            store_integers(k, to, *weight, inverse);
        }
    }

    /// Products of `height` queries with `columns` vector registers of keys, as floats that a query's
    /// step is still to be multiplied with.
    pub(super) fn byte_scores(
        &self,
        k: &mut Builder<'c>,
        (keys, queries): (Lines<'c>, Ptr<'c>),
        height: u32,
        columns: u64,
    ) -> Vec<F32<'c>> {
        let quads = k.index(u64::from(self.layout.head_dim).div_ceil(4));
        let stride = query_bytes(self.layout);
        let sums = dot_words(k, (keys, queries), quads, [4 * PAGE, stride, columns, height.into()]);
        sums.into_iter().map(|sum| k.f32_of(sum)).collect()
    }

    /// Values, weighted by the page's weights of the vectors from `first` on, summed over `words` lines
    /// of four positions: for each of `height` vectors `columns` vector registers.
    pub(super) fn byte_sums(
        &self,
        k: &mut Builder<'c>,
        (values, weights): (Lines<'c>, Ptr<'c>),
        words: Index<'c>,
        first: Index<'c>,
        [line_bytes, columns, height]: [u64; 3],
    ) -> Vec<F32<'c>> {
        let sums = dot_words(k, (values, weights), words, [line_bytes, 2 * PAGE, columns, height]);
        let steps: Vec<F32<'c>> = (0..height)
            .map(|row| {
                let vector = k.add_constant(first, row);
                let step = k.at::<F32>(self.steps[1], vector);
                k.load::<F32>(step, 1)
            })
            .collect();
        let steps = steps.into_iter().flat_map(|step| (0..columns).map(move |_| step));
        let worth = sums.into_iter().zip(steps).map(|(sum, step)| {
            let sum = k.f32_of(sum);
            k.mul(sum, step)
        });
        worth.collect()
    }
}

/// For each of `height` lines of integers, `stride` bytes apart, and each of `columns` vector registers
/// of words: the sum of their products over `count` lines of words, `line` bytes apart.
fn dot_words<'c>(
    k: &mut Builder<'c>,
    (words, integers): (Lines<'c>, Ptr<'c>),
    count: Index<'c>,
    [line, stride, columns, height]: [u64; 4],
) -> Vec<I32<'c>> {
    let lanes = k.lanes();
    let none = k.i32s(0, lanes);
    let zero = k.index(0);
    let sums = vec![none; (height * columns) as usize];
    k.fold(zero, count, 1, sums, |k, word, mut sums| {
        let line = k.mul_constant(word, line);
        let words = words.load(k, line, columns, height as u32);
        let at = k.mul_constant(word, 8);
        let integers = k.at_bytes(integers, at);
        for (half, even) in [true, false].into_iter().enumerate() {
            let shorts: Vec<I32<'c>> =
                words.iter().map(|bytes| k.signed_shorts(*bytes, even)).collect();
            for (row, sums) in sums.chunks_exact_mut(columns as usize).enumerate() {
                let pair = k.at_bytes_constant(integers, row as u64 * stride + 4 * half as u64);
                let pair = k.load_word_everywhere(pair, lanes);
                for (sum, shorts) in sums.iter_mut().zip(&shorts) {
                    *sum = k.dot_shorts(*sum, *shorts, pair);
                }
            }
        }
        sums
    })
}

/// Store `values` as integers of 16 bits, of which a value of 1 is `inverse` many, in their order.
fn store_integers<'c>(k: &mut Builder<'c>, to: Ptr<'c>, values: F32<'c>, inverse: F32<'c>) {
    let values = k.mul(values, inverse);
    let values = k.round_to_i32(values);
    let order = (0..k.lanes()).map(|lane| lane / 4 * 4 + [0, 2, 1, 3][lane as usize % 4]);
    let values = k.shuffle(values, values, &order.collect::<Vec<_>>());
    k.store_shorts(to, values);
}
