//! Products with what stands around them: of a decoder layer, the head, an image tile, the experts.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use sail_bench::{drawn, images, time, tokens};
use sail_ir::Scheme;
use sail_ir::plan::Count;
use sail_kernels::emit::run::{host, i32_bytes, poisoned};
use sail_kernels::experts::{Grouped, GroupedProblem, GroupedProduct};
use sail_kernels::linear::{
    Activation, Epilogue, GateUpSilu, GateUpSiluProblem, Linear, LinearProblem, Prologue,
};
use sail_kernels::packing::{Join, Panels};
use sail_kernels::vision::{PatchEmbed, PatchEmbedProblem};
use sail_kernels::{Kernel, Rows};

const NORM: Prologue = Prologue::RmsNorm { eps: 1e-6 };
const RESIDUAL: Epilogue = Epilogue { residual: true, ..Epilogue::NONE };
const VIT: Rows = Rows { count: Count::Images, per: 1_024 };

/// One token, and a prompt.
const CALLS: [u32; 2] = [1, 512];

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("products");
    group.sample_size(10);
    // Of the 2B model: q, k and v; the output of attention; the way back of the feed-forward.
    linear(&mut group, (4_096, 2_048), Rows::TOKENS, NORM, Epilogue::NONE);
    linear(&mut group, (2_048, 2_048), Rows::TOKENS, Prologue::Direct, RESIDUAL);
    linear(&mut group, (2_048, 6_144), Rows::TOKENS, Prologue::Direct, RESIDUAL);
    gate_up(&mut group, (6_144, 2_048), Rows::TOKENS);
    // Of the 8B model.
    linear(&mut group, (4_096, 12_288), Rows::TOKENS, Prologue::Direct, RESIDUAL);
    gate_up(&mut group, (12_288, 4_096), Rows::TOKENS);
    // The head, for one token only.
    let outputs = Rows { count: Count::Outputs, per: 1 };
    linear(&mut group, (151_936, 2_048), outputs, NORM, Epilogue::NONE);
    // The vision tower and the adapter.
    linear(&mut group, (4_608, 1_536), VIT, NORM, Epilogue::NONE);
    linear(&mut group, (1_536, 4_096), VIT, Prologue::Direct, RESIDUAL);
    gate_up(&mut group, (4_096, 1_536), VIT);
    let features = Rows { count: Count::Images, per: 256 };
    let gelu = Epilogue { bias: true, activation: Activation::Gelu, residual: false };
    let shuffled = Prologue::ShuffleLayerNorm { grid: 32, eps: 1e-5 };
    linear(&mut group, (2_048, 6_144), features, shuffled, gelu);
    patches(&mut group);
    grouped(&mut group, Grouped::GateUpSilu, (768, 2_048));
    grouped(&mut group, Grouped::Linear, (2_048, 768));
    group.finish();
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn linear(
    group: &mut Group<'_>,
    (n, k): (u32, u32),
    rows: Rows,
    prologue: Prologue,
    epilogue: Epilogue,
) {
    let problem = LinearProblem { rows, n, k, scheme: Scheme::Bf16, prologue, epilogue };
    let kernel = Linear::new(problem, &host().expect("kernels need at least x86-64-v3"));
    let weight = packed(Join::One, &[n], k);
    call(group, &kernel, rows, &|name, rows| match name {
        "x" => drawn(1, rows * k),
        "weight" => weight.clone(),
        "bias" => drawn(2, n),
        "residual" => drawn(3, rows * n),
        "y" => poisoned(2 * (rows * n) as usize),
        _ => drawn(4, k),
    });
}

fn gate_up(group: &mut Group<'_>, (n, k): (u32, u32), rows: Rows) {
    let problem = GateUpSiluProblem { rows, n, k, scheme: Scheme::Bf16, prologue: NORM };
    let kernel = GateUpSilu::new(problem, &host().expect("kernels need at least x86-64-v3"));
    let weight = packed(Join::Interleave, &[n, n], k);
    call(group, &kernel, rows, &|name, rows| match name {
        "x" => drawn(1, rows * k),
        "weight" => weight.clone(),
        "y" => poisoned(2 * (rows * n) as usize),
        _ => drawn(4, k),
    });
}

/// The first step of the vision tower, one image tile.
fn patches(group: &mut Group<'_>) {
    let (channels, size, patch, n) = (3, 448, 14, 1_536);
    let k = channels * patch * patch;
    let problem = PatchEmbedProblem { channels, size, patch, n, eps: 1e-5, scheme: Scheme::Bf16 };
    let kernel = PatchEmbed::new(problem, &host().expect("kernels need at least x86-64-v3"));
    let weight = packed(Join::One, &[n], k);
    call(group, &kernel, VIT, &|name, rows| match name {
        "pixels" => drawn(1, channels * size * size),
        "weight" => weight.clone(),
        "positions" => drawn(2, rows * n),
        "y" => poisoned(2 * (rows * n) as usize),
        _ => drawn(3, n),
    });
}

/// 8 of 128 experts for each token, the load as even as it can be.
fn grouped(group: &mut Group<'_>, what: Grouped, (n, k): (u32, u32)) {
    let (experts, top_k) = (128, 8);
    let rows = Rows { count: Count::Tokens, per: top_k };
    let problem = GroupedProblem { what, rows, experts, n, k, scheme: Scheme::Bf16, placed: false };
    let kernel = GroupedProduct::new(problem, &host().expect("kernels need at least x86-64-v3"));
    let weight = match what {
        Grouped::GateUpSilu => packed(Join::StackInterleave, &vec![n; 2 * experts as usize], k),
        Grouped::Linear => packed(Join::Stack, &vec![n; experts as usize], k),
    };
    call(group, &kernel, rows, &|name, rows| match name {
        "x" => drawn(1, rows * k),
        "order" => i32_bytes(&(0..rows as i32).collect::<Vec<_>>()),
        "starts" => {
            let starts = (0..=experts).map(|expert| (expert * rows / experts) as i32);
            i32_bytes(&starts.collect::<Vec<_>>())
        }
        "weight" => weight.clone(),
        _ => poisoned(2 * (rows * n) as usize),
    });
}

/// Time the calls of a kernel whose rows are `rows`; `buffer` makes an argument for so many rows.
fn call(
    group: &mut Group<'_>,
    kernel: &dyn Kernel,
    rows: Rows,
    buffer: &dyn Fn(&str, u32) -> Vec<u8>,
) {
    let calls = match rows.count {
        Count::Tokens => CALLS.as_slice(),
        Count::Images | Count::Outputs => &[1],
    };
    for &count in calls {
        let counts = match rows.count {
            Count::Images => images(count),
            Count::Tokens | Count::Outputs => {
                sail_kernels::emit::run::Counts { outputs: count, ..tokens(count) }
            }
        };
        let names = kernel.arguments().iter();
        let buffers: Vec<Vec<u8>> = names.map(|name| buffer(name, count * rows.per)).collect();
        time(group, kernel, counts, 0, &buffers);
    }
}

/// Values of the size of a packed weight; which value stands where is all one to the clock.
fn packed(join: Join, rows: &[u32], k: u32) -> Vec<u8> {
    let width = host().expect("kernels need at least x86-64-v3").limits().panel_width;
    let rows: Vec<u64> = rows.iter().map(|rows| u64::from(*rows)).collect();
    let panels = Panels::new(join, &rows, width).expect("paths that can be joined");
    let bytes = panels.bytes(Scheme::Bf16, k.into()) as usize;
    drawn(5, 1 << 20).into_iter().cycle().take(bytes).collect()
}
