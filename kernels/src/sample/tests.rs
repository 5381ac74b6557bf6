//! `choose_token` on the simulator, against its twins.

use half::bf16;
use sail_ir::draw::{self, Draw};
use sail_ir::target::Target;

use super::*;
use crate::emit::gpu::simulate::Simulated;
use crate::emit::run::Counts;
use crate::reference;

const TARGETS: [&str; 2] = ["sm_80", "sm_90"];

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

/// The numbers `0 ..` of a case, 24 bits each.
fn random(case: u64) -> impl FnMut() -> f32 {
    let mut position = 0;
    move || {
        position += 1;
        draw::place(case, position, 1 << 24) as f32 / (1 << 24) as f32
    }
}

/// Rows as they come: most tokens near the middle, few far above; around zero; nearly nothing.
fn drawn_rows(vocabulary: usize) -> Vec<Vec<f32>> {
    let mut number = random(vocabulary as u64);
    let mut row = |width: f32, middle: f32| -> Vec<f32> {
        let bell = (0..vocabulary).map(|_| (0..6).map(|_| number() - 0.5).sum::<f32>());
        bell.map(|value| value * width + middle).collect()
    };
    let mut zeros = row(0.1, 0.0);
    zeros.iter_mut().step_by(3).for_each(|value| *value = 0.0);
    zeros.iter_mut().skip(1).step_by(3).for_each(|value| *value = -0.0);
    let mut far = row(2.0, 4.0);
    far[vocabulary / 2] = 90.0;
    let mut few = vec![f32::NEG_INFINITY; vocabulary];
    few[vocabulary - 1] = -7.0;
    few[vocabulary / 3] = -7.5;
    let mut whole = row(5.0, -2.0);
    whole.iter_mut().for_each(|value| *value = value.round());
    vec![row(8.0, 1.0), row(20.0, -30.0), zeros, far, few, whole]
}

fn draws() -> Vec<Draw> {
    let all = Draw { rate: std::f32::consts::LOG2_E, top_k: Draw::ALL, ..Draw::GREEDY };
    let share = |share: f64| (share * 2.0_f64.powi(64)) as u64;
    vec![
        Draw::GREEDY,
        Draw { seed: 3, ..all },
        Draw { top_k: 20, share: share(0.95), rate: 2.404_491_6, seed: 1 << 40, ..all },
        Draw { top_k: 3, seed: 5, ..all },
        Draw { share: share(0.7), seed: 6, ..all },
        Draw { share: share(0.999), rate: 0.05, seed: 7, ..all },
        Draw { share: 0, ..all },
        Draw { least: draw::UNIT / 5, seed: 8, ..all },
        Draw { top_k: 50, share: share(0.9), penalty: 1.25, seed: 9, ..all },
        Draw { penalty: 0.8, seed: 10, ..all },
        Draw { penalty: 1.7, ..Draw::GREEDY },
        Draw { top_k: 4000, penalty: 1.05, rate: 0.3, least: 1 << 20, seed: 11, ..all },
        Draw { rate: 0.0, top_k: 5, penalty: 3.0, seed: 12, ..all },
    ]
}

/// What a call is given and leaves: chosen words, seen bits, ids, rows.
fn carried_out(
    target: &str,
    vocabulary: u32,
    (rows, draws, seen): (&[Vec<bf16>], &[Draw], &[Vec<bool>]),
    positions: &[i32],
) -> [Vec<i32>; 4] {
    let outputs = rows.len() as u32;
    let counts = Counts { tokens: outputs, outputs, ..Counts::default() };
    let kernel = ChooseToken { vocabulary, goes_on: true };
    let buffers = [
        rows.concat().iter().flat_map(|v| v.to_le_bytes()).collect(),
        draws.iter().flat_map(Draw::words).flat_map(u32::to_le_bytes).collect(),
        bytes(&seen.iter().flat_map(|row| bits(row)).collect::<Vec<_>>()),
        bytes(&vec![-9; rows.len()]),
        bytes(positions),
        vec![0xa5; 8 * rows.len()],
    ];
    let target = Target::parse(target).unwrap();
    let after = Simulated::new(&kernel, &target).run(counts, &buffers);
    [5, 2, 3, 4].map(|argument| words(&after[argument]))
}

fn bits(seen: &[bool]) -> Vec<i32> {
    let word = |bits: &[bool]| {
        (0..).zip(bits).fold(0, |word, (at, bit)| word | u32::from(*bit) << at).cast_signed()
    };
    seen.chunks(32).map(word).collect()
}

fn rounded(row: &[f32]) -> Vec<bf16> {
    row.iter().map(|value| bf16::from_f32(*value)).collect()
}

