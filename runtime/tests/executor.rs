//! Carries out the toy artifact on the host and on the null device.

#[path = "toy/special.rs"]
mod special;
mod toy;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use half::bf16;
use sail_ir::plan::Plan;
use sail_runtime::device::DeviceError;
use sail_runtime::execute::{Engine, Outputs, Row, Tokens, Twin};
use sail_runtime::taps::{Inside, Pattern, collect};
use sail_runtime::{DeviceKind, Options, Program, RunError};

static GO: AtomicBool = AtomicBool::new(false);

fn open(plan: Plan, options: &Options) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let path = toy::write_plan(folder.path(), plan);
    Program::open(&path, options).unwrap()
}

fn with_threads(threads: usize) -> Options {
    Options { threads: Some(threads), slots: 3, ..Options::default() }
}

/// Tile `n` has `16256 + n` as the bits of its first pixel: 1.0 and a little more.
fn fill(tiles: Range<usize>, out: &mut [bf16]) {
    for (tile, values) in tiles.zip(out.chunks_mut(12)) {
        values.fill(bf16::ZERO);
        values[0] = bf16::from_bits(0x3f80 + tile as u16);
    }
}

/// The token that the toy predicts after a sum.
fn token_of(sum: u64) -> usize {
    (sum % u64::from(toy::VOCABULARY)) as usize
}

/// The one logit that is not zero.
fn predicted(engine: &Engine, row: usize) -> usize {
    let logits = engine.logits(row);
    assert_eq!(logits.iter().filter(|value| **value != bf16::ZERO).count(), 1);
    logits.iter().position(|value| *value == bf16::ONE).unwrap()
}

fn prefill(engine: &mut Engine, slot: u32, start: u32, ids: &[u32]) {
    let image_rows = vec![-1; ids.len()];
    let tokens = Tokens { slot, start, ids, image_rows: &image_rows };
    engine.hold(slot, start + ids.len() as u32).unwrap();
    engine.prefill(Twin::Production, tokens, Outputs::Last, &GO, &mut |_| {}).unwrap();
}

#[test]
fn a_prompt_of_many_chunks_and_tokens_after_it_sum_up_on_any_number_of_threads() {
    for threads in [1, 2, 3, 7] {
        let program = open(toy::plan(), &with_threads(threads));
        let mut engine = program.engine();
        let ids: Vec<u32> = (0..203).map(|index| index * 7 % 256).collect();
        prefill(&mut engine, 0, 0, &ids);
        let mut sum: u64 = ids.iter().map(|id| u64::from(*id)).sum();
        for position in 203..300 {
            let id = predicted(&engine, 0);
            assert_eq!(id, token_of(sum), "{threads} threads, position {position}");
            engine.hold(0, position + 1).unwrap();
            let row = Row { slot: 0, position, id: id as u32 };
            engine.decode(&[row], &GO, &mut |_| {}).unwrap();
            sum += id as u64;
        }
    }
}

#[test]
fn neighbours_in_a_batch_do_not_see_each_other() {
    let program = open(toy::plan(), &with_threads(2));
    let mut engine = program.engine();
    // Taking turns makes the slots' pages alternate in the pool.
    for part in 0..3 {
        for slot in 0..3 {
            prefill(&mut engine, slot, part * 60, &[slot + 1; 60]);
        }
    }
    let rows = [2, 0, 1].map(|slot| Row { slot, position: 180, id: 10 * slot });
    for slot in 0..3 {
        engine.hold(slot, 181).unwrap();
    }
    engine.decode(&rows, &GO, &mut |_| {}).unwrap();
    for (index, row) in rows.iter().enumerate() {
        let sum = u64::from(180 * (row.slot + 1) + row.id);
        assert_eq!(predicted(&engine, index), token_of(sum), "slot {}", row.slot);
    }
}

