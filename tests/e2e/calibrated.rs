//! Calibration of the model of this repository: the same bytes every time, nearer to `bf16` with it
//! than without, refused where it is of something else.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use half::bf16;
use safetensors::SafeTensors;
use sail_ir::Scheme;
use sail_ir::artifact::{Artifact, Measured};
use sail_tests::compiled::targets;
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::places::{copy_folder, workspace};
use sail_tests::recorded::RECORDED;
use sailc::options::Options;
use sailc::quality::{PromptSet, Wanted};

const MODEL: &str = "models/sail-vl2-tiny";
const PROMPTS: &str = "models/sail-vl2-tiny/samples/prompts.json";

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("a calibration is the same bytes on one thread and on two", || {
            let folder = tempfile::tempdir().map_err(failed)?;
            let paths = ["one", "two"].map(|name| folder.path().join(name));
            calibrate(&workspace().join(MODEL), 1, &paths[0])?;
            calibrate(&workspace().join(MODEL), 2, &paths[1])?;
            let [one, two] = paths.map(|path| fs::read(path).expect("it was written"));
            assert!(one == two, "two calibrations differ");
            assert_eq!(fs::read_dir(folder.path()).map_err(failed)?.count(), 2);
            Ok(())
        }),
        Test::new("int4 rounded by a calibration lies nearer to bf16", || {
            let folder = tempfile::tempdir().map_err(failed)?;
            let stats = folder.path().join("stats");
            calibrate(&workspace().join(MODEL), 2, &stats)?;
            let model = workspace().join(MODEL);
            let plain = options(Scheme::Int4)?;
            let rounded = Options { calibration: Some(stats), ..plain.clone() };
            let (plain, rounded) = (measured(&model, plain)?, measured(&model, rounded)?);
            let (all, without) = (rounded.all.kl_mean, plain.all.kl_mean);
            assert!(all < 0.7 * without, "{all} of {without}");
            for (with, without) in rounded.layers.iter().zip(&plain.layers).skip(1) {
                let name = &with.name;
                assert!(with.snr_db > without.snr_db, "{name}: {with:?} {without:?}");
            }
            Ok(())
        }),
        Test::new("outliers that are moved into weights change no bit of bf16", || {
            let folder = tempfile::tempdir().map_err(failed)?;
            let model = with_outliers(folder.path())?;
            let stats = folder.path().join("stats");
            calibrate(&model, 2, &stats)?;
            let calibration = Some(stats);
            let moved = Options { calibration, smooth: Some(0.5), ..options(Scheme::Bf16)? };
            let moved = measured(&model, moved)?;
            assert_eq!((moved.all.kl_max, moved.all.top1), (0.0, 1.0));
            Ok(())
        }),
        Test::new(
            "int8 of a model with outliers is as near as without when they are moved",
            || {
                let folder = tempfile::tempdir().map_err(failed)?;
                let model = with_outliers(folder.path())?;
                let stats = folder.path().join("stats");
                calibrate(&model, 2, &stats)?;
                let int8 = options(Scheme::Int8)?;
                let moved = Options { calibration: Some(stats), smooth: Some(0.5), ..int8.clone() };
                let usual = measured(&workspace().join(MODEL), int8.clone())?.all.kl_mean;
                let (hurt, mended) = (measured(&model, int8)?, measured(&model, moved)?);
                let (hurt, mended) = (hurt.all.kl_mean, mended.all.kl_mean);
                assert!(hurt > 4.0 * usual, "{hurt} with outliers, {usual} without");
                assert!(mended < 1.5 * usual, "{mended} with outliers moved, {usual} without any");
                Ok(())
            },
        ),
        Test::new("a calibration of another model is refused, and nothing is left", || {
            let folder = tempfile::tempdir().map_err(failed)?;
            let (stats, output) = (folder.path().join("stats"), folder.path().join("out.sail"));
            calibrate(&workspace().join(MODEL), 2, &stats)?;
            let options = Options { calibration: Some(stats), ..options(Scheme::Int4)? };
            let other = RECORDED[0].paths()?.0;
            let error = sailc::pipeline::compile(&other, &options, &output, &mut |_, _| {
                ControlFlow::Continue(())
            });
            let error = error.map(drop).expect_err("it is of another model");
            assert_eq!((error.code(), error.exit_code()), ("SC0317", 3));
            assert_eq!(fs::read_dir(folder.path()).map_err(failed)?.count(), 1);
            Ok(())
        }),
    ]
}

fn options(scheme: Scheme) -> Result<Options, Outcome> {
    let target = targets()?.pop().expect("there is at least one");
    Ok(Options { scheme, threads: 2, ..Options::new(target) })
}

fn prompts() -> Result<PromptSet, Outcome> {
    PromptSet::open(&workspace().join(PROMPTS)).map_err(told)
}

fn calibrate(model: &Path, threads: usize, path: &Path) -> Result<(), Outcome> {
    let options = Options { threads, ..options(Scheme::Bf16)? };
    let found = sailc::pipeline::calibrate(model, &options, &prompts()?, path, &mut |_, _| {
        ControlFlow::Continue(())
    });
    let found = found.map_err(|error| failed(sail_ir::help::report(error.as_ref())))?;
    found.write(path).map_err(told)
}

/// The model of this repository with one wide channel behind every norm of its decoder, and the weights
/// that read it as much narrower: the same function.
fn with_outliers(folder: &Path) -> Result<PathBuf, Outcome> {
    const CHANNEL: usize = 5;
    const TIMES: f32 = 256.0;
    let to = copy_folder(&workspace().join(MODEL), &folder.join("outliers"))?;
    let path = to.join("model.safetensors");
    let mut bytes = fs::read(&path).map_err(failed)?;
    let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(failed)?;
    for (name, info) in metadata.tensors() {
        let norm = ["input_layernorm.weight", "post_attention_layernorm.weight"];
        let readers = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "mlp.gate"];
        let times = if norm.iter().any(|norm| name.ends_with(norm)) {
            TIMES
        } else if readers.iter().any(|reader| name.ends_with(&format!("{reader}.weight"))) {
            1.0 / TIMES
        } else {
            continue;
        };
        let width = info.shape.last().copied().unwrap_or(1);
        let (begin, end) = info.data_offsets;
        let values = &mut bytes[8 + header + begin..8 + header + end];
        for row in values.chunks_exact_mut(2 * width) {
            let value = row[2 * CHANNEL..].first_chunk_mut::<2>().expect("a channel of the width");
            *value = bf16::from_f32(bf16::from_le_bytes(*value).to_f32() * times).to_le_bytes();
        }
    }
    fs::write(&path, bytes).map_err(failed)?;
    Ok(to)
}

/// What a compile of `model` measures beside bf16.
fn measured(model: &Path, options: Options) -> Result<Measured, Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let path = folder.path().join("model.sail");
    let calibrated = options.calibration.is_some();
    let quality = Some(Wanted { prompts: prompts()?, goals: Vec::new() });
    let options = Options { quality, ..options };
    sailc::pipeline::compile(model, &options, &path, &mut |_, _| ControlFlow::Continue(()))
        .map_err(|error| failed(sail_ir::help::report(error.as_ref())))?;
    let artifact = Artifact::open(&path).map_err(told)?;
    let options = &artifact.manifest().options;
    let echoed = options.iter().any(|option| option.starts_with("--calibration=blake3:"));
    assert_eq!(echoed, calibrated, "{options:?}");
    Ok(artifact.manifest().quality.measured.clone().expect("a prompt set was given"))
}
