//! Weights made on a GPU by a recipe, word by word.

use sail_ir::artifact::{Fill, Values};
use sail_kernels::emit::run::poisoned;
use sail_kernels::packing::fill::FillWeights;
use sail_tests::harness::Test;

use super::check::tokens;
use super::simulated::{gpu_targets, run_simulated};

pub fn tests() -> Vec<Test> {
    vec![Test::new("fill_weights writes the words of the recipe and nothing between rows", fills)]
}

fn fills() {
    let kinds = [
        Values::bell(0.0, 0.03),
        Values::bell(1.0, 0.2),
        Values::Bits { keep: 0x0f0f_0f0f, set: 0x1010_1010 },
        Values::same(1.5_f32.to_bits()),
    ];
    for target in gpu_targets() {
        for (values, key) in kinds.into_iter().zip([0, 1, 0x8000_0000, u32::MAX]) {
            let fill = Fill { offset: 0, rows: 7, pitch: 512, used: 404, key, values };
            let job = fill.job().into_iter().flat_map(u32::to_le_bytes).collect();
            let before = poisoned((fill.rows * fill.pitch) as usize);
            let mut want = before.clone();
            for index in 0..fill.words() {
                let at = fill.place(index) as usize;
                want[at..at + 4].copy_from_slice(&fill.word(index).to_le_bytes());
            }
            let counts = tokens(fill.words() as usize);
            let after = run_simulated(&FillWeights, &target, counts, &vec![before, job]);
            assert!(after[0] == want, "{target} {values:?}");
        }
    }
}
