//! Where keys and values stand in the cache, and how a kernel writes a row of them.
//!
//! The layouts are drawn at `CacheScheme`. Of `bf16`, rows of one slot that a call stores must stand
//! together, in ascending positions: neighbours of an even and the next odd position then share
//! the words of the values block, and the row of the even one writes both. An even position without
//! its neighbour writes zeros in its place; so memory is only ever read where it was written, and
//! what a pool held before does not matter. Of `int8`, every position is written by itself, and what
//! stands where none was is integers, whatever they are; no row sees them.

use sail_ir::plan::PAGE_POSITIONS;
use sail_ir::scheme::CacheScheme;

use super::int8;
use crate::emit::{Bf16, Bool, Builder, I32, Index, Ptr};
use crate::rows::index_at;

/// Sizes of the block that holds the keys and values of one page and kv head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageLayout {
    /// Even, because RoPE turns pairs.
    pub head_dim: u32,
    pub scheme: CacheScheme,
}

impl PageLayout {
    /// Values of a head, rounded up to whole vectors: `e'`.
    #[must_use]
    pub fn padded(self) -> u64 {
        u64::from(self.head_dim).next_multiple_of(16)
    }

    /// Bytes of the keys block; the values block follows it and is as large.
    #[must_use]
    pub fn keys_bytes(self) -> u64 {
        self.scheme.value_bytes() * u64::from(PAGE_POSITIONS) * self.padded()
    }

    #[must_use]
    pub fn block_bytes(self) -> u64 {
        self.scheme.block_bytes(self.head_dim).expect("a head of a checked model")
    }

    /// Workspace in which a key or a value is quantized.
    #[must_use]
    pub fn staged_bytes(self) -> u64 {
        match self.scheme {
            CacheScheme::Bf16 => 0,
            CacheScheme::Int8 => self.padded().next_multiple_of(64),
        }
    }

    /// How many values stand together in a word: pairs or quads.
    pub(super) fn together(self) -> u64 {
        4 / self.scheme.value_bytes()
    }

    /// Byte in the block of value `i` of the key at `position` of its page.
    #[must_use]
    pub fn key_offset(self, position: u64, i: u64) -> u64 {
        let (word, part) = (i / self.together(), i % self.together());
        (word * u64::from(PAGE_POSITIONS) + position) * 4 + part * self.scheme.value_bytes()
    }

    /// Byte in the block of value `i` of the value at `position` of its page.
    #[must_use]
    pub fn value_offset(self, position: u64, i: u64) -> u64 {
        let (word, part) = (position / self.together(), position % self.together());
        self.keys_bytes() + (word * self.padded() + i) * 4 + part * self.scheme.value_bytes()
    }

    /// Bytes in the block of the scales of the key and of the value at `position` of its page.
    ///
    /// # Panics
    ///
    /// When the scheme has none.
    #[must_use]
    pub fn scale_offsets(self, position: u64) -> [u64; 2] {
        assert_eq!(self.scheme, CacheScheme::Int8, "only this scheme has scales");
        let first = 2 * self.keys_bytes() + 4 * position;
        [first, first + 4 * u64::from(PAGE_POSITIONS)]
    }
}

/// A token row of a call.
#[derive(Clone, Copy)]
pub(super) struct TokenRow<'c> {
    /// Its number in the call.
    pub at: Index<'c>,
    pub slot: Index<'c>,
    pub position: Index<'c>,
}

impl<'c> TokenRow<'c> {
    /// Row `at` of `rows [t, 2]`.
    pub fn load(k: &mut Builder<'c>, rows: Ptr<'c>, at: Index<'c>) -> Self {
        let slot_at = k.mul_constant(at, 2);
        let position_at = k.add_constant(slot_at, 1);
        let (slot, position) = (index_at(k, rows, slot_at), index_at(k, rows, position_at));
        Self { at, slot, position }
    }

