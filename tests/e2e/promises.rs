//! What a compiled model promises beside being right: the same bytes whatever the threads, chunks,
//! neighbours and folders.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use half::bf16;
use sail_ir::Target;
use sail_ir::artifact::Artifact;
use sail_models::WeightSource;
use sail_models::synth::Synth;
use sail_runtime::execute::{Engine, Outputs, Row, Tokens, Twin};
use sail_runtime::{DeviceKind, Options as Opening, Program};
use sail_tests::compiled::{artifact, compile, open, targets};
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::places::{binary, copy_folder};
use sail_tests::recorded::{RECORDED, Recorded};
use sailc::golden::run::{observe, positions, rule};
use sailc::golden::{Case, Golden};
use sailc::options::Options;

static GO: AtomicBool = AtomicBool::new(false);

/// Recorded models that are small, dense and with experts, and in the repository.
const SMALL: [Recorded; 2] = [RECORDED[0], RECORDED[1]];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("one, two and three threads give the same bytes", same_on_any_number_of_threads),
        Test::new(
            "two compiles in two folders with one and two threads give the same bytes",
            same_file_twice,
        ),
        Test::new(
            "weights drawn when compiling are those that synth writes",
            drawn_weights_are_written_ones,
        ),
        Test::new("a table that is the head as well is stored once", tied_once),
        Test::new("a compile and a synth that are interrupted leave nothing behind", interrupted),
        Test::new("a prompt in any pieces gives logits within the bound", any_pieces),
        Test::new("rows of a batch and their slots do not see each other", neighbours),
        Test::new("the null device finds nothing wrong with compiled models", sound),
    ]
}

/// An opened recorded model with its golden.
fn opened(recorded: &Recorded, options: Opening) -> Result<(Program, Golden), Outcome> {
    let golden = Golden::open(&recorded.paths()?.1).map_err(told)?;
    let target = targets()?.pop().expect("there is at least one");
    let context = Some(positions(&golden).map_err(|error| failed(error.to_string()))?);
    let options = Opening { context, slots: options.slots.max(1), ..options };
    Ok((open(&artifact(recorded, &target)?, &options)?, golden))
}

fn same_on_any_number_of_threads() -> Result<(), Outcome> {
    for recorded in SMALL {
        let mut first = None;
        for threads in [1, 2, 3] {
            let options = Opening { threads: Some(threads), taps: true, ..Opening::default() };
            let (program, golden) = opened(&recorded, options)?;
            let mut all = Vec::new();
            for case in golden.cases() {
                let observed = observe(&program, &case, rule(&program, false));
                let observed = observed.map_err(|error| failed(error.to_string()))?;
                let bits =
                    |values: &Vec<f32>| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                let stages: Vec<_> =
                    observed.stages.iter().map(|(name, v)| (name.clone(), bits(v))).collect();
                all.push((stages, observed.greedy));
            }
            let expected = first.get_or_insert_with(|| all.clone());
            assert!(*expected == all, "{} on {threads} threads gives other bytes", recorded.name);
        }
    }
    Ok(())
}

fn same_file_twice() -> Result<(), Outcome> {
    for recorded in SMALL {
        let folder = tempfile::tempdir().map_err(failed)?;
        let elsewhere = folder.path().join("a folder of another name");
        copy_folder(&recorded.paths()?.0, &elsewhere)?;
        let target = Target::parse("x86-64-v4").map_err(told)?;
        let options = |threads| Options { threads, ..Options::new(target.clone()) };
        let paths = ["one.sail", "two.sail"].map(|name| folder.path().join(name));
        compile(&recorded.paths()?.0, &options(1), &paths[0])?;
        compile(&elsewhere, &options(2), &paths[1])?;
        let [one, two] =
            [fs::read(&paths[0]).map_err(failed)?, fs::read(&paths[1]).map_err(failed)?];
        assert!(one == two, "{}: two compiles differ", recorded.name);
    }
    Ok(())
}

fn drawn_weights_are_written_ones() -> Result<(), Outcome> {
    let recorded = SMALL[1].paths()?.0;
    let config = fs::read_to_string(recorded.join("config.json")).map_err(failed)?;
    let folder = tempfile::tempdir().map_err(failed)?;
    let written = folder.path().join("written");
    let tokenizer = recorded.join("tokenizer.json");
    Synth { config: &config, seed: 7, shards: Some(2), tokenizer: Some(&tokenizer) }
        .write(&written, &mut |_, _| ControlFlow::Continue(()))
        .map_err(told)?;
    let target = Target::parse("x86-64-v3").map_err(told)?;
    let mut hashes = Vec::new();
    for (checkpoint, weights) in
        [(&written, WeightSource::Checkpoint), (&recorded, WeightSource::Random { seed: 7 })]
    {
        let path = folder.path().join(format!("{}.sail", hashes.len()));
        compile(checkpoint, &Options { weights, ..Options::new(target.clone()) }, &path)?;
        let artifact = Artifact::open(&path).map_err(told)?;
        hashes.push(artifact.weights().blake3.clone());
    }
    assert_eq!(hashes[0], hashes[1], "the drawn weights are not the written ones");
    Ok(())
}

