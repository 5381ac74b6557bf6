//! Every kernel template against its scalar twin, over one list of cases.

mod approximate;
mod attention;
mod attention_gpu;
mod check;
mod configs;
mod elementwise;
mod expected;
mod experts;
mod fill;
mod norm;
mod pages;
mod products;
mod products_gpu;
mod recorder;
mod router;
mod rows;
mod sample;
mod simulated;
mod tile_attention;
mod vision;

pub use recorder::{record, record_into};
use sail_ir::Scheme;
use sail_kernels::KERNELS;
use sail_kernels::packing::fill::FillWeights;
use sail_kernels::{Kernel as _, Template};
use sail_tests::harness::{Outcome, Test, failed};

pub fn tests() -> Vec<Test> {
    let mut tests = of_kernels();
    tests.push(Test::new("every kernel template of GPUs has a case for a GPU", covered).judging());
    tests
}

fn of_kernels() -> Vec<Test> {
    [
        rows::tests(),
        elementwise::tests(),
        norm::tests(),
        products::tests(),
        products_gpu::tests(),
        vision::tests(),
        attention::tests(),
        attention_gpu::tests(),
        tile_attention::tests(),
        experts::tests(),
        router::tests(),
        sample::tests(),
        fill::tests(),
        configs::tests(),
        expected::tests(),
    ]
    .into_iter()
    .flatten()
    .map(Test::independent)
    .collect()
}

/// What the tests before this one launched small enough to be recorded, against what there is.
fn covered() -> Result<(), Outcome> {
    let kept = recorder::kept();
    let mut missing = Vec::new();
    for target in simulated::gpu_targets() {
        let lacks = |row: &Template| {
            let by_scheme = |scheme: &&Scheme| row.name.ends_with(&format!("_{scheme}"));
            let scheme = Scheme::ALL.iter().find(by_scheme);
            scheme.is_some_and(|scheme| scheme.missing_on(&target).is_some())
        };
        let on_gpus = KERNELS.iter().filter(|row| row.targets.contains(&"nvptx") && !lacks(row));
        let families = on_gpus.map(|row| row.name).chain([FillWeights.family()]);
        let absent =
            families.filter(|name| !kept.contains(&(target.name.clone(), (*name).to_owned())));
        missing.extend(absent.map(|name| format!("no case has `{name}` for {target}")));
    }
    if missing.is_empty() { Ok(()) } else { Err(failed(missing.join("\n"))) }
}
