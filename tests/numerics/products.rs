//! Products, with what comes before and after them, and products of rows sorted by expert.

use sail_ir::plan::Count;
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;
use sail_kernels::Rows;
use sail_kernels::emit::run::{Loaded, bf16_values, i32_bytes, poisoned, random, targets_here};
use sail_kernels::experts::{Grouped, GroupedProblem, GroupedProduct};
use sail_kernels::linear::{
    Activation, Epilogue, GateUpSilu, GateUpSiluProblem, Linear, LinearProblem, Prologue,
};
use sail_kernels::packing::{Join, pack_whole, unpack_whole};
use sail_kernels::reference::{self, LayerNorm, Rounding};
use sail_tests::harness::Test;

use super::check::{Buffers, close, drawn, images, run_loaded, scaled, tokens};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("linear takes any width, odd K and any number of rows", widths),
        Test::new("linear of the largest sizes of the shipped models is as near", real_sizes),
        Test::new("linear of a row of zeros gives zeros", zeros),
        Test::new("linear of a row with a value that is no number gives none", not_a_number),
        Test::new("integer products give the same bytes on every level", same_on_every_level),
        Test::new("linear adds bias, gelu and residual, and norms before", around),
        Test::new("linear shuffles pixels and layer-norms before a product", shuffled),
        Test::new("gate_up_silu multiplies up by silu of gate", gate_up),
        Test::new("grouped products give every expert its own rows", grouped),
        Test::new("grouped products take rows however they are spread over experts", uneven),
        Test::new("grouped products give the same bytes wherever experts are stored", placed),
    ]
}

const EPS: f64 = 1e-6;

/// Rows of `k` values as a product of `scheme` takes them.
pub(super) fn taken(scheme: Scheme, x: &[f64], k: usize) -> Vec<f64> {
    match scheme {
        Scheme::Bf16 | Scheme::Int8Weight => x.to_vec(),
        Scheme::Int8 | Scheme::Int4 => reference::quantized_rows(x, k),
        Scheme::Fp8 => reference::float8_rows(x, k),
    }
}

/// A weight packed for `target`, and the values of its paths as the product takes them.
pub(super) struct Weight {
    pub packed: Vec<u8>,
    pub values: Vec<Vec<f64>>,
}

impl Weight {
    pub fn new(
        scheme: Scheme,
        join: Join,
        paths: &[(&[u8], u64)],
        k: usize,
        target: &Target,
    ) -> Self {
        let width = target.limits().panel_width;
        let packed = pack_whole(scheme, join, paths, k, width);
        let rows: Vec<u64> = paths.iter().map(|(_, rows)| *rows).collect();
        let values = unpack_whole(scheme, join, (&packed, &rows), k, width);
        Self { packed, values }
    }
}

/// The inputs of a `linear`, as bytes and as values.
struct Case {
    scheme: Scheme,
    n: usize,
    k: usize,
    prologue: Prologue,
    epilogue: Epilogue,
    weight: Vec<u8>,
    norm: (Vec<u8>, Vec<f64>),
    bias: (Vec<u8>, Vec<f64>),
}

impl Case {
    fn new(scheme: Scheme, (n, k): (usize, usize), prologue: Prologue, epilogue: Epilogue) -> Self {
        Self {
            scheme,
            n,
            k,
            prologue,
            epilogue,
            weight: scaled(2, n * k, 1.0 / (k as f32).sqrt()).0,
            norm: drawn(3, k),
            bias: drawn(4, n),
        }
    }

    fn kernel(&self, target: &Target) -> Linear {
        let problem = LinearProblem {
            rows: Rows::TOKENS,
            n: self.n as u32,
            k: self.k as u32,
            scheme: self.scheme,
            prologue: self.prologue,
            epilogue: self.epilogue,
        };
        Linear::new(problem, target)
    }

    /// What the twins give: the sum and all that follows unrounded, one rounding.
    fn want(&self, x: &[f64], weight: &[f64], residual: &[f64]) -> Vec<f64> {
        let normed;
        let h = match self.prologue {
            Prologue::RmsNorm { eps } => {
                normed = reference::rms_norm(x, &self.norm.1, eps, Rounding::Bf16);
                &normed
            }
            _ => x,
        };
        let h = taken(self.scheme, h, self.k);
        let mut y = if self.epilogue.bias {
            reference::linear_bias(&h, weight, &self.bias.1, Rounding::Exact)
        } else {
            reference::linear(&h, weight, self.k, Rounding::Exact)
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
            let paths = [(self.weight.as_slice(), self.n as u64)];
            let weight = Weight::new(self.scheme, Join::One, &paths, self.k, &target);
            for rows in row_counts {
                let (x, x_values) = drawn(1, rows * self.k);
                let (residual, residual_values) = drawn(5, rows * self.n);
                let mut buffers: Buffers = vec![x];
                if self.prologue != Prologue::Direct {
                    buffers.push(self.norm.0.clone());
                }
                buffers.push(weight.packed.clone());
                if self.epilogue.bias {
                    buffers.push(self.bias.0.clone());
                }
                if self.epilogue.residual {
                    buffers.push(residual);
                }
                let want = self.want(&x_values, &weight.values[0], &residual_values);
                buffers.push(poisoned(2 * want.len()));
                let after = run_loaded(&kernel, &loaded, tokens(*rows), &buffers);
                close(&kernel, &target, after.last().expect("an output"), &want);
            }
        }
    }
}

