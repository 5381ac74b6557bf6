//! Tokens chosen where the logits are, against what the caller chooses from the same logits.

use sail_ir::target::Target;
use sail_kernels::emit::run::{
    Counts, bf16_bytes, bf16_values, i32_bytes, i32_values, poisoned, random,
};
use sail_kernels::sample::{ChooseToken, NONE};
use sail_kernels::{Kernel, reference};
use sail_runtime::sample::{SampleError, Sampler, Sampling};
use sail_tests::harness::Test;

use super::simulated::{gpu_targets, run_simulated};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "a device chooses the first of the largest logits, and tells what is none",
            chooses,
        ),
        Test::new("a device draws the tokens that the caller draws from the same logits", draws),
        Test::new("a device that draws notes what it drew, and goes on from there", goes_on),
        Test::new("a device draws no token where the caller finds what is no logit", refuses),
    ]
}

/// Parameters as people set them, and at their ends.
fn ways() -> Vec<Sampling> {
    let warm = Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        seed: 17,
    };
    vec![
        Sampling::default(),
        warm,
        Sampling { temperature: 0.6, top_k: 20, top_p: 0.95, ..warm },
        Sampling { temperature: 2.5, top_p: 0.8, min_p: 0.02, ..warm },
        Sampling { top_k: 1000, seed: u64::MAX, ..warm },
        Sampling { repetition_penalty: 1.3, top_k: 40, top_p: 0.9, ..warm },
        Sampling { repetition_penalty: 0.7, temperature: 0.3, ..warm },
        Sampling { repetition_penalty: 1.5, ..Sampling::default() },
        Sampling { temperature: f32::MIN_POSITIVE, top_p: 0.5, ..warm },
        Sampling { temperature: f32::MAX, top_k: 7, ..warm },
        Sampling { top_p: 0.0, ..warm },
        Sampling { min_p: 1.0, repetition_penalty: 2.0, ..warm },
    ]
}

/// Rows of logits with one way to draw from each, and the history of each.
struct Rows {
    width: usize,
    logits: Vec<f32>,
    ways: Vec<Sampling>,
    histories: Vec<Vec<u32>>,
}

impl Rows {
    /// Logits of a model: most far below the few that matter; quarters, so that some are equal.
    fn new(width: usize, ways: Vec<Sampling>) -> Self {
        let numbers = random(width as u64, 4 * width * ways.len());
        let logits = numbers.chunks_exact(4).map(|part| {
            let value = 6.0 * part.iter().sum::<f32>();
            if part[0] < 0.0 { (value * 4.0).round() / 4.0 } else { value }
        });
        let logits = bf16_values(&bf16_bytes(&logits.collect::<Vec<_>>()));
        let histories = ways.iter().enumerate().map(|(row, _)| {
            (0..width as u32).filter(move |id| id.wrapping_mul(2_654_435_761) % 7 < row as u32 % 5)
        });
        let histories = histories.map(Iterator::collect).collect();
        Self { width, logits, ways, histories }
    }

    fn logits_of(&self, row: usize) -> &[f32] {
        &self.logits[row * self.width..(row + 1) * self.width]
    }

    /// What the caller draws for the token after `position`.
    fn drawn(&self, row: usize, position: u32) -> Result<u32, SampleError> {
        let mut sampler = Sampler::new(self.ways[row], self.width).expect("parameters in range");
        let mut logits = self.logits_of(row).to_vec();
        sampler.next(&mut logits, &self.histories[row], u64::from(position) + 1)
    }

    /// What a device makes of it: ids, and the other word of each row; what is seen; rows.
    fn on_device(&self, target: &Target, position: u32) -> (Vec<[i32; 2]>, Vec<i32>, Vec<i32>) {
        let outputs = self.ways.len();
        let kernel = ChooseToken { vocabulary: self.width as u32, goes_on: true };
        let draw = |way: &Sampling| Sampler::new(*way, 0).expect("parameters in range").draw();
        let draws: Vec<i32> =
            self.ways.iter().flat_map(|way| draw(way).words()).map(u32::cast_signed).collect();
        let words = self.width.div_ceil(32);
        let mut seen = vec![0; words * outputs];
        for (row, history) in self.histories.iter().enumerate() {
            for id in history {
                seen[row * words + *id as usize / 32] |= 1_u32.wrapping_shl(*id).cast_signed();
            }
        }
        let rows: Vec<i32> = (0..outputs as i32).flat_map(|slot| [slot, position as i32]).collect();
        let ids = vec![-1; outputs];
        let buffers = vec![
            bf16_bytes(&self.logits),
            i32_bytes(&draws),
            i32_bytes(&seen),
            i32_bytes(&ids),
            i32_bytes(&rows),
            poisoned(8 * outputs),
        ];
        let counts =
            Counts { tokens: outputs as u32, outputs: outputs as u32, ..Counts::default() };
        let after = run_simulated(&kernel, target, counts, &buffers);
        assert_eq!(kernel.arguments()[5], "chosen");
        let chosen = i32_values(&after[5]);
        let chosen = chosen.chunks_exact(2).map(|words| [words[0], words[1]]).collect();
        (chosen, i32_values(&after[2]), i32_values(&after[4]))
    }
}

