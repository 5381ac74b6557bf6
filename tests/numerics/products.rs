//! Products, with what comes before and after them, and products of rows sorted by expert.

use sail_ir::plan::Count;
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;
use sail_kernels::Rows;
use sail_kernels::emit::run::{Loaded, i32_bytes, poisoned, random, targets_here};
use sail_kernels::experts::{Grouped, GroupedProblem, GroupedProduct};
use sail_kernels::linear::{
    Activation, Epilogue, GateUpSilu, GateUpSiluProblem, Linear, LinearProblem, Prologue,
};
use sail_kernels::packing::{Join, pack_whole};
use sail_kernels::reference::{self, LayerNorm, Rounding};
use sail_tests::harness::Test;

use super::check::{Buffers, close, drawn, images, run_loaded, scaled, tokens};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("linear takes any width, odd K and any number of rows", widths),
        Test::new("linear of the largest sizes of the shipped models is as near", real_sizes),
        Test::new("linear adds bias, gelu and residual, and norms before", around),
        Test::new("linear shuffles pixels and layer-norms before a product", shuffled),
        Test::new("gate_up_silu multiplies up by silu of gate", gate_up),
        Test::new("grouped products give every expert its own rows", grouped),
    ]
}

const EPS: f64 = 1e-6;

/// The inputs of a `linear`, as bytes and as values.
struct Case {
    n: usize,
    k: usize,
    prologue: Prologue,
    epilogue: Epilogue,
    weight: (Vec<u8>, Vec<f64>),
    norm: (Vec<u8>, Vec<f64>),
    bias: (Vec<u8>, Vec<f64>),
}

impl Case {
    fn new(n: usize, k: usize, prologue: Prologue, epilogue: Epilogue) -> Self {
        Self {
            n,
            k,
            prologue,
            epilogue,
            weight: scaled(2, n * k, 1.0 / (k as f32).sqrt()),
            norm: drawn(3, k),
            bias: drawn(4, n),
        }
    }

    fn kernel(&self, target: &Target) -> Linear {
        let problem = LinearProblem {
            rows: Rows::TOKENS,
            n: self.n as u32,
            k: self.k as u32,
            scheme: Scheme::Bf16,
            prologue: self.prologue,
            epilogue: self.epilogue,
        };
        Linear::new(problem, target)
    }

    /// What the twins give: the sum and all that follows unrounded, one rounding.
    fn want(&self, x: &[f64], residual: &[f64]) -> Vec<f64> {
        let normed;
        let h = match self.prologue {
            Prologue::RmsNorm { eps } => {
                normed = reference::rms_norm(x, &self.norm.1, eps, Rounding::Bf16);
                &normed
            }
            _ => x,
        };
        let mut y = if self.epilogue.bias {
            reference::linear_bias(h, &self.weight.1, &self.bias.1, Rounding::Exact)
        } else {
            reference::linear(h, &self.weight.1, self.k, Rounding::Exact)
        };
        if self.epilogue.activation == Activation::Gelu {
            y = reference::gelu(&y, Rounding::Exact);
        }
        if self.epilogue.residual {
            y = reference::add(&y, residual, Rounding::Exact);
        }
        y.into_iter().map(|value| Rounding::Bf16.round(value)).collect()
    }

    fn check(&self, row_counts: &[usize]) {
        for target in targets_here() {
            let kernel = self.kernel(&target);
            let loaded = Loaded::new(&kernel, &target);
            let width = target.limits().panel_width;
            let paths = [(self.weight.0.as_slice(), self.n as u64)];
            let packed = pack_whole(Join::One, &paths, self.k, width);
            for rows in row_counts {
                let (x, x_values) = drawn(1, rows * self.k);
                let (residual, residual_values) = drawn(5, rows * self.n);
                let mut buffers: Buffers = vec![x];
                if self.prologue != Prologue::Direct {
                    buffers.push(self.norm.0.clone());
                }
                buffers.push(packed.clone());
                if self.epilogue.bias {
                    buffers.push(self.bias.0.clone());
                }
                if self.epilogue.residual {
                    buffers.push(residual);
                }
                let want = self.want(&x_values, &residual_values);
                buffers.push(poisoned(2 * want.len()));
                let after = run_loaded(&kernel, &loaded, tokens(*rows), &buffers);
                close(&kernel, &target, after.last().expect("an output"), &want);
            }
        }
    }
}