    /// Whether `next` is the next position of the same slot.
    pub fn is_followed_by(self, k: &mut Builder<'c>, next: Self) -> Bool<'c> {
        let after = k.add_constant(self.position, 1);
        let (slot, position) = (k.equal(self.slot, next.slot), k.equal(after, next.position));
        k.and(slot, position)
    }
}

/// The cache of one layer, as the kernels that use it get it.
#[derive(Clone, Copy)]
pub(super) struct Pool<'c> {
    pub layout: PageLayout,
    pub kv_heads: u32,
    pub page_table: Ptr<'c>,
    pub cache: Ptr<'c>,
}

impl<'c> Pool<'c> {
    /// The block of kv head 0 of page `page` of `slot`; the other heads' follow.
    pub fn page(&self, k: &mut Builder<'c>, slot: Index<'c>, page: Index<'c>) -> Ptr<'c> {
        let stride = k.pages_per_slot();
        let list = k.mul(slot, stride);
        let at = k.add(list, page);
        let page = index_at(k, self.page_table, at);
        let start = k.mul_constant(page, u64::from(self.kv_heads) * self.layout.block_bytes());
        k.at_bytes(self.cache, start)
    }

    /// The block of kv head `head` in `page`.
    pub fn block(&self, k: &mut Builder<'c>, page: Ptr<'c>, head: Index<'c>) -> Ptr<'c> {
        let start = k.mul_constant(head, self.layout.block_bytes());
        k.at_bytes(page, start)
    }

    /// Store one key at `position` of its page. `staged` is
    /// [`PageLayout::staged_bytes`] of workspace.
    pub fn store_key(
        &self,
        k: &mut Builder<'c>,
        block: Ptr<'c>,
        position: Index<'c>,
        (key, staged): (Ptr<'c>, Ptr<'c>),
    ) {
        match self.layout.scheme {
            CacheScheme::Bf16 => store_key(k, self.layout, block, position, key),
            CacheScheme::Int8 => int8::store_key(k, self.layout, block, position, (key, staged)),
        }
    }

    /// Store the value of row `row`, and with it that of the row which shares its words.
    ///
    /// `value` is the row's, `stride` the bytes from it to the next row's; `staged` is
    /// [`PageLayout::staged_bytes`] of workspace.
    pub fn store_value(
        &self,
        k: &mut Builder<'c>,
        block: Ptr<'c>,
        row: TokenRow<'c>,
        (value, staged): (Value<'c>, Ptr<'c>),
        neighbours: &Neighbours<'c>,
    ) {
        let in_page = k.rem_constant(row.position, u64::from(PAGE_POSITIONS));
        if self.layout.scheme == CacheScheme::Int8 {
            return int8::store_value(k, self.layout, block, in_page, (value.at, staged));
        }
        let pair = k.div_constant(in_page, 2);
        let words = k.mul_constant(pair, 4 * self.layout.padded());
        let words = k.at_bytes(block, words);
        let words = k.at_bytes_constant(words, self.layout.keys_bytes());
        let width = u64::from(self.layout.head_dim);
        let odd = k.rem_constant(in_page, 2);
        let zero = k.index(0);
        let is_even = k.equal(odd, zero);
        k.choose(
            is_even,
            |k| {
                k.choose(
                    neighbours.follows,
                    |k| {
                        let next = k.at_bytes_constant(value.at, value.stride);
                        store_value_pair(k, words, value.at, next, width);
                    },
                    |k| store_first_value(k, words, value.at, width),
                );
            },
            |k| {
                let alone = k.not(neighbours.precedes);
                k.when(alone, |k| store_second_value(k, words, value.at, width));
            },
        );
    }
}

/// A row of values in memory.
#[derive(Clone, Copy)]
pub(super) struct Value<'c> {
    pub at: Ptr<'c>,
    /// Bytes to the same head's value of the next row.
    pub stride: u64,
}

/// Which neighbours of a row are in the same call.
#[derive(Clone, Copy)]
pub(super) struct Neighbours<'c> {
    /// The row before is the position before.
    pub precedes: Bool<'c>,
    /// The row after is the position after.
    pub follows: Bool<'c>,
}

