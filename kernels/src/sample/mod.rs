//! `choose_token`: the next token of a row of logits, on the GPU that made them.

mod row;
mod select;
#[cfg(test)]
mod tests;
mod walk;

use sail_ir::plan::{Cost, Count, Grid};

use crate::emit::gpu::{WARP, piece_width};
use crate::emit::{Builder, F32, I32, Index, Piece, Ptr};
use crate::kernel::{EmitError, Kernel, Rows, ThreadBlock};
use crate::rows::row_at;

use row::Row;
use select::Cut;
use walk::Walk;

/// What a row chose where there is nothing to choose, and the place of what is no logit where all are.
pub const NONE: i32 = i32::MAX;

/// Words of a row of `chosen`.
pub const WORDS: u32 = 2;

/// Most threads of a block.
const THREADS: u32 = 1024;

/// Most where a row may be drawn: that needs more than the 64 registers that each of [`THREADS`] has.
const DRAWING: u32 = 512;

/// Loads of [`THREADS`] threads that are on their way together, for each; of fewer threads as many.
const TOGETHER: u64 = 6;

/// `logits [outputs, v]` bf16 to `chosen [outputs, 2]` i32: the largest logit's id, of equal ones the
/// lowest; and the lowest id whose logit is not a number or positively infinite. [`NONE`] stands for
/// either when there is none.
///
/// Where the call `goes_on`, output `i` is of token `i`, and the control block becomes that of the next
/// call: `ids[i]` is what was chosen, `rows[i]` one position further. Nothing chosen is token 0: the
/// caller sees it in `chosen`. Then a row may also be drawn as [`sail_ir::draw`] says: `draws` are
/// `[outputs, 8]` words of how, `seen [outputs, v / 32]` a bit for each token of the history, to which
/// what is chosen is added where there is a penalty. A row of what is no logit chooses nothing.
///
/// A block has a row. Its 300 KB for 151,936 logits come from the second-level cache, some 19 loads of
/// 16 bytes for each of 1,024 threads, [`TOGETHER`] of them on their way at once: 12 µs on an H200, 15 one
/// after another, beside 150 for the product that made them. Where a row may be drawn there are half as
/// many threads with twice as many loads, and the words that say how are looked at before: not measured.
///
/// A drawn row is looked at several times, on one processor. Instructions for a logit, counted in the code
/// for `sm_90`: 11 for the largest; 7 for the highest digit, 38 and two or three atomic additions where the
/// logit has a weight; 11 for a further digit, of which top-k and top-p want one each, with a penalty three;
/// 12 to sum what is kept, 30 where it is. At the 1 to 1.5 µs for one that the 8 of the largest logit's 12 µs
/// make, and 10 µs for sums along the block: 60 to 90 µs with top-k and top-p where few thousand tokens have
/// a weight, 30 to 70 with a temperature alone; up to 150 with top-p where all tokens have a weight, 60 more
/// with a penalty. Not measured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChooseToken {
    pub vocabulary: u32,
    pub goes_on: bool,
}

impl ChooseToken {
    fn threads(&self) -> u32 {
        let pieces = self.vocabulary / piece_width(self.vocabulary.into());
        let threads = pieces.next_multiple_of(WARP).min(self.most_threads());
        // A draw has a thread for each digit.
        if self.goes_on { threads.max(select::THREADS) } else { threads }
    }

    fn most_threads(&self) -> u32 {
        if self.goes_on { DRAWING } else { THREADS }
    }

    /// Words of a row of `seen`.
    #[must_use]
    pub fn seen_words(vocabulary: u64) -> u64 {
        row::seen_words(vocabulary)
    }
}