fn widths() {
    for scheme in Scheme::EVERYWHERE {
        let case = |n, k| Case::new(scheme, (n, k), Prologue::Direct, Epilogue::NONE);
        case(64, 48).check(&[1, 2, 3, 5, 11, 12, 13, 23, 31, 256, 257, 530]);
        for (n, k) in [(1, 1), (3, 2), (17, 7), (32, 9), (33, 31), (65, 130), (100, 67), (40, 257)]
        {
            case(n, k).check(&[1, 7]);
        }
    }
}

fn real_sizes() {
    for scheme in Scheme::EVERYWHERE {
        let norm = Prologue::RmsNorm { eps: EPS };
        Case::new(scheme, (4096, 2048), norm, Epilogue::NONE).check(&[1, 13]);
        let residual = Epilogue { residual: true, ..Epilogue::NONE };
        Case::new(scheme, (96, 12288), Prologue::Direct, residual).check(&[3]);
    }
}

fn around() {
    let norm = Prologue::RmsNorm { eps: EPS };
    for scheme in Scheme::EVERYWHERE {
        for size in [(50, 37), (64, 128)] {
            for bias in [false, true] {
                let plain = Epilogue { bias, ..Epilogue::NONE };
                let gelu = Epilogue { activation: Activation::Gelu, ..plain };
                let all = Epilogue { residual: true, ..gelu };
                Case::new(scheme, size, norm, plain).check(&[1, 14]);
                Case::new(scheme, size, Prologue::Direct, gelu).check(&[3]);
                Case::new(scheme, size, norm, all).check(&[5]);
            }
        }
    }
}

/// A row of zeros has no greatest value to count steps by.
fn zeros() {
    for scheme in Scheme::EVERYWHERE {
        let (n, k) = (40, 140);
        let case = Case::new(scheme, (n, k), Prologue::Direct, Epilogue::NONE);
        for target in targets_here() {
            let kernel = case.kernel(&target);
            let paths = [(case.weight.as_slice(), n as u64)];
            let weight = Weight::new(scheme, Join::One, &paths, k, &target);
            let (drawn, _) = drawn(1, k);
            let x = [vec![0; 2 * k], drawn].concat();
            let buffers = vec![x, weight.packed, poisoned(4 * n)];
            let after = run_loaded(&kernel, &Loaded::new(&kernel, &target), tokens(2), &buffers);
            assert!(after[2][..2 * n].iter().all(|byte| byte & 0x7f == 0), "{target} {scheme}");
            assert!(after[2][2 * n..].iter().any(|byte| byte & 0x7f != 0), "{target} {scheme}");
        }
    }
}

/// A value that is no number must show in what its row gives, and nowhere else.
fn not_a_number() {
    for scheme in Scheme::EVERYWHERE {
        let (n, k) = (32, 64);
        let case = Case::new(scheme, (n, k), Prologue::Direct, Epilogue::NONE);
        for target in targets_here() {
            let kernel = case.kernel(&target);
            let paths = [(case.weight.as_slice(), n as u64)];
            let weight = Weight::new(scheme, Join::One, &paths, k, &target);
            let (mut x, _) = drawn(1, 2 * k);
            x[6..8].copy_from_slice(&half::bf16::NAN.to_le_bytes());
            let buffers = vec![x, weight.packed, poisoned(4 * n)];
            let after = run_loaded(&kernel, &Loaded::new(&kernel, &target), tokens(2), &buffers);
            let y = bf16_values(&after[2]);
            assert!(y[..n].iter().all(|y| y.is_nan()), "{target} {scheme}: {:?}", &y[..n]);
            assert!(y[n..].iter().all(|y| y.is_finite()), "{target} {scheme}");
        }
    }
}

