//! The quality sheet, measured on the model of this repository: it tells schemes apart, it is the
//! same bytes every time, and a goal that is missed leaves nothing behind.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use sail_ir::artifact::{Artifact, Quality};
use sail_ir::{CacheScheme, Scheme, Target};
use sail_tests::compiled::targets;
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::places::workspace;
use sailc::options::Options;
use sailc::quality::{PromptSet, Wanted};

const MODEL: &str = "models/sail-vl2-tiny";
const PROMPTS: &str = "models/sail-vl2-tiny/samples/prompts.json";

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("bf16 beside itself differs nowhere", || {
            let quality = sheet(Scheme::Bf16, 2)?.0;
            let measured = quality.measured.expect("a prompt set was given");
            assert_eq!((measured.all.kl_max, measured.all.top1), (0.0, 1.0));
            assert!(measured.layers.iter().all(|layer| layer.snr_db.is_none()));
            assert!(quality.weights.iter().all(|weight| weight.snr_db.is_none()));
            Ok(())
        }),
        Test::new("more bits lie nearer to bf16, in weights, layers and tokens", || {
            let [int8, int4] = [sheet(Scheme::Int8, 2)?.0, sheet(Scheme::Int4, 2)?.0];
            let weights = int8.weights.iter().zip(&int4.weights);
            let nearer = |one: Option<f64>, other: Option<f64>| match (one, other) {
                (Some(one), Some(other)) => one > other,
                (one, other) => one.is_none() && other.is_none(),
            };
            for (int8, int4) in weights {
                assert!(nearer(int8.snr_db, int4.snr_db), "{int8:?} {int4:?}");
            }
            let [int8, int4] = [int8.measured, int4.measured].map(|it| it.expect("measured"));
            for (int8, int4) in int8.layers.iter().zip(&int4.layers) {
                assert!(nearer(int8.snr_db, int4.snr_db), "{int8:?} {int4:?}");
            }
            assert_eq!(int8.all.positions, int4.all.positions);
            assert!(0.0 < int8.all.kl_mean && int8.all.kl_mean < int4.all.kl_mean);
            assert!(int8.answers.positions < int8.all.positions);
            Ok(())
        }),
        Test::new(
            "a cache of 8 bits costs less than weights of 8 bits, and half the memory",
            || {
                let kept = |cache| sheet_of(Options { cache, ..options(Scheme::Bf16)? });
                let (bf16, int8) = (kept(CacheScheme::Bf16)?, kept(CacheScheme::Int8)?);
                let [cache, weights] = [int8.quality, sheet(Scheme::Int8, 2)?.0]
                    .map(|it| it.measured.expect("measured"));
                assert!(0.0 < cache.all.kl_mean && cache.all.kl_mean < weights.all.kl_mean);
                assert_eq!(
                    int8.block_bytes,
                    bf16.block_bytes / 2 + 512,
                    "bytes, and two scales a position"
                );
                Ok(())
            },
        ),
        Test::new("a measured artifact is the same bytes on one thread and on two", || {
            let [one, two] = [sheet(Scheme::Int8, 1)?.1, sheet(Scheme::Int8, 2)?.1];
            assert!(one == two, "two compiles differ");
            Ok(())
        }),
        Test::new("a goal lets int8 through and refuses int4, of which nothing is left", || {
            let folder = tempfile::tempdir().map_err(failed)?;
            let goals = ["kl<=0.08", "answer-top1>=0.9"];
            let int8 = folder.path().join("int8.sail");
            compile(options(Scheme::Int8)?, &goals, &int8)?.map_err(failed)?;
            let artifact = Artifact::open(&int8).map_err(told)?;
            let echoed = goals.map(|goal| format!("--goal={goal}"));
            assert!(echoed.iter().all(|goal| artifact.manifest().options.contains(goal)));
            let int4 = folder.path().join("int4.sail");
            let error =
                compile(options(Scheme::Int4)?, &goals, &int4)?.expect_err("it misses its goal");
            assert!(error.contains("SC0706") && error.contains("most noise"), "{error}");
            assert_eq!(fs::read_dir(folder.path()).map_err(failed)?.count(), 1);
            Ok(())
        }),
    ]
}

/// What a compile left.
struct Left {
    quality: Quality,
    block_bytes: u64,
    file: Vec<u8>,
}

/// The sheet of the model in `scheme`, and the whole file.
fn sheet(scheme: Scheme, threads: usize) -> Result<(Quality, Vec<u8>), Outcome> {
    let left = sheet_of(Options { threads, ..options(scheme)? })?;
    Ok((left.quality, left.file))
}

fn sheet_of(options: Options) -> Result<Left, Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let path = folder.path().join("model.sail");
    compile(options, &[], &path)?.map_err(failed)?;
    let artifact = Artifact::open(&path).map_err(told)?;
    let quality = artifact.manifest().quality.clone();
    let block_bytes = artifact.manifest().plan.cache.block_bytes;
    Ok(Left { quality, block_bytes, file: fs::read(&path).map_err(failed)? })
}

fn options(scheme: Scheme) -> Result<Options, Outcome> {
    let target: Target = targets()?.pop().expect("there is at least one");
    Ok(Options { scheme, threads: 2, ..Options::new(target) })
}

/// Compile and measure; what the error says.
fn compile(options: Options, goals: &[&str], path: &Path) -> Result<Result<(), String>, Outcome> {
    let prompts = PromptSet::open(&workspace().join(PROMPTS)).map_err(told)?;
    let goals = goals.iter().map(|goal| goal.parse()).collect::<Result<_, _>>().map_err(told)?;
    let options = Options { quality: Some(Wanted { prompts, goals }), ..options };
    let done = sailc::pipeline::compile(&workspace().join(MODEL), &options, path, &mut |_, _| {
        ControlFlow::Continue(())
    });
    Ok(done.map(drop).map_err(|error| sail_ir::help::report(error.as_ref())))
}
