//! Configs that were measured and pinned: every answer as by rule, the same file every time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sail_ir::artifact::Artifact;
use sail_ir::{Scheme, Target};
use sail_kernels::Kernel;
use sail_tests::compiled::{compile, targets};
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::places::binary;
use sail_tests::recorded::{RECORDED, Recorded};
use sailc::golden::Golden;
use sailc::lock::Lock;
use sailc::options::Options;
use sailc::tune::database::Database;
use sailc::tune::{Machine, Wish};

use super::gpu::{TARGETS, on_gpu, succeeds};
use super::observed::{observed, same_bits};

/// Small, dense and with experts.
const SMALL: [Recorded; 2] = [RECORDED[0], RECORDED[1]];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("a model answers with the same bytes whatever configs are pinned", same_bytes),
        Test::new("two compiles with one lock give the same bytes", same_file_twice),
        Test::new("two seconds of tuning give measurements and a lock to compile with", tuned),
        Test::new("what a model of GPUs chooses, pinned, gives the same code", pinned_as_chosen),
        Test::new(
            "a model lies within the bounds on simulated GPUs whatever configs are pinned",
            pinned_otherwise,
        )
        .long(),
    ]
}

/// A lock that gives every kernel of the model, on this target, the least or the greatest value of
/// each parameter, by turns.
fn odd_lock(checkpoint: &Path, options: &Options, path: &Path) -> Result<usize, Outcome> {
    let mut lock = Lock::default();
    let pin = |kernels: &[&dyn Kernel]| {
        for kernel in kernels.iter().filter_map(|kernel| kernel.shaped()) {
            let mut config = kernel.config();
            for (at, parameter) in kernel.space().iter().enumerate() {
                let ends = [parameter.values.first(), parameter.values.last()];
                let value = ends[(at + kernel.symbol().len()) % 2].expect("it has values");
                let wish = config.with(parameter.name, *value);
                config = if kernel.fits(&wish) { wish } else { config };
            }
            lock.pin(&options.target, kernel.pinned_as(), &config);
        }
        Ok(lock.len())
    };
    let pinned = match options.target.gpu() {
        None => sailc::pipeline::tune(checkpoint, options, pin),
        Some(_) => sailc::pipeline::kernels(checkpoint, options, pin),
    };
    lock.write(path).map_err(told)?;
    pinned.map_err(|error| failed(sail_ir::help::report(error.as_ref())))
}

/// By the real commands: `tune` pins, `compile` takes the lock.
fn pinned_as_chosen() -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let [lock, plain, pinned] = ["lock", "plain", "pinned"].map(|name| folder.path().join(name));
    let checkpoint = SMALL[1].paths()?.0;
    let target = Target::parse("sm_90").map_err(told)?;
    let mut tune = Command::new(binary("sailc")?);
    tune.args(["tune", "--target", "sm_90", "--lock"]).arg(&lock).arg(&checkpoint);
    let said = succeeds(&mut tune)?;
    let last = said.lines().last().unwrap_or_default();
    assert!(last.ends_with("; nothing was measured"), "{said}");

    let options = Options { threads: 2, ..Options::new(target) };
    compile(&checkpoint, &options, &plain)?;
    compile(&checkpoint, &Options { lock: Some(lock.clone()), ..options }, &pinned)?;
    let [plain, pinned] = [plain, pinned].map(|path| Artifact::open(&path).map_err(told));
    let (plain, pinned) = (plain?, pinned?);
    assert!(plain.code() == pinned.code(), "pinning what was chosen changes the code");
    let kernels = pinned.manifest().plan.kernels.iter();
    let named = kernels.filter(|(_, kernel)| kernel.symbol.contains('=')).count();
    assert!(named > 5, "{named} kernels are pinned");
    let text = fs::read_to_string(lock).map_err(failed)?;
    assert!(text.contains("not measured") && text.contains("\nsm_90 linear."), "{text}");
    Ok(())
}

fn pinned_otherwise() -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let [file, lock] = ["pinned.sail", "lock"].map(|name| folder.path().join(name));
    for (recorded, (target, gpu)) in SMALL.into_iter().zip(TARGETS) {
        let (checkpoint, golden) = recorded.paths()?;
        let target = Target::parse(target).map_err(told)?;
        let options = Options { threads: 2, ..Options::new(target.clone()) };
        odd_lock(&checkpoint, &options, &lock)?;
        compile(&checkpoint, &Options { lock: Some(lock.clone()), ..options }, &file)?;
        let artifact = Artifact::open(&file).map_err(told)?;
        let kernels = artifact.manifest().plan.kernels.iter();
        let otherwise = |entry: &str| {
            ["_warps", "_blocks", "_columns", "_tile", "_parts"]
                .iter()
                .any(|word| entry.contains(word))
        };
        let entries = kernels.filter_map(|(_, kernel)| Some(kernel.cuda.as_ref()?.entry.as_str()));
        let count = entries.filter(|entry| otherwise(entry)).count();
        assert!(count > 5, "{target}: {count} kernels are shaped otherwise than by rule");
        let mut verify = on_gpu("sailc", gpu)?;
        verify.args(["verify", "--device", "cuda:0", "--golden"]).arg(golden).arg(&file);
        let text = succeeds(&mut verify)?;
        assert!(text.ends_with(" cases within their bounds\n"), "{target}: {text}");
    }
    Ok(())
}

