//! Every product of the shipped models and ugly sizes, judged by ptxas where it is found.

use std::collections::BTreeSet;

use sail_ir::plan::Count;
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::few::Few;
use super::finish::Finish;
use super::{Sizes, few_rows};
use crate::emit::gpu::simulate::{Simulated, others};
use crate::emit::run::{Counts, bf16_bytes, bf16_values, poisoned, random};
use crate::gpu_model::Way as _;
use crate::gpu_model::product::ByRule;
use crate::kernel::{Before, Kernel, Rows};
use crate::linear::{
    Activation, Epilogue, GateUpSilu, GateUpSiluProblem, Linear, LinearProblem, Prologue,
};
use crate::packing::{Join, rows};
use crate::ptxas::tests::assemble_all;
use crate::reference::{self, Rounding};
use crate::table::template;

const PATCHES: Rows = Rows { count: Count::Images, per: 1024 };

fn linear([n, k]: [u32; 2], rows: Rows, scheme: Scheme, epilogue: Epilogue) -> Box<dyn Kernel> {
    normed([n, k], rows, scheme, Prologue::Direct, epilogue)
}

fn normed(
    [n, k]: [u32; 2],
    rows: Rows,
    scheme: Scheme,
    prologue: Prologue,
    epilogue: Epilogue,
) -> Box<dyn Kernel> {
    let target = Target::parse("x86-64-v3").unwrap();
    Box::new(Linear::new(LinearProblem { rows, n, k, scheme, prologue, epilogue }, &target))
}

fn gated([n, k]: [u32; 2], rows: Rows, scheme: Scheme) -> Box<dyn Kernel> {
    let target = Target::parse("x86-64-v3").unwrap();
    let prologue = Prologue::Direct;
    Box::new(GateUpSilu::new(GateUpSiluProblem { rows, n, k, scheme, prologue }, &target))
}

fn problems(scheme: Scheme) -> Vec<Box<dyn Kernel>> {
    let none = Epilogue::NONE;
    let bias = Epilogue { bias: true, ..none };
    let gelu = Epilogue { bias: true, activation: Activation::Gelu, residual: false };
    let residual = Epilogue { residual: true, ..none };
    let rows = Rows::TOKENS;
    vec![
        linear([4608, 1536], PATCHES, scheme, none),
        linear([1536, 588], PATCHES, scheme, bias),
        linear([2048, 6144], rows, scheme, gelu),
        linear([2048, 2048], rows, scheme, residual),
        linear([151_936, 2048], Rows { count: Count::Outputs, per: 1 }, scheme, none),
        linear([33, 70], rows, scheme, residual),
        linear([7, 7], rows, scheme, gelu),
        gated([6144, 2048], rows, scheme),
        gated([4096, 1536], PATCHES, scheme),
        gated([11, 70], rows, scheme),
    ]
}

/// The CUDA targets that have `scheme`.
fn targets(scheme: Scheme) -> impl Iterator<Item = Target> {
    let targets = ["sm_80", "sm_90"].map(|name| Target::parse(name).unwrap());
    targets.into_iter().filter(move |target| scheme.missing_on(target).is_none())
}

/// Assemble the kernels that `problems` of a scheme get for at most `most_rows` rows.
fn assemble(scheme: Scheme, problems: &[Box<dyn Kernel>], most_rows: u32, most_registers: u32) {
    for target in targets(scheme) {
        let kernels: Vec<_> = problems
            .iter()
            .map(|problem| problem.on_gpu_for(&target, most_rows).expect("it has code"))
            .collect();
        let text = assemble_all(&target, &kernels, most_registers);
        assert!(!text.contains("call"), "a kernel calls a library");
    }
}

#[test]
fn products_of_many_rows_assemble_without_spills() {
    for scheme in Scheme::ALL {
        assemble(scheme, &problems(scheme), 8192, 168);
    }
}

#[test]
fn products_of_few_rows_assemble_without_spills() {
    let norm = Prologue::RmsNorm { eps: 1e-6 };
    for scheme in Scheme::ALL {
        let mut problems = problems(scheme);
        // Their patches are never few.
        problems.retain(|problem| !problem.symbol().contains("images"));
        for [n, k] in [[4096, 2048], [33, 70], [24_576, 4096]] {
            problems.push(normed([n, k], Rows::TOKENS, scheme, norm, Epilogue::NONE));
        }
        for most_rows in [1, 16, 32] {
            assemble(scheme, &problems, most_rows, 255);
        }
    }
}