/// Integers are summed exactly, so every level of the instruction set gives the same bytes.
fn same_on_every_level() {
    for scheme in [Scheme::Int8, Scheme::Int4] {
        let norm = Epilogue { residual: true, ..Epilogue::NONE };
        let case = Case::new(scheme, (96, 300), Prologue::Direct, norm);
        let (x, _) = drawn(1, 9 * case.k);
        let (residual, _) = drawn(5, 9 * case.n);
        let outputs = targets_here().into_iter().map(|target| {
            let kernel = case.kernel(&target);
            let paths = [(case.weight.as_slice(), case.n as u64)];
            let weight = Weight::new(scheme, Join::One, &paths, case.k, &target);
            let output = poisoned(2 * 9 * case.n);
            let buffers = vec![x.clone(), weight.packed, residual.clone(), output];
            let loaded = Loaded::new(&kernel, &target);
            run_loaded(&kernel, &loaded, tokens(9), &buffers).pop().expect("an output")
        });
        let outputs: Vec<Vec<u8>> = outputs.collect();
        assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]), "{scheme}");
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
            let packed = pack_whole(Scheme::Bf16, Join::One, &[(&weight, n as u64)], k, width);
            let mut buffers = vec![x.clone(), ln_w.clone(), ln_b.clone(), packed, bias.clone()];
            buffers.push(poisoned(2 * want.len()));
            let loaded = Loaded::new(&kernel, &target);
            let after = run_loaded(&kernel, &loaded, images(tiles), &buffers);
            close(&kernel, &target, &after[5], &want);
        }
    }
}

fn gate_up() {
    for scheme in Scheme::EVERYWHERE {
        for (n, k, prologue) in [
            (16, 16, Prologue::Direct),
            (32, 24, Prologue::RmsNorm { eps: EPS }),
            (23, 19, Prologue::Direct),
            (200, 66, Prologue::RmsNorm { eps: EPS }),
            (48, 2048, Prologue::RmsNorm { eps: EPS }),
        ] {
            gate_up_of(scheme, (n, k), prologue);
        }
    }
}

fn gate_up_of(scheme: Scheme, (n, k): (usize, usize), prologue: Prologue) {
    let [(gate, _), (up, _)] = [2, 3].map(|seed| scaled(seed, n * k, 2.0 / (k as f32).sqrt()));
    let (norm, norm_values) = drawn(4, k);
    let problem =
        GateUpSiluProblem { rows: Rows::TOKENS, n: n as u32, k: k as u32, scheme, prologue };
    for target in targets_here() {
        let kernel = GateUpSilu::new(problem, &target);
        let loaded = Loaded::new(&kernel, &target);
        let paths = [(gate.as_slice(), n as u64), (up.as_slice(), n as u64)];
        let weight = Weight::new(scheme, Join::Interleave, &paths, k, &target);
        for rows in [1, 7, 13] {
            let (x, mut h) = drawn(1, rows * k);
            let mut buffers = vec![x];
            if let Prologue::RmsNorm { eps } = prologue {
                buffers.push(norm.clone());
                h = reference::rms_norm(&h, &norm_values, eps, Rounding::Bf16);
            }
            let h = taken(scheme, &h, k);
            let both = [weight.values[0].as_slice(), &weight.values[1]];
            let want = reference::gate_up_silu(&h, both, k, Rounding::Bf16);
            buffers.extend([weight.packed.clone(), poisoned(2 * want.len())]);
            let after = run_loaded(&kernel, &loaded, tokens(rows), &buffers);
            close(&kernel, &target, after.last().expect("an output"), &want);
        }
    }
}

/// `[tokens, top_k]` distinct experts a token, every fifth expert never chosen.
pub(super) fn choices(tokens: usize, top_k: usize, experts: usize) -> Vec<i32> {
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
    for scheme in Scheme::EVERYWHERE {
        for (count, top_k, experts, n, k) in
            [(1, 2, 8, 16, 32), (7, 3, 6, 40, 25), (40, 2, 5, 72, 48), (300, 1, 2, 24, 16)]
        {
            let ids = choices(count, top_k as usize, experts as usize);
            grouped_of(&ids, problem((top_k, experts), (n, k), scheme));
        }
    }
}

/// Rows of several runs over the experts, spread in every way: all to one expert and more than are
/// brought in at once, to the last one, to a few, one each, and a few to all.
fn uneven() {
    let (experts, n, k) = (7, 530, 20);
    let one = |expert: i32, count: usize| vec![expert; count];
    let few: Vec<i32> = (0..90).map(|row| [6, 1, 1, 4, 1][row % 5]).collect();
    let each: Vec<i32> = (0..7).rev().collect();
    let rising: Vec<i32> = (0..7).flat_map(|expert| one(expert, 2 * expert as usize)).collect();
    for scheme in Scheme::EVERYWHERE {
        for ids in [one(3, 300), one(6, 1), few.clone(), each.clone(), rising.clone()] {
            grouped_of(&ids, problem((1, experts), (n, k), scheme));
        }
    }
}

