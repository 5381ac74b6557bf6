//! `choose_token`: the most probable token of a row of logits, on the GPU that made them.

use sail_ir::plan::{Cost, Count, Grid};

use crate::emit::gpu::{WARP, piece_width};
use crate::emit::{Builder, F32, I32, Index, Piece, Ptr};
use crate::kernel::{EmitError, Kernel, Rows, ThreadBlock};
use crate::rows::row_at;

/// What a row chose where there is nothing to choose, and the place of what is no logit where all are.
pub const NONE: i32 = i32::MAX;

/// Words of a row of `chosen`.
pub const WORDS: u32 = 2;

/// Loads of a thread that are on their way together.
const TOGETHER: u64 = 6;

/// `logits [outputs, v]` bf16 to `chosen [outputs, 2]` i32: the largest logit's id, of equal ones the
/// lowest; and the lowest id whose logit is not a number or positively infinite. [`NONE`] stands for
/// either when there is none.
///
/// Where the call `goes_on`, output `i` is of token `i`, and the control block becomes that of the next
/// call: `ids[i]` is what was chosen, `rows[i]` one position further. Nothing chosen is token 0: the
/// caller sees it in `chosen`.
///
/// A block has a row. Its 300 KB for 151,936 logits come from the second-level cache, some 19 loads of
/// 16 bytes for each of 1,024 threads, [`TOGETHER`] of them on their way at once: 12 µs on an H200, 15 one
/// after another, beside 150 for the product that made them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChooseToken {
    pub vocabulary: u32,
    pub goes_on: bool,
}

impl ChooseToken {
    fn threads(&self) -> u32 {
        let pieces = self.vocabulary / piece_width(self.vocabulary.into());
        pieces.next_multiple_of(WARP).min(1024)
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
        if self.goes_on { &["logits", "ids", "rows", "chosen"] } else { &["logits", "chosen"] }
    }

    fn writes(&self) -> &'static [u32] {
        if self.goes_on { &[1, 2, 3] } else { &[1] }
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
        // The largest logit, its id, and the place of what is no logit are joined one after another.
        let shared = 3 * Builder::join_block_bytes(self.threads());
        Some(ThreadBlock::of(self.threads()).with_shared(shared))
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        k.for_this_block(&self.grid(), |k, block| {
            let row = block.first_row;
            let logits = k.argument(0);
            let logits = row_at(k, logits, row, self.vocabulary);
            let chosen = self.choose(k, logits);
            let (thread, zero) = (k.thread(), k.index(0));
            let first = k.equal(thread, zero);
            k.when(first, |k| self.store(k, row, chosen));
        });
        Ok(())
    }
}

