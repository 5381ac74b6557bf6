//! Products against their twins, on every target this machine runs.

use sail_ir::plan::Count;

use super::*;
use crate::check::{check, tensor};
use crate::emit::run::{Counts, Loaded, poisoned, targets_here};
use crate::packing::{Join, pack_whole};
use crate::reference::{self, LayerNorm, Rounding};

const EPS: f64 = 1e-6;

fn tokens(count: usize) -> Counts {
    Counts { tokens: count as u32, ..Counts::default() }
}

fn check_linear(
    target: &Target,
    rows: usize,
    n: usize,
    k: usize,
    prologue: Prologue,
    epilogue: Epilogue,
) {
    let problem = LinearProblem {
        rows: Rows::TOKENS,
        n: n as u32,
        k: k as u32,
        scheme: Scheme::Bf16,
        prologue,
        epilogue,
    };
    let (x, x_values) = tensor(1, rows * k, 1.0);
    let (w, w_values) = tensor(2, n * k, 1.0 / (k as f32).sqrt());
    let (norm, norm_values) = tensor(3, k, 1.0);
    let (bias, bias_values) = tensor(4, n, 1.0);
    let (residual, residual_values) = tensor(5, rows * n, 1.0);
    let packed = pack_whole(Join::One, &[(&w, n as u64)], k, target.limits().panel_width);

    let mut inputs: Vec<&[u8]> = vec![&x];
    let mut h = x_values;
    if let Prologue::RmsNorm { eps } = prologue {
        inputs.push(&norm);
        h = reference::rms_norm(&h, &norm_values, eps, Rounding::Bf16);
    }
    inputs.push(&packed);
    let mut want = reference::linear(&h, &w_values, k, Rounding::Exact);
    if epilogue.bias {
        inputs.push(&bias);
        want = reference::linear_bias(&h, &w_values, &bias_values, Rounding::Exact);
    }
    if epilogue.activation == Activation::Gelu {
        want = reference::gelu(&want, Rounding::Exact);
    }
    if epilogue.residual {
        inputs.push(&residual);
        want = reference::add(&want, &residual_values, Rounding::Exact);
    }
    let want: Vec<f64> = want.into_iter().map(|v| Rounding::Bf16.round(v)).collect();
    check(&Linear::new(problem, target), target, tokens(rows), &inputs, &want);
}

#[test]
fn products_of_any_rows_and_widths_agree_with_the_twin() {
    for target in targets_here() {
        for rows in [1, 2, 3, 5, 11, 12, 13, 23, 31] {
            check_linear(&target, rows, 64, 48, Prologue::Direct, Epilogue::NONE);
        }
        for (n, k) in [(1, 1), (3, 2), (17, 7), (32, 9), (33, 31), (65, 130), (100, 67)] {
            check_linear(&target, 7, n, k, Prologue::Direct, Epilogue::NONE);
        }
        for rows in [256, 257, 530] {
            check_linear(&target, rows, 40, 24, Prologue::Direct, Epilogue::NONE);
        }
    }
}

#[test]
fn what_precedes_and_follows_a_product_is_as_the_twins_say() {
    for target in targets_here() {
        let norm = Prologue::RmsNorm { eps: EPS };
        for (rows, n, k) in [(14, 50, 37), (3, 64, 128)] {
            for bias in [false, true] {
                let plain = Epilogue { bias, ..Epilogue::NONE };
                let gelu = Epilogue { activation: Activation::Gelu, ..plain };
                let all = Epilogue { residual: true, ..gelu };
                check_linear(&target, rows, n, k, norm, plain);
                check_linear(&target, rows, n, k, Prologue::Direct, gelu);
                check_linear(&target, rows, n, k, norm, all);
            }
        }
    }
}

#[test]
fn a_product_of_the_real_size_agrees_with_the_twin() {
    for target in targets_here() {
        let norm = Prologue::RmsNorm { eps: EPS };
        check_linear(&target, 13, 256, 2048, norm, Epilogue::NONE);
        check_linear(
            &target,
            2,
            96,
            6144,
            Prologue::Direct,
            Epilogue { residual: true, ..Epilogue::NONE },
        );
    }
}

#[test]
fn gate_and_up_are_multiplied_after_silu() {
    for target in targets_here() {
        for (rows, n, k) in [(1, 16, 16), (13, 32, 24), (5, 23, 19), (3, 200, 66)] {
            for prologue in [Prologue::Direct, Prologue::RmsNorm { eps: EPS }] {
                let (x, mut h) = tensor(1, rows * k, 1.0);
                let scale = 2.0 / (k as f32).sqrt();
                let [(gate, gate_values), (up, up_values)] =
                    [2, 3].map(|seed| tensor(seed, n * k, scale));
                let (norm, norm_values) = tensor(4, k, 1.0);
                let width = target.limits().panel_width;
                let paths = [(gate.as_slice(), n as u64), (up.as_slice(), n as u64)];
                let packed = pack_whole(Join::Interleave, &paths, k, width);
                let mut inputs: Vec<&[u8]> = vec![&x];
                if let Prologue::RmsNorm { eps } = prologue {
                    inputs.push(&norm);
                    h = reference::rms_norm(&h, &norm_values, eps, Rounding::Bf16);
                }
                inputs.push(&packed);
                let want =
                    reference::gate_up_silu(&h, [&gate_values, &up_values], k, Rounding::Bf16);
                let problem = GateUpSiluProblem {
                    rows: Rows::TOKENS,
                    n: n as u32,
                    k: k as u32,
                    scheme: Scheme::Bf16,
                    prologue,
                };
                let kernel = GateUpSilu::new(problem, &target);
                check(&kernel, &target, tokens(rows), &inputs, &want);
            }
        }
    }
}

