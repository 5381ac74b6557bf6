//! Products of CUDA targets against their twins, for one row, for few and for many: what `--record-cases`
//! gives a real GPU. Shapes that only their own rules can break are tested beside the kernels.

use sail_ir::scheme::Scheme;
use sail_ir::target::Target;
use sail_kernels::emit::run::{i32_bytes, poisoned};
use sail_kernels::experts::{Grouped, GroupedProblem, GroupedProduct};
use sail_kernels::linear::{
    Activation, Epilogue, GateUpSilu, GateUpSiluProblem, Linear, LinearProblem, Prologue,
};
use sail_kernels::packing::{Join, rows};
use sail_kernels::reference::{self, Rounding};
use sail_kernels::{Kernel, Rows};
use sail_tests::harness::Test;

use super::check::{Buffers, close, drawn, scaled, tokens};
use super::products::{choices, taken};
use super::simulated::{gpu_targets, run_after_before};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("linear of GPUs is as near for one row, few and many", linear),
        Test::new("gate_up_silu of GPUs is as near for one row, few and many", gate_up),
        Test::new("grouped products of GPUs are as near for one token, few and many", grouped),
    ]
}

const NORM: Prologue = Prologue::RmsNorm { eps: 1e-6 };

/// Rows of a call, and most that its class has.
const CALLS: [(usize, u32); 4] = [(1, 1), (7, 8), (20, 32), (140, 4096)];

/// The weight `paths`, each `[n, k]`: packed, and its values as products take them.
fn packed(
    scheme: Scheme,
    join: Join,
    paths: &[&[u8]],
    [n, k]: [usize; 2],
) -> (Vec<u8>, Vec<Vec<f64>>) {
    let whole: Vec<(&[u8], u64)> = paths.iter().map(|path| (*path, n as u64)).collect();
    let bytes = rows::pack_whole(scheme, join, &whole, k);
    let values = rows::unpack_whole(scheme, join, (&bytes, &vec![n as u64; paths.len()]), k);
    (bytes, values)
}

/// `x` and, where there is a norm, its weight: the buffers, and what the product takes of them.
fn read(scheme: Scheme, prologue: Prologue, rows: usize, k: usize) -> (Buffers, Vec<f64>) {
    let (x, mut values) = drawn(1, rows * k);
    let mut buffers = vec![x];
    if let Prologue::RmsNorm { eps } = prologue {
        let (norm, norm_values) = drawn(2, k);
        values = reference::rms_norm(&values, &norm_values, eps, Rounding::Bf16);
        buffers.push(norm);
    }
    (buffers, taken(scheme, &values, k))
}

/// Hold what `problem` has for calls of `most` rows on every CUDA target with `scheme` to `want`.
fn check(
    scheme: Scheme,
    problem: &dyn Kernel,
    mut buffers: Buffers,
    want: &[f64],
    (rows, most): (usize, u32),
) {
    buffers.push(poisoned(2 * want.len()));
    let targets = gpu_targets();
    for target in targets.into_iter().filter(|target| scheme.missing_on(target).is_none()) {
        let kernel = problem.on_gpu_for(&target, most).expect("products are for GPUs, too");
        let after = run_after_before(kernel.as_ref(), &target, tokens(rows), &buffers);
        close(kernel.as_ref(), &target, after.last().expect("an output"), want);
    }
}

/// Where the shape for x86-64, which does not matter here, comes from.
fn host() -> Target {
    Target::parse("x86-64-v3").expect("a target of ours")
}