#[test]
fn features_of_more_tiles_than_a_batch_reach_their_places() {
    let program = open(toy::plan(), &with_threads(2));
    let mut engine = program.engine();
    let mut calls = Vec::new();
    let mut watch = |done: &sail_runtime::execute::Done| {
        calls.push((done.call.images, done.function.classes[done.call.class]));
    };
    engine.vision(Twin::Production, 7, &mut fill, &GO, &mut watch).unwrap();
    assert_eq!(calls, [(4, 4), (3, 4)]);
    let ids = [5, toy::IMAGE_PLACE, toy::IMAGE_PLACE, 6];
    let tokens = Tokens { slot: 0, start: 0, ids: &ids, image_rows: &[-1, 0, 6, -1] };
    engine.hold(0, 4).unwrap();
    engine.prefill(Twin::Production, tokens, Outputs::Last, &GO, &mut |_| {}).unwrap();
    assert_eq!(predicted(&engine, 0), token_of(5 + 0x3f80 + 0x3f86 + 6));
}

#[test]
fn steps_that_depend_on_all_items_of_the_one_before_never_start_early() {
    for threads in [1, 2, 5] {
        let mut plan = toy::plan();
        let (rounds, rows) = (60, 97);
        plan.functions[2] = special::shifting(rounds, rows);
        let program = open(plan, &with_threads(threads));
        let mut engine = program.engine();
        for _ in 0..50 {
            let row = |slot: u32| Row { slot: 0, position: slot, id: slot * slot };
            let batch: Vec<Row> = (0..rows).map(row).collect();
            engine.hold(0, rows).unwrap();
            engine.decode(&batch, &GO, &mut |_| {}).unwrap();
            let ids: u64 = batch.iter().map(|row| u64::from(row.id)).sum();
            let sum = ids + u64::from(rounds) * u64::from(rows);
            assert_eq!(predicted(&engine, rows as usize - 1), token_of(sum));
        }
    }
}

#[test]
fn a_call_is_given_up_soon_after_somebody_wants_it_to_stop() {
    let mut plan = toy::plan();
    plan.functions[2] = special::slow();
    let program = open(plan, &with_threads(2));
    let mut engine = program.engine();
    engine.hold(0, 1).unwrap();
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let row = Row { slot: 0, position: 0, id: 1 };
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(60));
            stop.store(true, Ordering::SeqCst);
        });
        engine.decode(&[row], &stop, &mut |_| {})
    });
    assert_eq!(result, Err(DeviceError::Interrupted));
    let whole = start.elapsed();
    // The next call starts afresh and takes its whole time.
    let start = Instant::now();
    engine.decode(&[row], &GO, &mut |_| {}).unwrap();
    assert!(whole < start.elapsed(), "{whole:?} is not less than {:?}", start.elapsed());
}

#[test]
fn taps_of_batches_and_chunks_are_put_together() {
    let options = Options { taps: true, ..with_threads(2) };
    let program = open(toy::plan(), &options);
    let mut engine = program.engine();
    let ids = [1, 2, toy::IMAGE_PLACE, 4, 5, toy::IMAGE_PLACE, 7];
    engine.hold(0, 7).unwrap();
    let inside =
        Inside { tiles: 5, fill: &mut fill, ids: &ids, image_rows: &[-1, -1, 0, -1, -1, 4, -1] };
    let tensors = collect(&mut engine, inside, &Pattern::new("*"), &GO).unwrap();
    let tensor = |name: &str| tensors.iter().find(|tensor| tensor.name == name).unwrap();
    assert_eq!(tensors.len(), 4);
    assert_eq!(tensor("pixels").shape, [5, 3, 2, 2]);
    assert_eq!(tensor("image_features").shape, [5, 1, 16]);
    assert_eq!(tensor("image_features").values[64], bf16::from_bits(0x3f84).to_f32());
    assert_eq!(tensor("layers.0").shape, [7, 4]);
    let column: Vec<f32> = tensor("layers.0").values.iter().step_by(4).copied().collect();
    assert_eq!(column, [1.0, 2.0, 16256.0, 4.0, 5.0, 16260.0, 7.0]);
    assert_eq!(tensor("logits").shape, [7, 320]);
    let sums = [1, 3, 3 + 16256, 7 + 16256, 12 + 16256, 12 + 2 * 16256 + 4, 19 + 2 * 16256 + 4];
    for (row, sum) in tensor("logits").values.chunks(320).zip(sums) {
        assert_eq!(row.iter().position(|value| *value == 1.0), Some(token_of(sum)));
    }
}