fn widths() {
    let case = |n, k| Case::new(n, k, Prologue::Direct, Epilogue::NONE);
    case(64, 48).check(&[1, 2, 3, 5, 11, 12, 13, 23, 31, 256, 257, 530]);
    for (n, k) in [(1, 1), (3, 2), (17, 7), (32, 9), (33, 31), (65, 130), (100, 67)] {
        case(n, k).check(&[1, 7]);
    }
}

fn real_sizes() {
    let norm = Prologue::RmsNorm { eps: EPS };
    Case::new(4096, 2048, norm, Epilogue::NONE).check(&[1, 13]);
    let residual = Epilogue { residual: true, ..Epilogue::NONE };
    Case::new(96, 12288, Prologue::Direct, residual).check(&[3]);
}

fn around() {
    let norm = Prologue::RmsNorm { eps: EPS };
    for (n, k) in [(50, 37), (64, 128)] {
        for bias in [false, true] {
            let plain = Epilogue { bias, ..Epilogue::NONE };
            let gelu = Epilogue { activation: Activation::Gelu, ..plain };
            let all = Epilogue { residual: true, ..gelu };
            Case::new(n, k, norm, plain).check(&[1, 14]);
            Case::new(n, k, Prologue::Direct, gelu).check(&[3]);
            Case::new(n, k, norm, all).check(&[5]);
        }
    }
}

fn shuffled() {
    for (tiles, grid, d, n) in [(1, 2, 8, 16), (2, 4, 24, 40), (1, 6, 5, 33)] {
        let (patches, k) = (grid * grid, 4 * d);
        let (x, x_values) = drawn(1, tiles * patches * d);
        let [(ln_w, ln_w_values), (ln_b, ln_b_values)] = [2, 3].map(|seed| drawn(seed, k));
        let (weight, weight_values) = scaled(4, n * k, 1.0 / (k as f32).sqrt());
        let (bias, bias_values) = drawn(5, n);
        let layer = LayerNorm { weight: &ln_w_values, bias: &ln_b_values, eps: 1e-5 };
        let product = [weight_values.as_slice(), &bias_values];
        let rounding = Rounding::Bf16;
        let want =
            reference::shuffle_norm_linear_gelu(&x_values, patches, &layer, product, rounding);
        let problem = LinearProblem {
            rows: Rows { count: Count::Images, per: (patches / 4) as u32 },
            n: n as u32,
            k: k as u32,
            scheme: Scheme::Bf16,
            prologue: Prologue::ShuffleLayerNorm { eps: 1e-5, grid: grid as u32 },
            epilogue: Epilogue { bias: true, activation: Activation::Gelu, residual: false },
        };
        for target in targets_here() {
            let kernel = Linear::new(problem, &target);
            let width = target.limits().panel_width;
            let packed = pack_whole(Join::One, &[(&weight, n as u64)], k, width);
            let mut buffers = vec![x.clone(), ln_w.clone(), ln_b.clone(), packed, bias.clone()];
            buffers.push(poisoned(2 * want.len()));
            let loaded = Loaded::new(&kernel, &target);
            let after = run_loaded(&kernel, &loaded, images(tiles), &buffers);
            close(&kernel, &target, &after[5], &want);
        }
    }
}