impl Kernel for ChooseToken {
    fn family(&self) -> &'static str {
        "choose_token"
    }

    fn symbol(&self) -> String {
        let next = if self.goes_on { ".goes_on" } else { "" };
        format!("choose_token.v{}{next}", self.vocabulary)
    }

    fn arguments(&self) -> &'static [&'static str] {
        match self.goes_on {
            true => &["logits", "draws", "seen", "ids", "rows", "chosen"],
            false => &["logits", "chosen"],
        }
    }

    fn writes(&self) -> &'static [u32] {
        if self.goes_on { &[2, 3, 4, 5] } else { &[1] }
    }

    fn grid(&self) -> Grid {
        Rows { count: Count::Outputs, per: 1 }.grid(1, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn cost(&self) -> Cost {
        Cost { row_bytes: 2 * u64::from(self.vocabulary) + 8, ..Cost::default() }
    }

    fn thread_block(&self) -> Option<ThreadBlock> {
        let threads = self.threads();
        let join = Builder::join_block_bytes(threads);
        // The largest logit, its id, and the place of what is no logit are joined one after another; of
        // a draw the first and the last.
        let shared = match self.goes_on {
            true => 5 * join + select::SHARED + walk::shared_bytes(self.vocabulary, threads),
            false => 3 * join,
        };
        Some(ThreadBlock::of(threads).with_shared(shared))
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        k.for_this_block(&self.grid(), |k, block| {
            let row = block.first_row;
            let logits = k.argument(0);
            let (chosen, position) = if self.goes_on {
                let rows = k.argument(4);
                let place = position_of(k, rows, row);
                // Looked at here and nowhere later: one thread writes what comes next when all are past a
                // barrier.
                let position = k.load_in_order::<I32>(place, 1);
                let one = k.i32(1);
                let position = k.add(position, one);
                let [draws, seen] = [1, 2].map(|argument| k.argument(argument));
                let drawn = Row::of(k, self.vocabulary, [logits, draws, seen], row);
                let greedy = drawn.is_greedy(k);
                let chosen =
                    k.choose(greedy, |k| self.choose(k, logits, row), |k| draw(k, drawn, position));
                (chosen, Some(position))
            } else {
                (self.choose(k, logits, row), None)
            };
            let (thread, zero) = (k.thread(), k.index(0));
            let first = k.equal(thread, zero);
            k.when(first, |k| self.store(k, row, chosen, position));
        });
        Ok(())
    }
}

impl ChooseToken {
    /// The two words of a row whose largest logit is taken, in every thread.
    fn choose<'c>(&self, k: &mut Builder<'c>, logits: Ptr<'c>, row: Index<'c>) -> [I32<'c>; 2] {
        let logits = row_at(k, logits, row, self.vocabulary);
        let (length, width) = (u64::from(self.vocabulary), piece_width(self.vocabulary.into()));
        let none = k.i32(NONE);
        let least = k.f32(f32::NEG_INFINITY);
        let turn = u64::from(width * self.threads());
        let together = TOGETHER * u64::from(THREADS / self.most_threads());
        let whole = length / (together * turn) * (together * turn);
        let thread = k.thread();
        let begin = k.mul_constant(thread, width.into());
        let end = k.index(whole);
        let start = (least, none, none);
        let seen = k.fold(begin, end, together * turn, start, |k, at, seen| {
            let pieces: Vec<_> = (0..together)
                .map(|which| {
                    let at = k.add_constant(at, which * turn);
                    (at, k.read_widened(logits, Piece { at, count: None, width }))
                })
                .collect();
            pieces.into_iter().fold(seen, |seen, piece| see(k, piece, seen))
        });
        let begin = k.add_constant(begin, whole);
        let end = k.index(length);
        let (value, id, bad) = k.fold(begin, end, turn, seen, |k, at, seen| {
            let values = k.read_widened(logits, Piece { at, count: None, width });
            see(k, (at, values), seen)
        });
        let most: F32<'c> = k.max_of_block(value);
        let has = k.equal(value, most);
        let id = k.select(has, id, none);
        [k.join_block(id, Builder::min), k.join_block(bad, Builder::min)]
    }

    /// The two words, and the control block of the next call, in which the row is at `position`.
    fn store<'c>(
        &self,
        k: &mut Builder<'c>,
        row: Index<'c>,
        chosen: [I32<'c>; 2],
        position: Option<I32<'c>>,
    ) {
        let to = k.argument(self.arguments().len() - 1);
        let both = k.vector_of(&chosen);
        let at = k.mul_constant(row, WORDS.into());
        let place = k.at::<I32>(to, at);
        k.store_whole(place, both);
        let Some(position) = position else { return };
        let [ids, rows] = [3, 4].map(|argument| k.argument(argument));
        let (none, zero) = (k.i32(NONE), k.i32(0));
        let nothing = k.equal(chosen[0], none);
        let id = k.select(nothing, zero, chosen[0]);
        let place = k.at::<I32>(ids, row);
        k.store(place, id);
        let place = position_of(k, rows, row);
        k.store(place, position);
    }
}

/// The two words of a row whose token is drawn for `position`, in every thread.
fn draw<'c>(k: &mut Builder<'c>, drawn: Row<'c>, position: I32<'c>) -> [I32<'c>; 2] {
    let (top, bad) = drawn.largest(k);
    let (none, least) = (k.i32(NONE), k.f32(f32::NEG_INFINITY));
    let (all, some) = (k.equal(bad, none), k.less(least, top));
    let usable = k.and(all, some);
    let id = k.choose(
        usable,
        |k| {
            let cut = Cut::of(k, drawn, top);
            let id = Walk::new(k, drawn, top, cut).token(k, position);
            // Everybody has looked at what was seen before.
            k.barrier();
            let (thread, zero) = (k.thread(), k.index(0));
            let first = k.equal(thread, zero);
            let notes = k.and(first, drawn.penalised);
            k.when(notes, |k| drawn.note(k, id));
            id
        },
        |_| none,
    );
    [id, bad]
}

/// Where the position of a row stands, after its slot.
fn position_of<'c>(k: &mut Builder<'c>, rows: Ptr<'c>, row: Index<'c>) -> Ptr<'c> {
    let at = k.mul_constant(row, 2);
    let place = k.at::<I32>(rows, at);
    k.at_bytes_constant(place, 4)
}

/// The largest logit so far, its id, and the first id of what is none.
type Seen<'c> = (F32<'c>, I32<'c>, I32<'c>);

/// After the logits of a piece that begins at id `at`, which is above those before.
fn see<'c>(
    k: &mut Builder<'c>,
    (at, values): (Index<'c>, F32<'c>),
    (mut most, mut id, mut bad): Seen<'c>,
) -> Seen<'c> {
    let first = k.i32_of(at);
    let infinite = k.f32(f32::INFINITY);
    for (at, value) in (0..).zip(k.lanes_of(values)) {
        let at = k.i32(at);
        let here = k.add(first, at);
        // Ids ascend, so that of equal logits the first stays. Nothing is more than no number.
        let more = k.less(most, value);
        most = k.select(more, value, most);
        id = k.select(more, here, id);
        let (missing, above) = (k.is_nan(value), k.equal(value, infinite));
        let no_logit = k.or(missing, above);
        let earlier = k.min(bad, here);
        bad = k.select(no_logit, earlier, bad);
    }
    (most, id, bad)
}