impl ChooseToken {
    /// The two words of a row, in every thread.
    fn choose<'c>(&self, k: &mut Builder<'c>, logits: Ptr<'c>) -> [I32<'c>; 2] {
        let (length, width) = (u64::from(self.vocabulary), piece_width(self.vocabulary.into()));
        let none = k.i32(NONE);
        let least = k.f32(f32::NEG_INFINITY);
        let turn = u64::from(width * self.threads());
        let whole = length / (TOGETHER * turn) * (TOGETHER * turn);
        let thread = k.thread();
        let begin = k.mul_constant(thread, width.into());
        let end = k.index(whole);
        let start = (least, none, none);
        let seen = k.fold(begin, end, TOGETHER * turn, start, |k, at, seen| {
            let pieces: Vec<_> = (0..TOGETHER)
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

    fn store<'c>(&self, k: &mut Builder<'c>, row: Index<'c>, chosen: [I32<'c>; 2]) {
        let to = k.argument(self.arguments().len() - 1);
        let both = k.vector_of(&chosen);
        let at = k.mul_constant(row, WORDS.into());
        let place = k.at::<I32>(to, at);
        k.store_whole(place, both);
        if !self.goes_on {
            return;
        }
        let [ids, rows] = [1, 2].map(|argument| k.argument(argument));
        let (none, zero, one) = (k.i32(NONE), k.i32(0), k.i32(1));
        let nothing = k.equal(chosen[0], none);
        let id = k.select(nothing, zero, chosen[0]);
        let place = k.at::<I32>(ids, row);
        k.store(place, id);
        let at = k.mul_constant(row, 2);
        let place = k.at::<I32>(rows, at);
        let place = k.at_bytes_constant(place, 4);
        let position = k.load::<I32>(place, 1);
        let position = k.add(position, one);
        k.store(place, position);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::gpu::simulate::Simulated;
    use crate::emit::run::Counts;
    use crate::reference;
    use half::bf16;
    use sail_ir::target::Target;

    fn bytes(words: &[i32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn words(bytes: &[u8]) -> Vec<i32> {
        bytes.chunks_exact(4).map(|word| i32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    /// Rows with what choosing can stumble over: ties, no numbers, nothing.
    fn rows(vocabulary: usize) -> Vec<Vec<f32>> {
        let plain: Vec<f32> = (0..vocabulary).map(|i| ((i * 37 + 11) % 101) as f32 / 8.0).collect();
        let with = |changes: &[(usize, f32)]| {
            let mut row = plain.clone();
            changes.iter().for_each(|(at, value)| row[at % vocabulary] = *value);
            row
        };
        vec![
            plain.clone(),
            with(&[(5, 50.0), (vocabulary - 1, 50.0)]),
            with(&[(vocabulary - 1, 90.0)]),
            with(&[(9, f32::NAN), (3, f32::INFINITY)]),
            with(&[(0, f32::NAN)]),
            vec![-3.0; vocabulary],
            vec![f32::NEG_INFINITY; vocabulary],
        ]
    }

    #[test]
    fn rows_choose_what_the_twin_chooses() {
        for vocabulary in [7_u32, 320, 4096, 12_345, 60_000] {
            let rows = rows(vocabulary as usize);
            let rounded = |row: &Vec<f32>| row.iter().map(|v| bf16::from_f32(*v)).collect();
            let rows: Vec<Vec<bf16>> = rows.iter().map(rounded).collect();
            let logits: Vec<u8> = rows.concat().iter().flat_map(|v| v.to_le_bytes()).collect();
            let outputs = rows.len() as u32;
            let want: Vec<i32> = rows
                .iter()
                .flat_map(|row| {
                    let row: Vec<f64> = row.iter().map(|value| f64::from(value.to_f32())).collect();
                    reference::choose_token(&row)
                })
                .collect();
            let ids = vec![-9; rows.len()];
            let positions: Vec<i32> = (0..outputs as i32).flat_map(|row| [row, 10 * row]).collect();
            for name in ["sm_80", "sm_90"] {
                let target = Target::parse(name).unwrap();
                let counts = Counts { tokens: outputs, outputs, ..Counts::default() };
                let room = vec![0xa5; 8 * rows.len()];

                let kernel = ChooseToken { vocabulary, goes_on: false };
                let after =
                    Simulated::new(&kernel, &target).run(counts, &[logits.clone(), room.clone()]);
                assert_eq!(words(&after[1]), want, "{name}, {vocabulary}");

                let kernel = ChooseToken { vocabulary, goes_on: true };
                let buffers = [logits.clone(), bytes(&ids), bytes(&positions), room];
                let after = Simulated::new(&kernel, &target).run(counts, &buffers);
                assert_eq!(words(&after[3]), want);
                let next: Vec<i32> = want
                    .chunks_exact(2)
                    .map(|chosen| if chosen[0] == NONE { 0 } else { chosen[0] })
                    .collect();
                assert_eq!(words(&after[1]), next);
                let moved: Vec<i32> =
                    (0..outputs as i32).flat_map(|row| [row, 10 * row + 1]).collect();
                assert_eq!(words(&after[2]), moved);
            }
        }
    }
}
