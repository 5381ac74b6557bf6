//! A cache of bytes: how a key and a value are stored.

use sail_ir::plan::PAGE_POSITIONS;

use super::page::PageLayout;
use crate::emit::{Builder, F32, I32, Index, Ptr};

const PAGE: u64 = PAGE_POSITIONS as u64;

/// Store a key at `position` of the page of `block`; `staged` is workspace.
pub(super) fn store_key<'c>(
    k: &mut Builder<'c>,
    layout: PageLayout,
    block: Ptr<'c>,
    position: Index<'c>,
    (key, staged): (Ptr<'c>, Ptr<'c>),
) {
    let scale = quantize(k, layout, key, staged);
    store_scale(k, (block, layout.scale_offsets(0)[0]), position, scale);
    let column = k.at::<I32>(block, position);
    for_each_quad(k, layout, staged, |k, quad, word| {
        let line = k.mul_constant(quad, 4 * PAGE);
        let to = k.at_bytes(column, line);
        k.store(to, word);
    });
}

/// Store a value at `position` of the page of `block`; `staged` is workspace.
pub(super) fn store_value<'c>(
    k: &mut Builder<'c>,
    layout: PageLayout,
    block: Ptr<'c>,
    position: Index<'c>,
    (value, staged): (Ptr<'c>, Ptr<'c>),
) {
    let scale = quantize(k, layout, value, staged);
    store_scale(k, (block, layout.scale_offsets(0)[1]), position, scale);
    let (word, part) = (k.div_constant(position, 4), k.rem_constant(position, 4));
    let line = k.mul_constant(word, 4 * layout.padded());
    let line = k.at_bytes(block, line);
    let line = k.at_bytes_constant(line, layout.keys_bytes());
    let line = k.at_bytes(line, part);
    // Byte by byte: other positions of the quad may be written at the same time.
    for_each_quad(k, layout, staged, |k, quad, mut word| {
        let first = k.mul_constant(quad, 16);
        let first = k.at_bytes(line, first);
        for at in 0..4 {
            let to = k.at_bytes_constant(first, 4 * at);
            k.store_bytes(to, word);
            word = k.shift_right(word, 8);
        }
    });
}

/// Store the scale of `position` in the list of scales at byte `list` of the block.
fn store_scale<'c>(
    k: &mut Builder<'c>,
    (block, list): (Ptr<'c>, u64),
    position: Index<'c>,
    scale: F32<'c>,
) {
    let list = k.at_bytes_constant(block, list);
    let to = k.at::<F32>(list, position);
    k.store(to, scale);
}

/// `body` with the number and the four integers of each quad in `staged`.
fn for_each_quad<'c>(
    k: &mut Builder<'c>,
    layout: PageLayout,
    staged: Ptr<'c>,
    body: impl FnOnce(&mut Builder<'c>, Index<'c>, I32<'c>),
) {
    let (zero, quads) = (k.index(0), k.index(u64::from(layout.head_dim).div_ceil(4)));
    k.for_each(zero, quads, 1, |k, quad| {
        let from = k.at::<I32>(staged, quad);
        let word = k.load::<I32>(from, 1);
        body(k, quad, word);
    });
}

/// Leave the integers of a row in `staged`; gives its scale.
fn quantize<'c>(k: &mut Builder<'c>, layout: PageLayout, row: Ptr<'c>, staged: Ptr<'c>) -> F32<'c> {
    let length = u64::from(layout.head_dim);
    let greatest = k.greatest_magnitude(row, length);
    let [step, inverse] = k.byte_step(greatest);
    k.for_each_piece(length, |k, piece| {
        let value = k.read_widened(row, piece);
        let value = k.mul(value, inverse);
        let value = k.round_to_i32(value);
        let to = k.at_bytes(staged, piece.at);
        k.store_bytes(to, value);
    });
    step
}