fn same_bytes() -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let [plain, pinned, lock] = ["plain", "pinned", "lock"].map(|name| folder.path().join(name));
    for recorded in SMALL {
        let (checkpoint, golden) = recorded.paths()?;
        let golden = Golden::open(&golden).map_err(told)?;
        for (target, scheme) in targets()?.into_iter().zip([Scheme::Bf16, Scheme::Int4]) {
            let options = Options { scheme, threads: 2, ..Options::new(target.clone()) };
            let count = odd_lock(&checkpoint, &options, &lock)?;
            compile(&checkpoint, &options, &plain)?;
            compile(&checkpoint, &Options { lock: Some(lock.clone()), ..options }, &pinned)?;
            let artifact = Artifact::open(&pinned).map_err(told)?;
            let kernels = &artifact.manifest().plan.kernels;
            let named = kernels.iter().filter(|(_, kernel)| kernel.symbol.contains('='));
            assert_eq!(named.count(), count, "{} {target}", recorded.name);
            let [want, got] = [observed(&plain, &golden)?, observed(&pinned, &golden)?];
            same_bits(&got, &want, &format!("{} {target}", recorded.name));
        }
    }
    Ok(())
}

fn same_file_twice() -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let checkpoint = SMALL[1].paths()?.0;
    let target = targets()?.pop().expect("there is at least one");
    let locks = ["one.lock", "two.lock"].map(|name| folder.path().join(name));
    let compiled = |lock: &PathBuf, threads: usize| -> Result<Vec<u8>, Outcome> {
        let options = Options { threads, ..Options::new(target.clone()) };
        odd_lock(&checkpoint, &options, lock)?;
        let path = lock.with_extension("sail");
        compile(&checkpoint, &Options { lock: Some(lock.clone()), ..options }, &path)?;
        fs::read(path).map_err(failed)
    };
    let [one, two] = [compiled(&locks[0], 1)?, compiled(&locks[1], 2)?];
    assert!(one == two, "two compiles differ");
    let [one, two] = locks.map(|lock| fs::read_to_string(lock).expect("it was written"));
    assert_eq!(one, two);
    Ok(())
}

fn tuned() -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let [database, lock] = ["db", "lock"].map(|name| folder.path().join(name));
    let checkpoint = SMALL[1].paths()?.0;
    let target: Target = targets()?.pop().expect("there is at least one");
    let options = Options { threads: 2, ..Options::new(target.clone()) };
    let wish = Wish { only: Some("linear".to_owned()), time: Some(Duration::from_secs(2)) };
    let tuned = sailc::pipeline::tune(&checkpoint, &options, |kernels| {
        let machine =
            Machine { target: target.clone(), cpu: "x".to_owned(), threads: 2, probe: None };
        let mut database = Database::open(&database, &machine).map_err(sailc::error::boxed)?;
        let kernels = sailc::tune::chosen(kernels, &wish).map_err(sailc::error::boxed)?;
        sailc::tune::run(&kernels, &machine, &wish, &mut database, &mut |_, _, _| true)
    });
    let tuned = tuned.map_err(|error| failed(sail_ir::help::report(error.as_ref())))?;
    assert!(!tuned.is_empty() && tuned.iter().all(|found| found.kernel.starts_with("linear.")));
    let mut pins = Lock::default();
    for found in &tuned {
        pins.pin(&target, found.kernel.clone(), &found.best);
    }
    pins.write(&lock).map_err(told)?;
    let records = fs::read_to_string(&database).map_err(failed)?;
    for found in &tuned {
        let word = format!(" kernel={} ", found.kernel);
        let of_kernel: Vec<_> = records.lines().filter(|line| line.contains(&word)).collect();
        assert!(of_kernel.iter().any(|line| line.ends_with(&found.own.to_string())), "{word}");
        assert!(of_kernel.len() > found.tried, "{word}: {} of {}", of_kernel.len(), found.tried);
    }
    let artifact = folder.path().join("model.sail");
    compile(&checkpoint, &Options { lock: Some(lock), ..options }, &artifact)?;
    let artifact = Artifact::open(&artifact).map_err(told)?;
    let echo = &artifact.manifest().options;
    assert!(echo.iter().any(|option| option.starts_with("--lock=blake3:")), "{echo:?}");
    Ok(())
}