#[test]
fn times_of_steps_lie_in_their_call_and_in_order() {
    let options = Options { times: true, ..with_threads(2) };
    let program = open(toy::plan(), &options);
    let mut engine = program.engine();
    engine.hold(0, 1).unwrap();
    let mut seen = Vec::new();
    let row = Row { slot: 0, position: 0, id: 1 };
    engine.decode(&[row], &GO, &mut |done| seen = done.times.to_vec()).unwrap();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|time| time.start <= time.end && time.busy > 0));
    assert!(seen.windows(2).all(|pair| pair[0].end <= pair[1].start));
}

#[test]
fn the_null_device_accepts_what_the_engine_makes_of_any_conversation() {
    let options = Options { device: DeviceKind::Null, slots: 2, ..Options::default() };
    let program = open(toy::plan(), &options);
    let mut engine = program.engine();
    engine.vision(Twin::Production, 6, &mut fill, &GO, &mut |_| {}).unwrap();
    for slot in 0..2 {
        prefill(&mut engine, slot, 0, &[9; 100]);
        prefill(&mut engine, slot, 100, &[9; 31]);
    }
    for position in 131..toy::POSITIONS {
        let rows = [0, 1].map(|slot| Row { slot, position, id: 3 });
        for row in rows {
            engine.hold(row.slot, position + 1).unwrap();
        }
        engine.decode(&rows, &GO, &mut |_| {}).unwrap();
    }
    prefill(&mut engine, 1, 0, &[1, 2, 3]);
}

#[test]
fn the_null_device_refuses_calls_that_would_hurt_a_real_one() {
    let options = Options { device: DeviceKind::Null, slots: 2, ..Options::default() };
    let program = open(toy::plan(), &options);
    let refusal = |ids: &[u32], start: u32, image_row: i32, hold: u32| {
        let mut engine = program.engine();
        prefill(&mut engine, 0, 0, &[1; 65]);
        engine.hold(1, 65).unwrap();
        engine.hold(0, hold).unwrap();
        let tokens = Tokens { slot: 0, start, ids, image_rows: &vec![image_row; ids.len()] };
        let result = engine.prefill(Twin::Production, tokens, Outputs::Last, &GO, &mut |_| {});
        result.map_or_else(|error| error.to_string(), |()| "accepted".to_owned())
    };
    assert_eq!(refusal(&[1], 65, -1, 66), "accepted");
    assert!(refusal(&[toy::VOCABULARY], 65, -1, 66).contains("token 320 is not below 320"));
    assert!(refusal(&[1], 65, 0, 66).contains("takes image row 0 of 0"));
    assert!(refusal(&[1], 67, -1, 68).contains("position 67 of slot 0 follows 65"));
    assert!(refusal(&[1; 70], 65, -1, 66).contains("two holders"));
}

#[test]
fn a_context_beyond_the_artifact_or_the_machine_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = toy::write(folder.path());
    let refusal = |context, slots| {
        let options = Options { context: Some(context), slots, ..Options::default() };
        match Program::open(&path, &options) {
            Err(error) => error.to_string(),
            Ok(_) => "accepted".to_owned(),
        }
    };
    assert_eq!(refusal(512, 1), "accepted");
    assert!(refusal(513, 1).contains("the artifact has 1 to 512"));
    assert!(refusal(0, 1).contains("the artifact has 1 to 512"));
    assert!(refusal(512, 1_000_000).contains("no memory for a run"));
}

#[test]
fn damaged_weights_are_found_beside_the_first_work() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let path = toy::write(folder.path());
    let whole = Program::open(&path, &Options::default()).unwrap();
    whole.wait_verified().unwrap();
    assert!(whole.verified().unwrap());
    let offset = whole.artifact().weights().offset;
    drop(whole);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0], offset + 12345).unwrap();
    let program = Program::open(&path, &Options::default()).unwrap();
    let error = program.wait_verified().unwrap_err();
    assert!(matches!(&error, RunError::Artifact { .. }), "{error}");
    assert_eq!(sail_ir::Help::exit_code(&error), 6);
    let strict = Options { verify_first: true, ..Options::default() };
    assert!(Program::open(&path, &strict).is_err());
}