fn widened(row: &[bf16]) -> Vec<f32> {
    row.iter().map(|value| value.to_f32()).collect()
}

#[test]
fn rows_choose_what_the_twin_chooses() {
    for vocabulary in [7_u32, 320, 4096, 12_345, 60_000] {
        let rows: Vec<_> = rows(vocabulary as usize).iter().map(|row| rounded(row)).collect();
        let logits: Vec<u8> = rows.concat().iter().flat_map(|v| v.to_le_bytes()).collect();
        let outputs = rows.len() as u32;
        let want: Vec<i32> = rows
            .iter()
            .flat_map(|row| {
                let row: Vec<f64> = row.iter().map(|value| f64::from(value.to_f32())).collect();
                reference::choose_token(&row)
            })
            .collect();
        let positions: Vec<i32> = (0..outputs as i32).flat_map(|row| [row, 10 * row]).collect();
        let draws = vec![Draw::GREEDY; rows.len()];
        let seen = vec![vec![false; vocabulary as usize]; rows.len()];
        for name in TARGETS {
            let target = Target::parse(name).unwrap();
            let counts = Counts { tokens: outputs, outputs, ..Counts::default() };
            let room = vec![0xa5; 8 * rows.len()];
            let kernel = ChooseToken { vocabulary, goes_on: false };
            let after =
                Simulated::new(&kernel, &target).run(counts, &[logits.clone(), room.clone()]);
            assert_eq!(words(&after[1]), want, "{name}, {vocabulary}");

            let given = (rows.as_slice(), draws.as_slice(), seen.as_slice());
            let [chosen, after, ids, moved] = carried_out(name, vocabulary, given, &positions);
            assert_eq!(chosen, want);
            assert!(after.iter().all(|word| *word == 0), "nothing is noted");
            let next = want.chunks_exact(2).map(|chosen| next(chosen[0]));
            assert_eq!(ids, next.collect::<Vec<_>>());
            let further = (0..outputs as i32).flat_map(|row| [row, 10 * row + 1]);
            assert_eq!(moved, further.collect::<Vec<_>>());
        }
    }
}

/// The id that is given to the next call.
fn next(chosen: i32) -> i32 {
    if chosen == NONE { 0 } else { chosen }
}

/// Every row with every way to draw, at several positions.
#[test]
fn rows_are_drawn_as_the_twin_draws_them() {
    for (vocabulary, times) in [(7_u32, 3), (320, 1), (12_345, 1), (40_000, 1)] {
        let mut number = random(99);
        let logits = [rows(vocabulary as usize), drawn_rows(vocabulary as usize)].concat();
        let (mut given, mut want) = ((Vec::new(), Vec::new(), Vec::new()), Vec::new());
        let mut positions = Vec::new();
        for (turn, draw) in draws().into_iter().enumerate() {
            for (which, row) in logits.iter().enumerate() {
                // All of a small vocabulary, something of a large one.
                if vocabulary > 1000 && (turn + which) % 6 > 0 {
                    continue;
                }
                for time in 0..times {
                    let row = rounded(row);
                    let seen: Vec<bool> = row.iter().map(|_| number() < 0.3).collect();
                    let position = 1000 * time + 7;
                    want.push(reference::draw_token(
                        &widened(&row),
                        &draw,
                        &seen,
                        position as u32 + 1,
                    ));
                    given.0.push(row);
                    given.1.push(draw);
                    given.2.push(seen);
                    positions.extend([0, position]);
                }
            }
        }
        for name in TARGETS {
            let rows = (given.0.as_slice(), given.1.as_slice(), given.2.as_slice());
            let [chosen, seen, ids, moved] = carried_out(name, vocabulary, rows, &positions);
            let words = vocabulary.div_ceil(32) as usize;
            for (row, want) in want.iter().enumerate() {
                let (draw, [id, bad]) = (given.1[row], *want);
                let what = || format!("{name}, {vocabulary}, row {row}, {draw:?}");
                let got = &chosen[2 * row..2 * row + 2];
                if draw.is_greedy() {
                    assert_eq!(got[1], bad, "{}", what());
                    assert!(bad < NONE || got[0] == id, "{}: {got:?}, not {want:?}", what());
                } else {
                    assert_eq!(got, want, "{}", what());
                }
                assert_eq!(ids[row], next(got[0]), "{}", what());
                assert_eq!(moved[2 * row + 1], positions[2 * row + 1] + 1);
                let mut after = given.2[row].clone();
                if draw.penalty != 1.0 && got[0] < NONE {
                    after[got[0] as usize] = true;
                }
                assert_eq!(seen[row * words..(row + 1) * words], bits(&after), "{}", what());
            }
        }
    }
}