/// The first recorded model is tied; its goldens hold what is computed out of the one copy.
fn tied_once() -> Result<(), Outcome> {
    for target in targets()? {
        let artifact = Artifact::open(&artifact(&SMALL[0], &target)?).map_err(told)?;
        let weights = artifact.manifest().plan.weights.iter();
        let tables: Vec<&str> = weights
            .filter(|(_, weight)| weight.paths.iter().any(|path| path.contains("embed_tokens")))
            .map(|(_, weight)| weight.layout.as_str())
            .collect();
        let [layout] = tables[..] else { panic!("{target}: stored as {tables:?}") };
        assert!(layout.contains("panels"), "{target}: {layout}");
    }
    Ok(())
}

/// Real processes and a real signal, sent once the unfinished file or folder is there.
fn interrupted() -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let checkpoint = folder.path().join("checkpoint");
    copy_folder(&SMALL[0].paths()?.0, &checkpoint)?;
    // An embedding table that takes seconds to draw and write.
    let config = fs::read_to_string(checkpoint.join("config.json")).map_err(failed)?;
    let config = config.replace("\"vocab_size\": 896", "\"vocab_size\": 9000000");
    fs::write(checkpoint.join("config.json"), config).map_err(failed)?;
    let commands: [&[&str]; 2] = [
        &["compile", "checkpoint", "--weights", "random:1", "-o", "out"],
        &["synth", "2b", "-o", "out"],
    ];
    for arguments in commands {
        let mut command = Command::new(binary("sailc")?);
        let command = command.args(arguments).current_dir(folder.path()).stderr(Stdio::piped());
        let child = command.spawn().map_err(failed)?;
        let begun = Instant::now();
        while names(folder.path())?.len() == 1 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{arguments:?} begins no file");
            std::thread::yield_now();
        }
        let kill = format!("kill -TERM {}", child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().map_err(failed)?.success());
        let output = child.wait_with_output().map_err(failed)?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{text}");
        assert!(text.contains("interrupted"), "{text}");
        assert_eq!(names(folder.path())?, ["checkpoint"], "{arguments:?} leaves something");
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>, Outcome> {
    let entries = fs::read_dir(folder).map_err(failed)?;
    entries
        .map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// A recorded prompt, its features computed and its slot held.
struct Prompt {
    ids: Vec<u32>,
    image_rows: Vec<i32>,
}

impl Prompt {
    fn see(program: &Program, engine: &mut Engine, case: &Case<'_>) -> Result<Self, Outcome> {
        let ids = case.ids().map_err(told)?;
        let place = program.manifest().tokens.image_context;
        let mut next = -1;
        let row = |id: &u32| {
            next += i32::from(*id == place);
            if *id == place { next } else { -1 }
        };
        let image_rows = ids.iter().map(row).collect();
        if let Some(tiles) = case.tiles().map_err(told)? {
            let tiling = &program.manifest().tiling;
            let tiles =
                sail_runtime::image::Tiles::of_bytes(tiles.bytes.to_vec(), tiling).map_err(told)?;
            let mut fill = |range, out: &mut [bf16]| tiles.pixels_bf16(range, out);
            let count = tiles.count() as u32;
            engine.vision(Twin::Production, count, &mut fill, &GO, &mut |_| ()).map_err(told)?;
        }
        Ok(Self { ids, image_rows })
    }

    /// Run the whole prompt in runs of these lengths, over and over; logits after the last token.
    fn read(&self, engine: &mut Engine, slot: u32, runs: &[usize]) -> Result<Vec<bf16>, Outcome> {
        engine
            .hold(slot, self.ids.len() as u32 + 1)
            .map_err(|error| failed(format!("{error:?}")))?;
        let (mut start, mut runs) = (0, runs.iter().cycle());
        while start < self.ids.len() {
            let end = self.ids.len().min(start + runs.next().expect("there is a run"));
            let (ids, image_rows) = (&self.ids[start..end], &self.image_rows[start..end]);
            let tokens = Tokens { slot, start: start as u32, ids, image_rows };
            engine
                .prefill(Twin::Production, tokens, Outputs::Last, &GO, &mut |_| ())
                .map_err(told)?;
            start = end;
        }
        Ok(engine.logits(0).to_vec())
    }
}

fn any_pieces() -> Result<(), Outcome> {
    for recorded in
        RECORDED.iter().filter(|one| !one.name.contains("moe") && !one.name.contains("tiny"))
    {
        let (program, golden) = match opened(recorded, Opening::default()) {
            Err(Outcome::Skipped(_)) => continue, // the committed model is held to it
            other => other?,
        };
        for case in golden.cases() {
            let mut engine = program.engine();
            let prompt = Prompt::see(&program, &mut engine, &case)?;
            for runs in [&[usize::MAX][..], &[1], &[17], &[64], &[3, 100, 1]] {
                let ours = prompt.read(&mut engine, 0, runs)?;
                last_row_lies_within(&case, &ours).map_err(|text| {
                    failed(format!("{}, case {}, runs {runs:?}: {text}", recorded.name, case.name))
                })?;
            }
        }
    }
    Ok(())
}

/// The bound of the stage, applied to its last row alone.
fn last_row_lies_within(case: &Case<'_>, ours: &[bf16]) -> Result<(), String> {
    use sailc::golden::judge::{FACTOR, SLACK};
    let row =
        |tensor: sailc::golden::Tensor| tensor.values[tensor.values.len() - ours.len()..].to_vec();
    let golden = row(case.tensor("logits").map_err(|error| error.to_string())?);
    let reference = row(case.in_bf16("logits").map_err(|error| error.to_string())?);
    let ours: Vec<f32> = ours.iter().map(|logit| logit.to_f32()).collect();
    let distance = |values: &[f32]| {
        let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
        let difference: f64 = values.iter().zip(&golden).map(square).sum();
        (difference / golden.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()).sqrt()
    };
    let (found, bound) = (distance(&ours), FACTOR * distance(&reference) + SLACK);
    if found <= bound { Ok(()) } else { Err(format!("logits at {found:.5}, bound {bound:.5}")) }
}

fn neighbours() -> Result<(), Outcome> {
    for recorded in SMALL {
        let (program, golden) = opened(&recorded, Opening { slots: 3, ..Opening::default() })?;
        let cases = golden.cases();
        let case = |slot: u32| &cases[slot as usize % cases.len()];
        let mut engine = program.engine();
        let token = |slot: u32| 5 + 7 * slot;
        // Alone, each in slot 0 …
        let mut alone = Vec::new();
        for slot in 0..3 {
            let prompt = Prompt::see(&program, &mut engine, case(slot))?;
            let prefilled = prompt.read(&mut engine, 0, &[usize::MAX])?;
            let row = Row { slot: 0, position: prompt.ids.len() as u32, id: token(slot) };
            engine.decode(&[row], &GO, &mut |_| ()).map_err(told)?;
            alone.push((prefilled, engine.logits(0).to_vec(), row.position));
        }
        // … and together, each in a slot of its own, rows in another order.
        for slot in 0..3 {
            let prompt = Prompt::see(&program, &mut engine, case(slot))?;
            let prefilled = prompt.read(&mut engine, slot, &[usize::MAX])?;
            assert!(
                prefilled == alone[slot as usize].0,
                "{}: slot {slot} reads otherwise",
                recorded.name
            );
        }
        let row = |slot: u32| Row { slot, position: alone[slot as usize].2, id: token(slot) };
        engine.decode(&[row(2), row(0), row(1)], &GO, &mut |_| ()).map_err(told)?;
        for (index, slot) in [2, 0, 1].into_iter().enumerate() {
            let same = engine.logits(index) == alone[slot].1;
            assert!(same, "{}: row {index} of the batch sees its neighbours", recorded.name);
        }
    }
    Ok(())
}

fn sound() -> Result<(), Outcome> {
    for recorded in SMALL {
        for target in ["x86-64-v3", "x86-64-v4", "znver4"] {
            let target = Target::parse(target).map_err(told)?;
            let golden = Golden::open(&recorded.paths()?.1).map_err(told)?;
            let context = Some(positions(&golden).map_err(|error| failed(error.to_string()))?);
            let options = Opening {
                context,
                device: DeviceKind::Null,
                slots: 1,
                taps: true,
                ..Opening::default()
            };
            let program = open(&artifact(&recorded, &target)?, &options)?;
            for case in golden.cases() {
                observe(&program, &case, rule(&program, false))
                    .map_err(|error| failed(format!("for {target}: {error}")))?;
            }
        }
    }
    Ok(())
}