#[test]
fn four_patches_are_put_side_by_side_and_normalised_before_the_product() {
    for target in targets_here() {
        for (images, grid, d, n) in [(1, 2, 8, 16), (2, 4, 24, 40), (1, 6, 5, 33)] {
            let patches = (grid * grid) as usize;
            let k = 4 * d;
            let (x, x_values) = tensor(1, images * patches * d, 1.0);
            let [(ln_w, ln_w_values), (ln_b, ln_b_values)] = [2, 3].map(|s| tensor(s, k, 1.0));
            let (w, w_values) = tensor(4, n * k, 1.0 / (k as f32).sqrt());
            let (bias, bias_values) = tensor(5, n, 1.0);
            let layer = LayerNorm { weight: &ln_w_values, bias: &ln_b_values, eps: 1e-5 };
            let want = reference::shuffle_norm_linear_gelu(
                &x_values,
                patches,
                &layer,
                [&w_values, &bias_values],
                Rounding::Bf16,
            );
            let packed = pack_whole(Join::One, &[(&w, n as u64)], k, target.limits().panel_width);
            let epilogue = Epilogue { bias: true, activation: Activation::Gelu, residual: false };
            let problem = LinearProblem {
                rows: Rows { count: Count::Images, per: (grid * grid / 4) as u32 },
                n: n as u32,
                k: k as u32,
                scheme: Scheme::Bf16,
                prologue: Prologue::ShuffleLayerNorm { eps: 1e-5, grid: grid as u32 },
                epilogue,
            };
            let counts = Counts { images: images as u32, ..Counts::default() };
            let inputs: [&[u8]; 5] = [&x, &ln_w, &ln_b, &packed, &bias];
            check(&Linear::new(problem, &target), &target, counts, &inputs, &want);
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let (n, k, rows) = (48, 50, 29);
    for target in targets_here() {
        let problem = LinearProblem {
            rows: Rows::TOKENS,
            n,
            k,
            scheme: Scheme::Bf16,
            prologue: Prologue::RmsNorm { eps: EPS },
            epilogue: Epilogue::NONE,
        };
        let loaded = Loaded::new(&Linear::new(problem, &target), &target);
        let (n, k) = (n as usize, k as usize);
        let (mut x, _) = tensor(1, rows * k, 1.0);
        let (mut norm, _) = tensor(2, k, 1.0);
        let (w, _) = tensor(3, n * k, 1.0);
        let mut packed = pack_whole(Join::One, &[(&w, n as u64)], k, target.limits().panel_width);
        let mut run = |x: &mut [u8], rows: usize| {
            let mut y = poisoned(2 * rows * n);
            loaded.run(tokens(rows), &mut [x, &mut norm, &mut packed, &mut y]);
            y
        };
        let together = run(&mut x, rows);
        for (row, y) in together.chunks_exact(2 * n).enumerate() {
            assert_eq!(run(&mut x[2 * row * k..2 * (row + 1) * k], 1), y, "{target} row {row}");
        }
    }
}

/// The inner loops of a large product, as lines of assembly.
fn inner_loops(target: &Target) -> Vec<Vec<String>> {
    let problem = LinearProblem {
        rows: Rows::TOKENS,
        n: 4096,
        k: 2048,
        scheme: Scheme::Bf16,
        prologue: Prologue::Direct,
        epilogue: Epilogue::NONE,
    };
    let text = crate::assembly(&Linear::new(problem, target), target).unwrap();
    let mut blocks: Vec<Vec<String>> = vec![Vec::new()];
    for line in text.lines().map(str::trim) {
        if line.starts_with(".LBB") {
            blocks.push(Vec::new());
        }
        blocks.last_mut().unwrap().push(line.to_owned());
    }
    let multiplies = |line: &String| line.starts_with("vdpbf16ps") || line.starts_with("vfmadd");
    blocks.retain(|block| block.iter().any(multiplies));
    blocks
}

fn all_levels() -> [Target; 3] {
    ["x86-64-v3", "x86-64-v4", "x86-64-v4+avx512bf16"].map(|name| Target::parse(name).unwrap())
}

#[test]
fn inner_loops_keep_all_sums_in_registers() {
    for target in all_levels() {
        let loops = inner_loops(&target);
        // 12, 8, 4, 2 and 1 rows, or 6, 4, 2 and 1.
        assert_eq!(loops.len(), if target.limits().registers == 32 { 5 } else { 4 }, "{target}");
        for line in loops.iter().flatten() {
            assert!(!(line.contains("%rsp") && line.contains("mm")), "{target} spills: {line}");
        }
    }
}

#[test]
fn inner_loops_read_the_weights_in_the_order_of_their_bytes() {
    for target in all_levels() {
        for block in inner_loops(&target) {
            let offsets: Vec<(String, i64)> =
                block.iter().filter_map(|line| panel_load(line)).collect();
            assert!(offsets.len() >= 8, "{target}: {block:#?}");
            for pair in offsets.windows(2) {
                let [(base, one), (other_base, other)] = pair else { unreachable!() };
                assert_eq!(base, other_base, "{target}: {block:#?}");
                let vector = i64::from(4 * target.limits().lanes);
                assert_eq!(*other, one + vector, "{target}: {block:#?}");
            }
        }
    }
}

/// Base register and offset of a whole-vector load from memory.
fn panel_load(line: &str) -> Option<(String, i64)> {
    let (name, operands) = line.split_once('\t')?;
    let (place, _) = operands.split_once("),")?;
    let (offset, base) = place.split_once('(')?;
    (name.starts_with("vmov") && !base.contains(',') && !base.contains("rip"))
        .then(|| (base.to_owned(), offset.parse().unwrap_or(0)))
}