/// bf16 numbers in `-scale .. scale`: the bytes and the values.
fn drawn(seed: u64, count: usize, scale: f32) -> (Vec<u8>, Vec<f64>) {
    let values: Vec<f32> = random(seed, count).iter().map(|v| v * scale).collect();
    let bytes = bf16_bytes(&values);
    let values = bf16_values(&bytes).into_iter().map(f64::from).collect();
    (bytes, values)
}

fn taken(scheme: Scheme, x: Vec<f64>, k: usize) -> Vec<f64> {
    match scheme {
        Scheme::Fp8 => reference::float8_rows(&x, k),
        scheme if scheme.quantizes_activations() => reference::quantized_rows(&x, k),
        _ => x,
    }
}

/// Hold the kernel for at most `most_rows` rows against the twin, at `rows` rows.
fn check_linear(
    sizes: [u32; 2],
    scheme: Scheme,
    around: (Prologue, Epilogue),
    (rows, most_rows): (usize, u32),
) {
    let (buffers, want) = linear_case(sizes, scheme, around, rows);
    let problem = normed(sizes, Rows::TOKENS, scheme, around.0, around.1);
    check(scheme, problem.as_ref(), &buffers, &want, (rows, most_rows));
}

/// Arguments of a `linear`, and what its twin makes of them.
pub(super) fn linear_case(
    sizes: [u32; 2],
    scheme: Scheme,
    (prologue, epilogue): (Prologue, Epilogue),
    rows: usize,
) -> (Vec<Vec<u8>>, Vec<f64>) {
    let [n, k] = sizes.map(|size| size as usize);
    let (x, x_values) = drawn(1, rows * k, 1.0);
    let (norm, norm_values) = drawn(2, k, 1.0);
    let (weight, _) = drawn(3, n * k, 1.0 / (k as f32).sqrt());
    let (bias, bias_values) = drawn(4, n, 1.0);
    let (residual, residual_values) = drawn(5, rows * n, 1.0);
    let packed = rows::pack_whole(scheme, Join::One, &[(&weight, n as u64)], k);
    let values = rows::unpack_whole(scheme, Join::One, (&packed, &[n as u64]), k).remove(0);

    let mut buffers = vec![x];
    let mut h = x_values;
    if let Prologue::RmsNorm { eps } = prologue {
        buffers.push(norm);
        h = reference::rms_norm(&h, &norm_values, eps, Rounding::Bf16);
    }
    let h = taken(scheme, h, k);
    buffers.push(packed);
    let mut want = reference::linear(&h, &values, k, Rounding::Exact);
    if epilogue.bias {
        buffers.push(bias);
        want = reference::linear_bias(&h, &values, &bias_values, Rounding::Exact);
    }
    if epilogue.activation == Activation::Gelu {
        want = reference::gelu(&want, Rounding::Exact);
    }
    if epilogue.residual {
        buffers.push(residual);
        want = reference::add(&want, &residual_values, Rounding::Exact);
    }
    let want: Vec<f64> = want.into_iter().map(|value| Rounding::Bf16.round(value)).collect();
    buffers.push(poisoned(2 * want.len()));
    (buffers, want)
}

fn check_gated(
    sizes: [u32; 2],
    scheme: Scheme,
    prologue: Prologue,
    (rows, most_rows): (usize, u32),
) {
    let (buffers, want) = gated_case(sizes, scheme, prologue, rows);
    let target = Target::parse("x86-64-v3").unwrap();
    let [n, k] = sizes;
    let problem = GateUpSiluProblem { rows: Rows::TOKENS, n, k, scheme, prologue };
    check(scheme, &GateUpSilu::new(problem, &target), &buffers, &want, (rows, most_rows));
}

