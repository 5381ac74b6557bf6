//! Calibration of the model of this repository: the same bytes every time, nearer to `bf16` with it
//! than without, refused where it is of something else.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sail_ir::Scheme;
use sail_ir::artifact::{Artifact, Measured};
use sail_tests::compiled::targets;
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::places::workspace;
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
            let [plain, rounded] = [None, Some(stats)].map(measured);
            let (plain, rounded) = (plain?, rounded?);
            let (all, without) = (rounded.all.kl_mean, plain.all.kl_mean);
            assert!(all < 0.7 * without, "{all} of {without}");
            for (with, without) in rounded.layers.iter().zip(&plain.layers).skip(1) {
                let name = &with.name;
                assert!(with.snr_db > without.snr_db, "{name}: {with:?} {without:?}");
            }
            Ok(())
        }),
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

/// What int4 with this calibration gives.
fn measured(calibration: Option<PathBuf>) -> Result<Measured, Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let path = folder.path().join("model.sail");
    let calibrated = calibration.is_some();
    let quality = Some(Wanted { prompts: prompts()?, goals: Vec::new() });
    let options = Options { quality, calibration, ..options(Scheme::Int4)? };
    sailc::pipeline::compile(&workspace().join(MODEL), &options, &path, &mut |_, _| {
        ControlFlow::Continue(())
    })
    .map_err(|error| failed(sail_ir::help::report(error.as_ref())))?;
    let artifact = Artifact::open(&path).map_err(told)?;
    let options = &artifact.manifest().options;
    let echoed = options.iter().any(|option| option.starts_with("--calibration=blake3:"));
    assert_eq!(echoed, calibrated, "{options:?}");
    Ok(artifact.manifest().quality.measured.clone().expect("a prompt set was given"))
}
