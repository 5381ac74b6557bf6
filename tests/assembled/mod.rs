//! Every kernel that the published sizes get, as NVIDIA's assembler makes machine code of it.
//!
//! Each must keep its values in registers, share a multiprocessor as its plan says, and use the matrix
//! units its text asks for; the assembler must have nothing to complain of.

mod disassembled;
mod gates;

use std::path::Path;
use std::time::Instant;

use sail_ir::help::report;
use sail_ir::{CacheScheme, Scheme, Target};
use sail_kernels::{Kernel, ptx, ptxas};
use sail_models::WeightSource;
use sail_models::synth::SIZES;
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::published::without_weights;
use sailc::options::Options;
use sailc::pipeline;

use gates::Assembled;

const TARGETS: [&str; 2] = ["sm_80", "sm_90"];

/// Kernels of an artifact: each costs time to assemble and to load.
const MOST_KERNELS: usize = 80;

/// What a compile of any size may take beyond packing the weights, on two cores.
const MOST_SECONDS: f64 = 90.0;

pub fn tests() -> Vec<Test> {
    let name = |size: &str, target| {
        format!("every kernel of {size} for {target} assembles as it was planned")
    };
    let mut tests = Vec::new();
    for (size, _) in SIZES.iter().filter(|(size, _)| size.ends_with('b')) {
        for target in TARGETS {
            let test = Test::new(name(size, target), move || every_scheme(size, target));
            // The rest is as slow together as all other tests.
            let usual = (*size, target) == ("2b", "sm_90");
            tests.push(if usual { test } else { test.long() });
        }
    }
    tests.push(Test::new("what breaks a gate of assembled code is told", gates::each_breaks));
    tests.push(Test::new("functions of assembled code are found", disassembled::each_is_found));
    tests
}

/// All schemes, and all forms of the cache, that have kernels on the target.
fn every_scheme(size: &str, target: &str) -> Result<(), Outcome> {
    let target = Target::parse(target).map_err(told)?;
    let ptxas = ptxas::find().map_err(|absent| Outcome::Skipped(absent.to_string()))?;
    let nvdisasm = disassembled::find().ok_or_else(|| {
        Outcome::Skipped("no nvdisasm here; `cargo ptxas` installs it".to_owned())
    })?;
    let folder = tempfile::tempdir().map_err(failed)?;
    let checkpoint = without_weights(size, folder.path())?;
    let schemes = Scheme::ALL.map(|scheme| (scheme, CacheScheme::Bf16)).into_iter();
    let caches = CacheScheme::ALL.into_iter().filter(|cache| *cache != CacheScheme::Bf16);
    let mut broken = Vec::new();
    let mut seen = 0;
    for (scheme, cache) in schemes.chain(caches.map(|cache| (Scheme::Bf16, cache))) {
        let weights = WeightSource::Random { seed: 1 };
        let options = Options { scheme, cache, weights, ..Options::new(target.clone()) };
        let start = Instant::now();
        let done = pipeline::kernels(&checkpoint, &options, |kernels| {
            Ok(assembled(kernels, &target, &ptxas, &nvdisasm))
        });
        let what = format!("{size} {scheme} for {target}, cache {cache}");
        match done {
            // As long as the target has no kernels for it.
            Err(error) if matches!(error.code(), "SC0307" | "SC0310") => {
                eprintln!("{what}: {error}")
            }
            Err(error) => return Err(failed(report(error.as_ref()))),
            Ok(all) => {
                let (all, seconds) = all?;
                let taken = start.elapsed().as_secs_f64();
                eprintln!(
                    "{what}: {} kernels, planned and printed as PTX and assembled in {taken:.1} s (ptxas {seconds:.1} s), \
                     most registers {}",
                    all.len(),
                    all.iter().map(|one| one.usage.registers).max().unwrap_or_default(),
                );
                seen += 1;
                if all.len() >= MOST_KERNELS {
                    broken.push(format!("{what}: {} kernels", all.len()));
                }
                if taken > MOST_SECONDS {
                    broken.push(format!("{what}: {taken:.1} s"));
                }
                let told = all.iter().flat_map(|one| gates::broken(one, &target));
                broken.extend(told.map(|text| format!("{what}: {text}")));
                broken.extend(gates::missing(&all, &target).map(|text| format!("{what}: {text}")));
            }
        }
    }
    assert!(seen >= 2, "bf16 and int8 have kernels on every CUDA target");
    if broken.is_empty() { Ok(()) } else { Err(failed(broken.join("\n"))) }
}

/// What the assembler makes of the kernels, and the seconds it took.
fn assembled(
    kernels: &[&dyn Kernel],
    target: &Target,
    ptxas: &Path,
    nvdisasm: &Path,
) -> Result<(Vec<Assembled>, f64), Outcome> {
    let text = ptx::ptx(kernels, target, 2).map_err(told)?.text;
    let architecture = target.ptx_architecture().expect("it is a CUDA target");
    let start = Instant::now();
    let cubin = ptxas::assemble(ptxas, &text, architecture).map_err(failed)?;
    let seconds = start.elapsed().as_secs_f64();
    if !cubin.warnings.is_empty() {
        return Err(failed(cubin.warnings.join("\n")));
    }
    let mut code = disassembled::functions(nvdisasm, &cubin.bytes)?;
    let all = kernels.iter().map(|kernel| {
        let how = ptx::launch(*kernel).expect("a kernel of a CUDA target");
        let usage = cubin.usage.iter().find(|usage| usage.entry == how.entry);
        let missing = || failed(format!("no machine code for `{}`", how.entry));
        Ok(Assembled {
            usage: usage.ok_or_else(missing)?.clone(),
            block: kernel.thread_block().expect("a kernel of a CUDA target"),
            ptx: sail_ptxsim::alone(&text, &how.entry).map_err(failed)?,
            code: code.remove(&how.entry).ok_or_else(missing)?,
        })
    });
    Ok((all.collect::<Result<_, Outcome>>()?, seconds))
}