/// The order in which experts are stored, and blocks for more rows, change no byte.
fn placed() {
    let (experts, n, k) = (5, 150, 1100);
    let ids: Vec<i32> = (0..700).map(|row| [2, 2, 4, 2, 0, 2, 2][row % 7]).collect();
    let groups = reference::group_by_expert(&ids, experts);
    let (x, _) = drawn(1, ids.len() * k);
    let weight = scaled(2, experts * n * k, 1.0 / (k as f32).sqrt()).0;
    let paths: Vec<(&[u8], u64)> =
        weight.chunks_exact(2 * n * k).map(|part| (part, n as u64)).collect();
    let order = [2, 4, 0, 1, 3];
    for (scheme, target) in Scheme::EVERYWHERE
        .into_iter()
        .flat_map(|scheme| targets_here().into_iter().map(move |target| (scheme, target)))
    {
        let own = pack_whole(scheme, Join::Stack, &paths, k, target.limits().panel_width);
        let parts: Vec<&[u8]> = own.chunks_exact(own.len() / experts).collect();
        let moved = order.map(|expert| parts[expert as usize]).concat();
        let problem = problem((1, experts as u32), (n as u32, k as u32), scheme);
        let y = || poisoned(2 * ids.len() * n);
        let starts = i32_bytes(&groups.starts);
        let plain = GroupedProduct::new(problem, &target);
        let buffers = vec![x.clone(), starts.clone(), own.clone(), y()];
        let want = run_loaded(&plain, &Loaded::new(&plain, &target), tokens(700), &buffers);
        for busiest in [0, 400, 512] {
            let kernel = GroupedProduct::new(GroupedProblem { placed: true, ..problem }, &target);
            let kernel = kernel.for_load(busiest);
            let buffers = vec![x.clone(), starts.clone(), i32_bytes(&order), moved.clone(), y()];
            let got = run_loaded(&kernel, &Loaded::new(&kernel, &target), tokens(700), &buffers);
            assert!(got.last() == want.last(), "{target} {scheme} {busiest}");
        }
    }
}

fn problem((top_k, experts): (u32, u32), (n, k): (u32, u32), scheme: Scheme) -> GroupedProblem {
    let rows = Rows { per: top_k, ..Rows::TOKENS };
    GroupedProblem { what: Grouped::Linear, rows, experts, n, k, scheme, placed: false }
}

/// `ids` are the experts of each row, `top_k` a row.
fn grouped_of(ids: &[i32], problem: GroupedProblem) {
    let GroupedProblem { rows, experts, scheme, .. } = problem;
    let [top_k, experts, n, k] =
        [rows.per, experts, problem.n, problem.k].map(|size| size as usize);
    let count = ids.len() / top_k;
    let groups = reference::group_by_expert(ids, experts);
    let (order, starts) = (i32_bytes(&groups.order), i32_bytes(&groups.starts));
    let scale = 1.0 / (k as f32).sqrt();
    let [gate, up, down] = [1, 2, 3].map(|seed| scaled(seed, experts * n * k, scale).0);
    let weight = |all: [&[u8]; 2], join, target: &Target| {
        let one = all.into_iter().flat_map(|bytes| bytes.chunks_exact(2 * n * k));
        let paths: Vec<(&[u8], u64)> = one.map(|part| (part, n as u64)).collect();
        Weight::new(scheme, join, &paths, k, target)
    };
    let check = |what, target: &Target, mut buffers: Buffers, want: &[f64]| {
        let kernel = GroupedProduct::new(GroupedProblem { what, ..problem }, target);
        buffers.push(poisoned(2 * want.len()));
        let loaded = Loaded::new(&kernel, target);
        let after = run_loaded(&kernel, &loaded, tokens(count), &buffers);
        close(&kernel, target, after.last().expect("an output"), want);
    };
    let (x, x_values) = drawn(4, count * k);
    let x_values = taken(scheme, &x_values, k);
    let (sorted, sorted_values) = drawn(5, count * top_k * k);
    let sorted_values = taken(scheme, &sorted_values, k);
    for target in targets_here() {
        let both = weight([&gate, &up], Join::StackInterleave, &target);
        let [gates, ups] = [0, experts].map(|from| both.values[from..from + experts].concat());
        let rounding = Rounding::Bf16;
        let gated =
            reference::grouped_gate_up_silu(&x_values, &groups, [&gates, &ups], k, rounding);
        let buffers = vec![x.clone(), order.clone(), starts.clone(), both.packed];
        check(Grouped::GateUpSilu, &target, buffers, &gated);

        let one = weight([&down, &[]], Join::Stack, &target);
        let downs = one.values.concat();
        let mixed = reference::grouped_linear(&sorted_values, &groups.starts, &downs, k, rounding);
        let buffers = vec![sorted.clone(), starts.clone(), one.packed];
        check(Grouped::Linear, &target, buffers, &mixed);
    }
}