fn chooses() {
    for width in [5, 640, 12_345] {
        let mut rows = Rows::new(width, ways()[..6].to_vec());
        rows.logits[width + 3] = f32::NAN;
        rows.logits[2 * width + 1] = f32::INFINITY;
        rows.logits[3 * width..4 * width].fill(f32::NEG_INFINITY);
        let logits = (0..rows.ways.len()).map(|row| {
            let row = rows.logits_of(row).iter().map(|logit| f64::from(*logit));
            row.collect::<Vec<_>>()
        });
        let want: Vec<i32> = logits.flat_map(|row| reference::choose_token(&row)).collect();
        let kernel = ChooseToken { vocabulary: width as u32, goes_on: false };
        let buffers = vec![bf16_bytes(&rows.logits), poisoned(4 * want.len())];
        let counts = Counts { outputs: rows.ways.len() as u32, ..Counts::default() };
        for target in gpu_targets() {
            let after = run_simulated(&kernel, &target, counts, &buffers);
            assert_eq!(i32_values(&after[1]), want, "{target}, {width} wide");
        }
    }
}

fn draws() {
    for (width, positions) in [(5, 0..6), (640, 6..9), (12_345, 9..10)] {
        let rows = Rows::new(width, ways());
        for position in positions {
            check(&rows, position);
        }
    }
    // As many as the published models have: some ways suffice.
    check(&Rows::new(151_936, vec![ways()[2], ways()[5]]), 4000);
}

fn check(rows: &Rows, position: u32) {
    for target in gpu_targets() {
        let (chosen, ..) = rows.on_device(&target, position);
        for (row, words) in chosen.into_iter().enumerate() {
            let want = rows.drawn(row, position).expect("all are logits");
            let way = rows.ways[row];
            let width = rows.width;
            let got = (words[0].cast_unsigned(), words[1]);
            assert_eq!(got, (want, NONE), "{target}, {width} wide, {position}, {way:?}");
        }
    }
}

fn goes_on() {
    let width = 64;
    let rows = Rows::new(width, ways());
    for target in gpu_targets() {
        let (chosen, seen, after) = rows.on_device(&target, 41);
        let words = width / 32;
        for (row, way) in rows.ways.iter().enumerate() {
            let id = chosen[row][0].cast_unsigned();
            let mut history = rows.histories[row].clone();
            if way.repetition_penalty != 1.0 {
                history.push(id);
            }
            let bit = |id: u32| {
                seen[words * row + id as usize / 32].cast_unsigned() >> (id % 32) & 1 == 1
            };
            for id in 0..width as u32 {
                assert_eq!(bit(id), history.contains(&id), "{target}, {way:?}, {id}");
            }
            assert_eq!(after[2 * row..2 * row + 2], [row as i32, 42]);
        }
    }
}

fn refuses() {
    let mut rows = Rows::new(100, ways()[1..8].to_vec());
    for (row, bad) in [f32::NAN, f32::INFINITY, f32::NAN].into_iter().enumerate() {
        rows.logits[100 * row + 60 + row] = bad;
        rows.logits[100 * row + 90] = f32::NAN;
    }
    rows.logits[300..400].fill(f32::NEG_INFINITY);
    // The penalty makes one too large.
    rows.ways[5].repetition_penalty = 1e-30;
    rows.logits[500 + 33] = 1e20;
    rows.histories[5] = vec![33];
    for target in gpu_targets() {
        let (chosen, ..) = rows.on_device(&target, 3);
        for (row, words) in chosen.into_iter().enumerate() {
            let want = match rows.drawn(row, 3) {
                Ok(id) => [id.cast_signed(), NONE],
                Err(SampleError::NotFinite { id, .. }) => [NONE, id.cast_signed()],
                Err(SampleError::NoToken { .. }) => [NONE, NONE],
                Err(other) => panic!("{other}"),
            };
            assert_eq!(words, want, "{target}, row {row}");
        }
        assert!(matches!(rows.drawn(5, 3), Err(SampleError::NotFinite { id: 33, .. })));
        assert!(rows.drawn(4, 3).is_ok());
    }
}