fn gate_up() {
    for (n, k, prologue) in [
        (16, 16, Prologue::Direct),
        (32, 24, Prologue::RmsNorm { eps: EPS }),
        (23, 19, Prologue::Direct),
        (200, 66, Prologue::RmsNorm { eps: EPS }),
        (48, 2048, Prologue::RmsNorm { eps: EPS }),
    ] {
        let [(gate, gate_values), (up, up_values)] =
            [2, 3].map(|seed| scaled(seed, n * k, 2.0 / (k as f32).sqrt()));
        let (norm, norm_values) = drawn(4, k);
        let problem = GateUpSiluProblem {
            rows: Rows::TOKENS,
            n: n as u32,
            k: k as u32,
            scheme: Scheme::Bf16,
            prologue,
        };
        for target in targets_here() {
            let kernel = GateUpSilu::new(problem, &target);
            let loaded = Loaded::new(&kernel, &target);
            let paths = [(gate.as_slice(), n as u64), (up.as_slice(), n as u64)];
            let packed = pack_whole(Join::Interleave, &paths, k, target.limits().panel_width);
            for rows in [1, 7, 13] {
                let (x, mut h) = drawn(1, rows * k);
                let mut buffers = vec![x];
                if let Prologue::RmsNorm { eps } = prologue {
                    buffers.push(norm.clone());
                    h = reference::rms_norm(&h, &norm_values, eps, Rounding::Bf16);
                }
                let want =
                    reference::gate_up_silu(&h, [&gate_values, &up_values], k, Rounding::Bf16);
                buffers.extend([packed.clone(), poisoned(2 * want.len())]);
                let after = run_loaded(&kernel, &loaded, tokens(rows), &buffers);
                close(&kernel, &target, after.last().expect("an output"), &want);
            }
        }
    }
}

/// `[tokens, top_k]` distinct experts a token, every fifth expert never chosen.
fn choices(tokens: usize, top_k: usize, experts: usize) -> Vec<i32> {
    let wishes = random(9, tokens * experts);
    let mut ids = Vec::new();
    for wishes in wishes.chunks_exact(experts) {
        let mut order: Vec<usize> = (0..experts).filter(|id| id % 5 != 3).collect();
        order.sort_by(|a, b| wishes[*a].total_cmp(&wishes[*b]));
        ids.extend(order[..top_k].iter().map(|id| *id as i32));
    }
    ids
}

fn grouped() {
    for (count, top_k, experts, n, k) in
        [(1, 2, 8, 16, 32), (7, 3, 6, 40, 25), (40, 2, 5, 72, 48), (300, 1, 2, 24, 16)]
    {
        let groups = reference::group_by_expert(&choices(count, top_k, experts), experts);
        let (order, starts) = (i32_bytes(&groups.order), i32_bytes(&groups.starts));
        let scale = 1.0 / (k as f32).sqrt();
        let [gate, up, down] = [1, 2, 3].map(|seed| scaled(seed, experts * n * k, scale));
        let problem = |what| GroupedProblem {
            what,
            rows: Rows { per: top_k as u32, ..Rows::TOKENS },
            experts: experts as u32,
            n: n as u32,
            k: k as u32,
            scheme: Scheme::Bf16,
        };
        let parts = |all: [&[u8]; 2], join, target: &Target| {
            let one = all.into_iter().flat_map(|bytes| bytes.chunks_exact(2 * n * k));
            let paths: Vec<(&[u8], u64)> = one.map(|part| (part, n as u64)).collect();
            pack_whole(join, &paths, k, target.limits().panel_width)
        };
        let check = |what, target: &Target, mut buffers: Buffers, want: &[f64]| {
            let kernel = GroupedProduct::new(problem(what), target);
            buffers.push(poisoned(2 * want.len()));
            let loaded = Loaded::new(&kernel, target);
            let after = run_loaded(&kernel, &loaded, tokens(count), &buffers);
            close(&kernel, target, after.last().expect("an output"), want);
        };

        let (x, values) = drawn(4, count * k);
        let both = [gate.1.as_slice(), &up.1];
        let gated = reference::grouped_gate_up_silu(&values, &groups, both, k, Rounding::Bf16);
        let (sorted, values) = drawn(5, count * top_k * k);
        let mixed = reference::grouped_linear(&values, &groups.starts, &down.1, k, Rounding::Bf16);
        for target in targets_here() {
            let packed = parts([&gate.0, &up.0], Join::StackInterleave, &target);
            let buffers = vec![x.clone(), order.clone(), starts.clone(), packed];
            check(Grouped::GateUpSilu, &target, buffers, &gated);
            let packed = parts([&down.0, &[]], Join::Stack, &target);
            check(Grouped::Linear, &target, vec![sorted.clone(), starts.clone(), packed], &mixed);
        }
    }
}
