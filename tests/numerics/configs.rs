//! However the code of a kernel is shaped, it gives the same bytes.

use std::collections::BTreeSet;

use sail_ir::plan::Count;
use sail_ir::scheme::{CacheScheme, Scheme};
use sail_ir::target::Target;
use sail_kernels::attention::{Attention, PageLayout, TileAttention};
use sail_kernels::emit::run::{Counts, Loaded, targets_here};
use sail_kernels::emit::sample;
use sail_kernels::experts::{Grouped, GroupedProblem, GroupedProduct, LinearRoute, Route};
use sail_kernels::linear::{
    Activation, Epilogue, GateUpSilu, GateUpSiluProblem, Linear, LinearProblem, Prologue,
};
use sail_kernels::vision::{PatchEmbed, PatchEmbedProblem};
use sail_kernels::{Config, Operand, Parameter, Rows, Shaped, llvm_ir};
use sail_tests::harness::Test;

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for scheme in Scheme::EVERYWHERE {
        tests
            .push(Test::new(format!("every config of a {scheme} product gives the same bytes"), {
                move || products(scheme)
            }));
    }
    tests.push(Test::new("every config of a router gives the same bytes", router));
    tests.push(Test::new("every config of patch_embed gives the same bytes", patch_embed));
    tests.push(Test::new("every config of attention gives the same bytes", attention));
    tests.push(Test::new("parameters of a product change its code", differs));
    tests
}

const EPS: f64 = 1e-6;

fn lowest_and_best() -> Vec<Target> {
    let mut targets = targets_here();
    targets.drain(1..targets.len().saturating_sub(1).max(1));
    targets
}

/// Panels at which a run of 16 and one of 32 differ, and a width that is no whole number of them.
fn odd_linear(scheme: Scheme, target: &Target) -> Linear {
    let problem = LinearProblem {
        rows: Rows::TOKENS,
        n: 20 * target.limits().panel_width + 5,
        k: 131,
        scheme,
        prologue: Prologue::RmsNorm { eps: EPS },
        epilogue: Epilogue { bias: true, activation: Activation::None, residual: true },
    };
    Linear::new(problem, target)
}

fn products(scheme: Scheme) {
    let (lowest, best) = (targets_here().into_iter().next(), targets_here().pop());
    for target in lowest_and_best() {
        let linear = odd_linear(scheme, &target);
        let all = best.as_ref() == Some(&target);
        let configs = if all { linear.configs() } else { one_by_one(&linear) };
        same_bytes(&linear, &target, &[1, 7, 133], &configs);
        let (n, k) = (67, 35);
        let (rows, prologue) = (Rows::TOKENS, Prologue::Direct);
        let problem = GateUpSiluProblem { rows, n, k, scheme, prologue };
        let kernel = GateUpSilu::new(problem, &target);
        same_bytes(&kernel, &target, &[3, 30], &one_by_one(&kernel));
        for what in [Grouped::GateUpSilu, Grouped::Linear] {
            if (what == Grouped::Linear) != (best.as_ref() == Some(&target)) && best != lowest {
                continue; // each on one of the two: what differs between them is not the loops
            }
            let rows = Rows { per: 2, ..Rows::TOKENS };
            let problem = GroupedProblem { what, rows, experts: 3, n, k, scheme, placed: true };
            let kernel = GroupedProduct::new(problem, &target).for_load(400);
            same_bytes(&kernel, &target, &[1, 150], &one_by_one(&kernel));
        }
    }
}

fn router() {
    for target in lowest_and_best() {
        let route = Route { experts: 40, top_k: 3, renormalize: true };
        let kernel = LinearRoute::new(51, route, &target);
        same_bytes(&kernel, &target, &[1, 61], &one_by_one(&kernel));
    }
}

fn patch_embed() {
    for target in lowest_and_best() {
        let (channels, size, patch, n) = (3, 36, 4, 41);
        let scheme = Scheme::Bf16;
        let problem = PatchEmbedProblem { channels, size, patch, n, eps: EPS, scheme };
        let kernel = PatchEmbed::new(problem, &target);
        same_bytes(&kernel, &target, &[1, 2], &one_by_one(&kernel));
    }
}

