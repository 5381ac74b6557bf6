//! Weights made on a GPU by a recipe: the words of [`sail_ir::artifact::Fill::word`], bit by bit.
//!
//! Not a step of a plan: the runtime launches it once for each fill when it loads a program.

use sail_ir::artifact::Fill;
use sail_ir::plan::{Cost, Grid};

use crate::emit::gpu::Cache;
use crate::emit::{Builder, F32, I32};
use crate::kernel::{EmitError, Kernel, Rows, ThreadBlock};

/// Threads of a block, a word each.
const THREADS: u32 = 256;

/// Makes one fill. `to` is where its first row starts, `job` what [`Fill::job`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FillWeights;

impl Kernel for FillWeights {
    fn family(&self) -> &'static str {
        "fill_weights"
    }

    fn symbol(&self) -> String {
        "fill_weights".to_owned()
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["to", "job"]
    }

    fn writes(&self) -> &'static [u32] {
        &[0]
    }

    /// A block for each started run of words, which are counted as tokens.
    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(THREADS, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn cost(&self) -> Cost {
        Cost { row_bytes: 4, ..Cost::default() }
    }

    fn thread_block(&self) -> Option<ThreadBlock> {
        Some(ThreadBlock::of(THREADS))
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let [to, job] = k.arguments::<2>();
        k.note("1 job: what is to be made");
        let words = k.load_words(job, Fill::JOB_WORDS as u32, Cache::Usual);
        let job = k.lanes_of(words);
        let [words, row, pitch, key, bell, first, second] = [0, 1, 2, 3, 4, 5, 6].map(|at| job[at]);
        let item = k.item();
        let before = k.mul_constant(item, THREADS.into());
        let thread = k.thread();
        let index = k.add(before, thread);
        let index = k.i32_of(index);
        let mine = k.less(index, words);
        k.when(mine, |k| {
            k.note("2 bits: of the word's number and the key");
            let bits = mixed(k, index, key);
            k.note("3 word: two bf16, or the bits as they are wanted");
            let zero = k.i32(0);
            let codes = k.equal(bell, zero);
            let word = k.choose(
                codes,
                |k| {
                    let kept = k.and(bits, first);
                    k.or(kept, second)
                },
                |k| {
                    let [mean, step] = [first, second].map(|bits| k.of_bits(bits));
                    let low = value(k, bits, mean, step);
                    let high = k.shift_right(bits, 16);
                    let high = value(k, high, mean, step);
                    k.round_pair(low, high)
                },
            );
            k.note("4 store: at its place in its row");
            let at_row = k.div(index, row);
            let whole = k.mul(at_row, row);
            let column = k.sub(index, whole);
            let [at_row, column, pitch] = [at_row, column, pitch].map(|value| k.index_of(value));
            let start = k.mul(at_row, pitch);
            let place = k.add(start, column);
            let place = k.at::<I32>(to, place);
            k.store(place, word);
        });
        Ok(())
    }
}

/// As in `sail_ir`: the finisher of MurmurHash3 behind a step of the golden ratio.
fn mixed<'c>(k: &mut Builder<'c>, index: I32<'c>, key: I32<'c>) -> I32<'c> {
    let turn = |k: &mut Builder<'c>, x: I32<'c>, by: u32| {
        let by = k.i32(by.cast_signed());
        k.mul(x, by)
    };
    let x = turn(k, index, 0x9e37_79b9);
    let mut x = k.add(x, key);
    for (shift, by) in [(16, 0x85eb_ca6b), (13, 0xc2b2_ae35)] {
        let above = k.shift_right(x, shift);
        x = k.xor(x, above);
        x = turn(k, x, by);
    }
    let above = k.shift_right(x, 16);
    k.xor(x, above)
}

/// `mean + (s - 30) · step`, `s` the sum of the four lowest runs of four bits.
fn value<'c>(k: &mut Builder<'c>, bits: I32<'c>, mean: F32<'c>, step: F32<'c>) -> F32<'c> {
    let mask = k.i32(15);
    let mut sum = k.i32(-30);
    for nibble in 0..4 {
        let part = k.shift_right(bits, 4 * nibble);
        let part = k.and(part, mask);
        sum = k.add(sum, part);
    }
    let sum = k.f32_of(sum);
    let scaled = k.mul(sum, step);
    k.add(scaled, mean)
}

#[cfg(test)]
mod tests {
    use sail_ir::artifact::Values;
    use sail_ir::target::Target;

    use super::*;
    use crate::emit::gpu::simulate::Simulated;
    use crate::emit::run::Counts;

    #[test]
    fn the_words_of_a_gpu_are_those_of_the_recipe() {
        let kinds = [
            Values::bell(0.0, 0.03),
            Values::bell(1.0, 0.2),
            Values::Bits { keep: u32::MAX, set: 0x0101_0101 },
            Values::same(1.5_f32.to_bits()),
        ];
        for target in ["sm_80", "sm_90"].map(|name| Target::parse(name).unwrap()) {
            let simulated = Simulated::new(&FillWeights, &target);
            for (values, key) in kinds.into_iter().zip([0, 1, 0x8000_0000, u32::MAX]) {
                let fill = Fill { offset: 0, rows: 9, pitch: 384, used: 380, key, values };
                let job = fill.job().into_iter().flat_map(u32::to_le_bytes).collect();
                let before = vec![0xaa; 9 * 384];
                let counts = Counts { tokens: fill.words() as u32, ..Counts::default() };
                let mut expected = before.clone();
                for index in 0..fill.words() {
                    let at = fill.place(index) as usize;
                    expected[at..at + 4].copy_from_slice(&fill.word(index).to_le_bytes());
                }
                let after = simulated.run(counts, &[before, job]);
                assert!(after[0] == expected, "{target} {values:?}");
            }
        }
    }
}