/// Arguments of a `gate_up_silu`, and what its twin makes of them.
pub(super) fn gated_case(
    sizes: [u32; 2],
    scheme: Scheme,
    prologue: Prologue,
    rows: usize,
) -> (Vec<Vec<u8>>, Vec<f64>) {
    let [n, k] = sizes.map(|size| size as usize);
    let (x, mut h) = drawn(1, rows * k, 1.0);
    let (norm, norm_values) = drawn(2, k, 1.0);
    let [gate, up] = [3, 4].map(|seed| drawn(seed, n * k, 2.0 / (k as f32).sqrt()).0);
    let paths = [(&gate[..], n as u64), (&up[..], n as u64)];
    let packed = rows::pack_whole(scheme, Join::Interleave, &paths, k);
    let values = rows::unpack_whole(scheme, Join::Interleave, (&packed, &[n as u64, n as u64]), k);
    let mut buffers = vec![x];
    if let Prologue::RmsNorm { eps } = prologue {
        buffers.push(norm);
        h = reference::rms_norm(&h, &norm_values, eps, Rounding::Bf16);
    }
    let h = taken(scheme, h, k);
    let want = reference::gate_up_silu(&h, [&values[0], &values[1]], k, Rounding::Bf16);
    buffers.extend([packed, poisoned(2 * want.len())]);
    (buffers, want)
}

fn check(
    scheme: Scheme,
    problem: &dyn Kernel,
    buffers: &[Vec<u8>],
    want: &[f64],
    (rows, most_rows): (usize, u32),
) {
    for target in targets(scheme) {
        let kernel = problem.on_gpu_for(&target, most_rows).expect("it has code");
        check_on(&target, kernel.as_ref(), buffers, want, rows);
    }
}

pub(super) fn check_on(
    target: &Target,
    kernel: &dyn Kernel,
    buffers: &[Vec<u8>],
    want: &[f64],
    rows: usize,
) {
    let got = bf16_values(&ran(target, kernel, buffers, rows));
    let row = template(kernel.family()).expect("every template has a row");
    let beyond = row.tolerance.first_beyond(&got, want);
    assert_eq!(beyond, None, "{target}, {rows} rows, `{}`: (index, got, want)", kernel.symbol());
}

/// What the kernel gives, after what must run before it.
fn ran(target: &Target, kernel: &dyn Kernel, buffers: &[Vec<u8>], rows: usize) -> Vec<u8> {
    let counts = Counts { tokens: rows as u32, ..Counts::default() };
    let buffers = taken_by(target, kernel, buffers, rows);
    let after = Simulated::new(kernel, target).run(counts, &buffers);
    after.last().unwrap().clone()
}

/// The arguments as the kernel itself takes them, after what makes its rows.
pub(super) fn taken_by(
    target: &Target,
    kernel: &dyn Kernel,
    buffers: &[Vec<u8>],
    rows: usize,
) -> Vec<Vec<u8>> {
    let counts = Counts { tokens: rows as u32, ..Counts::default() };
    let mut buffers = buffers.to_vec();
    if let Some(Before { kernel, takes, row_bytes }) = kernel.before() {
        let mut given: Vec<_> = takes.iter().map(|at| buffers[*at as usize].clone()).collect();
        given.push(vec![0xff; rows * row_bytes as usize]);
        let made = Simulated::new(kernel.as_ref(), target).run(counts, &given);
        buffers[takes[0] as usize] = made.last().unwrap().clone();
    }
    buffers
}

pub(super) const PLAIN: (Prologue, Epilogue) = (Prologue::Direct, Epilogue::NONE);

#[test]
fn products_of_many_rows_are_their_twins() {
    let norm = Prologue::RmsNorm { eps: 1e-6 };
    let gelu = Epilogue { bias: true, activation: Activation::Gelu, residual: false };
    let residual = Epilogue { residual: true, ..Epilogue::NONE };
    for (rows, sizes, around) in [
        (1, [64, 64], PLAIN),
        (130, [144, 256], PLAIN),
        (65, [40, 72], (norm, residual)),
        (200, [48, 136], PLAIN),
        (17, [33, 70], (Prologue::Direct, gelu)),
        (66, [70, 36], (Prologue::Direct, gelu)),
        (3, [7, 7], (Prologue::Direct, residual)),
        (2, [1, 1], PLAIN),
    ] {
        for scheme in Scheme::ALL {
            check_linear(sizes, scheme, around, (rows, 4096));
        }
    }
    for scheme in Scheme::ALL {
        check_gated([64, 128], scheme, norm, (70, 4096));
        check_gated([23, 19], scheme, Prologue::Direct, (5, 4096));
    }
}