fn linear() {
    let gelu = Epilogue { bias: true, activation: Activation::Gelu, residual: false };
    let residual = Epilogue { residual: true, ..Epilogue::NONE };
    for scheme in Scheme::ALL {
        for (n, k, prologue, epilogue) in
            [(150, 328, Prologue::Direct, gelu), (96, 520, NORM, residual)]
        {
            let problem = LinearProblem {
                rows: Rows::TOKENS,
                n: n as u32,
                k: k as u32,
                scheme,
                prologue,
                epilogue,
            };
            let problem = Linear::new(problem, &host());
            let weight = scaled(3, n * k, 1.0 / (k as f32).sqrt()).0;
            let (weight, values) = packed(scheme, Join::One, &[&weight], [n, k]);
            for call in CALLS {
                let (mut buffers, h) = read(scheme, prologue, call.0, k);
                buffers.push(weight.clone());
                let mut want = reference::linear(&h, &values[0], k, Rounding::Exact);
                if epilogue.bias {
                    let (bias, bias_values) = drawn(4, n);
                    buffers.push(bias);
                    want = reference::linear_bias(&h, &values[0], &bias_values, Rounding::Exact);
                }
                if epilogue.activation == Activation::Gelu {
                    want = reference::gelu(&want, Rounding::Exact);
                }
                if epilogue.residual {
                    let (residual, residual_values) = drawn(5, want.len());
                    buffers.push(residual);
                    want = reference::add(&want, &residual_values, Rounding::Exact);
                }
                let want: Vec<f64> =
                    want.into_iter().map(|value| Rounding::Bf16.round(value)).collect();
                check(scheme, &problem, buffers, &want, call);
            }
        }
    }
}

fn gate_up() {
    for scheme in Scheme::ALL {
        for (n, k, prologue) in [(96, 264, Prologue::Direct), (72, 392, NORM)] {
            let rows = Rows::TOKENS;
            let problem = GateUpSiluProblem { rows, n: n as u32, k: k as u32, scheme, prologue };
            let problem = GateUpSilu::new(problem, &host());
            let paths = [3, 4].map(|seed| scaled(seed, n * k, 2.0 / (k as f32).sqrt()).0);
            let (weight, values) =
                packed(scheme, Join::Interleave, &[&paths[0], &paths[1]], [n, k]);
            for call in CALLS {
                let (mut buffers, h) = read(scheme, prologue, call.0, k);
                buffers.push(weight.clone());
                let both = [&values[0][..], &values[1]];
                let want = reference::gate_up_silu(&h, both, k, Rounding::Bf16);
                check(scheme, &problem, buffers, &want, call);
            }
        }
    }
}

fn grouped() {
    let (experts, top_k) = (6, 2);
    let (n, k) = (70, 120);
    let stacks = [3, 4, 5].map(|seed| scaled(seed, experts * n * k, 1.0 / (k as f32).sqrt()).0);
    let [gates, ups, downs] = stacks.each_ref().map(|stack| stack.chunks_exact(2 * n * k));
    for scheme in Scheme::ALL {
        let both: Vec<&[u8]> = gates.clone().chain(ups.clone()).collect();
        let both = packed(scheme, Join::StackInterleave, &both, [n, k]);
        let one: Vec<&[u8]> = downs.clone().collect();
        let one = packed(scheme, Join::Stack, &one, [n, k]);
        let problem = |what| {
            let rows = Rows { per: top_k as u32, ..Rows::TOKENS };
            let [experts, n, k] = [experts, n, k].map(|size| size as u32);
            let problem = GroupedProblem { what, rows, experts, n, k, scheme, placed: false };
            GroupedProduct::new(problem, &host())
        };
        for call @ (count, _) in CALLS {
            let groups = reference::group_by_expert(&choices(count, top_k, experts), experts);
            let (order, starts) = (i32_bytes(&groups.order), i32_bytes(&groups.starts));
            let [gate, up] = [0, experts].map(|from| both.1[from..from + experts].concat());
            let (mut buffers, x) = read(scheme, Prologue::Direct, count, k);
            let want =
                reference::grouped_gate_up_silu(&x, &groups, [&gate, &up], k, Rounding::Bf16);
            buffers.extend([order, starts.clone(), both.0.clone()]);
            check(scheme, &problem(Grouped::GateUpSilu), buffers, &want, call);

            let (mut buffers, x) = read(scheme, Prologue::Direct, top_k * count, k);
            let down = one.1.concat();
            let want = reference::grouped_linear(&x, &groups.starts, &down, k, Rounding::Bf16);
            buffers.extend([starts, one.0.clone()]);
            check(scheme, &problem(Grouped::Linear), buffers, &want, call);
        }
    }
}