impl<'c> Neighbours<'c> {
    /// Those of `row` among `count` rows.
    pub fn of(k: &mut Builder<'c>, row: TokenRow<'c>, rows: Ptr<'c>, count: Index<'c>) -> Self {
        // At the ends the row is compared with itself, which is never its own neighbour.
        let (zero, last) = (k.index(0), k.sub_constant(count, 1));
        let before = k.sub_constant(row.at, 1);
        let before = k.max(before, zero);
        let after = k.add_constant(row.at, 1);
        let after = k.min(after, last);
        let (before, after) = (TokenRow::load(k, rows, before), TokenRow::load(k, rows, after));
        let (precedes, follows) = (before.is_followed_by(k, row), row.is_followed_by(k, after));
        Self { precedes, follows }
    }
}

/// Scatter one key into its column of the keys block.
pub(super) fn store_key<'c>(
    k: &mut Builder<'c>,
    layout: PageLayout,
    block: Ptr<'c>,
    position: Index<'c>,
    key: Ptr<'c>,
) {
    let column = k.at::<I32>(block, position);
    let (zero, pairs) = (k.index(0), k.index(u64::from(layout.head_dim / 2)));
    k.for_each(zero, pairs, 1, |k, pair| {
        let from = k.at::<I32>(key, pair);
        let values = k.load::<I32>(from, 1);
        let line = k.mul_constant(pair, 4 * u64::from(PAGE_POSITIONS));
        let to = k.at_bytes(column, line);
        k.store(to, values);
    });
}

/// Write the values of two neighbouring positions.
pub(super) fn store_value_pair<'c>(
    k: &mut Builder<'c>,
    words: Ptr<'c>,
    first: Ptr<'c>,
    second: Ptr<'c>,
    width: u64,
) {
    k.for_each_piece(width, |k, piece| {
        let (first, second) = (k.read::<Bf16>(first, piece), k.read::<Bf16>(second, piece));
        let pairs = k.pair(first, second);
        k.write(words, piece, pairs);
    });
}

/// Write the value of an even position, zeros for the odd one after it.
pub(super) fn store_first_value<'c>(
    k: &mut Builder<'c>,
    words: Ptr<'c>,
    first: Ptr<'c>,
    width: u64,
) {
    k.for_each_piece(width, |k, piece| {
        let value = k.read_widened(first, piece);
        let value = k.bits(value);
        let pairs = k.shift_right(value, 16);
        k.write(words, piece, pairs);
    });
}

/// Write the value of an odd position, beside the even one that is there.
fn store_second_value<'c>(k: &mut Builder<'c>, words: Ptr<'c>, second: Ptr<'c>, width: u64) {
    k.for_each_piece(width, |k, piece| {
        let there = k.read::<I32>(words, piece);
        let first = k.low_of_pairs(there);
        let first = k.bits(first);
        let first = k.shift_right(first, 16);
        let value = k.read_widened(second, piece);
        let value = k.bits(value);
        let pairs = k.or(first, value);
        k.write(words, piece, pairs);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_fill_their_blocks_without_sharing_a_byte() {
        let layout = PageLayout { head_dim: 20, scheme: CacheScheme::Bf16 };
        assert_eq!(layout.padded(), 32);
        let mut seen = vec![false; layout.block_bytes() as usize];
        for position in 0..64 {
            for i in 0..32 {
                for at in [layout.key_offset(position, i), layout.value_offset(position, i)] {
                    assert!(!std::mem::replace(&mut seen[at as usize], true), "{position} {i}");
                }
            }
        }
        assert_eq!(seen.iter().filter(|seen| **seen).count(), seen.len() / 2);
    }

    #[test]
    fn neighbours_stand_as_the_plan_draws_them() {
        let layout = PageLayout { head_dim: 128, scheme: CacheScheme::Bf16 };
        assert_eq!(layout.key_offset(5, 3), (64 + 5) * 4 + 2);
        assert_eq!(layout.value_offset(5, 3), 128 * 64 * 2 + (2 * 128 + 3) * 4 + 2);
    }
}