#[test]
fn products_of_few_rows_are_their_twins() {
    let norm = Prologue::RmsNorm { eps: 1e-6 };
    let gelu = Epilogue { bias: true, activation: Activation::Gelu, residual: false };
    let residual = Epilogue { residual: true, ..Epilogue::NONE };
    for scheme in Scheme::ALL {
        for (rows, most, sizes, around) in [
            (1, 1, [64, 256], PLAIN),
            (7, 8, [144, 2048], (norm, residual)),
            (8, 8, [40, 1096], (norm, gelu)),
            (13, 16, [33, 70], (Prologue::Direct, residual)),
            (30, 32, [64, 512], (norm, Epilogue::NONE)),
            (3, 8, [7, 7], (norm, residual)),
            (2, 2, [1, 1], PLAIN),
        ] {
            check_linear(sizes, scheme, around, (rows, most));
        }
        for (rows, sizes, prologue) in
            [(5, [64, 640], Prologue::Direct), (1, [23, 19], norm), (8, [16, 256], norm)]
        {
            check_gated(sizes, scheme, prologue, (rows, 8));
        }
    }
}

#[test]
fn blocks_of_few_rows_take_runs_in_turn() {
    let around = (Prologue::RmsNorm { eps: 1e-6 }, Epilogue { residual: true, ..Epilogue::NONE });
    let (prologue, epilogue) = around;
    // Eleven runs of weight rows among four blocks; by ones, and by pairs without the last.
    for (n, runs) in [(176, 1), (160, 2)] {
        let sizes = [n, 264];
        for scheme in Scheme::ALL {
            for rows in [1, 12] {
                let (buffers, want) = linear_case(sizes, scheme, around, rows);
                let target = Target::parse("sm_90").unwrap();
                let problem =
                    LinearProblem { rows: Rows::TOKENS, n, k: 264, scheme, prologue, epilogue };
                let finish = Finish::Each(epilogue);
                let sizes =
                    Sizes { rows: Rows::TOKENS, n, k: 264, scheme, prologue, finish, weights: 1 };
                let Some(ByRule::Rows(way)) = ByRule::of(&sizes, rows as u32, &target) else {
                    panic!("they are few");
                };
                let few = way.few(&way.config());
                let problem = Linear::new(problem, &target);
                let kernel = few_rows(&problem, sizes, Few { blocks: 4, runs, ..few });
                check_on(&target, &kernel, &buffers, &want, rows);
            }
        }
    }
}

#[test]
fn no_config_changes_a_byte_but_by_the_order_of_a_sum() {
    let around = (Prologue::RmsNorm { eps: 1e-6 }, Epilogue { residual: true, ..Epilogue::NONE });
    let mut seen = BTreeSet::new();
    for scheme in Scheme::ALL {
        for (sizes, rows, most) in
            [([96, 520], 5, 8), ([96, 264], 20, 32), ([2200, 40], 2, 8), ([96, 264], 67, 4096)]
        {
            let (buffers, want) = linear_case(sizes, scheme, around, rows);
            let problem = normed(sizes, Rows::TOKENS, scheme, around.0, around.1);
            for target in targets(scheme) {
                let kernel = problem.on_gpu_for(&target, most).expect("it has code");
                let own = ran(&target, kernel.as_ref(), &buffers, rows);
                for (other, reorders) in others(kernel.as_ref()) {
                    check_on(&target, other.as_ref(), &buffers, &want, rows);
                    let same = ran(&target, other.as_ref(), &buffers, rows) == own;
                    assert!(same || reorders, "{target}: `{}` gives other bytes", other.symbol());
                    seen.insert(other.shaped().unwrap().config().to_string());
                }
            }
        }
    }
    // Ways and their parameters are all there.
    for part in ["warps=4", "runs=2", "share=2", "keeps=0", "columns=256", "stages=3", "tile=128"] {
        assert!(seen.iter().any(|config| config.contains(part)), "{part} in {seen:?}");
    }
}