fn attention() {
    for target in lowest_and_best() {
        for scheme in [CacheScheme::Bf16, CacheScheme::Int8] {
            let kernel = Attention::new(6, 2, PageLayout { head_dim: 20, scheme });
            same_bytes(&kernel, &target, &[1, 5, 70], &kernel.configs());
        }
        let kernel = TileAttention::new(131, 2, 12);
        same_bytes(&kernel, &target, &[1, 2], &kernel.configs());
    }
}

/// All values of each parameter beside the rule's choice of the others.
fn one_by_one(kernel: &dyn Shaped) -> Vec<Config> {
    let own = kernel.config();
    let of = |parameter: Parameter| {
        let own = &own;
        parameter.values.into_iter().map(move |value| own.with(parameter.name, value))
    };
    kernel.space().into_iter().flat_map(of).collect()
}

/// # Panics
///
/// When an output depends on which of `configs` it is, or on how items are cut into calls.
fn same_bytes(kernel: &dyn Shaped, target: &Target, counts: &[u32], configs: &[Config]) {
    let own = kernel.config();
    assert!(configs.len() > 1 && configs.contains(&own), "{}", kernel.symbol());
    let outputs = |config: &Config| -> Vec<Vec<u8>> {
        let shaped = kernel.with(config);
        assert_eq!(shaped.shaped().expect("it was shaped").config(), *config);
        let loaded = Loaded::new(shaped.as_ref(), target);
        counts.iter().flat_map(|count| run(kernel, &loaded, target, *count)).collect()
    };
    let want = outputs(&own);
    // What differs in the grid's `run` alone is the same code.
    let text = |config: &Config| llvm_ir(kernel.with(config).as_ref(), target).expect("it fits");
    let mut seen = BTreeSet::from([text(&own)]);
    for config in configs.iter().filter(|config| seen.insert(text(config))) {
        assert!(outputs(config) == want, "{target} `{}` {config}", kernel.symbol());
    }
}

/// What the kernel writes for `count` counted rows, in one call and in several.
fn run(kernel: &dyn Shaped, loaded: &Loaded, target: &Target, count: u32) -> Vec<Vec<u8>> {
    let operands = kernel.operands(count);
    let width = target.limits().panel_width;
    let before: Vec<Vec<u8>> = operands
        .iter()
        .zip(1..)
        .map(|(operand, seed)| sample::bytes(operand, width, seed))
        .collect();
    let none = Counts { pages_per_slot: kernel.pages_per_slot(), ..Counts::default() };
    let counts = match kernel.grid().count {
        Count::Images => Counts { images: count, ..none },
        Count::Tokens | Count::Outputs => Counts { tokens: count, outputs: count, ..none },
    };
    let written = |parts: u64| {
        let mut after = before.clone();
        let mut slices: Vec<&mut [u8]> = after.iter_mut().map(Vec::as_mut_slice).collect();
        loaded.run_split(counts, &mut slices, parts);
        let outputs = after.into_iter().zip(&operands);
        let outputs = outputs.filter(|(_, operand)| matches!(operand, Operand::Output(_)));
        outputs.map(|(bytes, _)| bytes).collect::<Vec<_>>()
    };
    let whole = written(1);
    assert!(whole == written(3), "`{}`: other bytes in three calls", kernel.symbol());
    whole
}

/// What makes no code differ is no choice.
fn differs() {
    let target = Target::parse("x86-64-v4+avx512vnni+avx512bf16").expect("a level of ours");
    let kernel = odd_linear(Scheme::Bf16, &target);
    let own = kernel.config();
    let text = |config: &Config| {
        let shaped = kernel.with(config);
        (llvm_ir(shaped.as_ref(), &target).expect("it fits"), shaped.grid())
    };
    for Parameter { name, values } in kernel.space() {
        assert!(values.len() > 1, "{name} has no choice here");
        for value in values.into_iter().filter(|value| *value != own.get(name)) {
            assert!(text(&own) != text(&own.with(name, value)), "{name}={value} changes nothing");
        }
    }
}
