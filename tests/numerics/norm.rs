//! The normalisations against their twins.

use sail_kernels::Rows;
use sail_kernels::emit::run::poisoned;
use sail_kernels::norm::{LayerNorm, RmsNorm};
use sail_kernels::reference::{self, Rounding};
use sail_tests::harness::Test;

use super::check::{Buffers, bytes_of, close, drawn, run, scaled, tokens};

const SIZES: [(usize, usize); 6] = [(1, 1), (1, 2048), (3, 7), (17, 64), (37, 67), (5, 6144)];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("rms_norm rounds before its weight and after, for any width", rms_norm),
        Test::new("rms_norm of heads normalises each head by itself", head_norm),
        Test::new("layer_norm holds where the mean is large", layer_norm),
        Test::new("a row is normalised the same whatever its neighbours", neighbours),
    ]
}

fn rms_norm() {
    for (rows, width) in SIZES {
        for (scale, eps) in [(1.0, 1e-6), (1e-3, 1e-5), (300.0, 1e-6)] {
            let kernel = RmsNorm { rows: Rows::TOKENS, width: width as u32, eps };
            let (x, x_values) = scaled(1, rows * width, scale);
            let (weight, values) = drawn(2, width);
            let want = reference::rms_norm(&x_values, &values, eps, Rounding::Bf16);
            let buffers = vec![x, weight, poisoned(2 * want.len())];
            for (target, after) in run(&kernel, tokens(rows), &buffers) {
                close(&kernel, &target, &after[2], &want);
            }
        }
    }
}

fn head_norm() {
    for (rows, heads, dim) in [(1, 1, 20), (3, 5, 64), (7, 16, 128)] {
        let kernel = RmsNorm::of_heads(Rows::TOKENS, heads, dim, 1e-6);
        let (x, x_values) = drawn(3, rows * (heads * dim) as usize);
        let (weight, values) = drawn(4, dim as usize);
        let want = reference::head_norm(&x_values, &values, 1e-6, Rounding::Bf16);
        let buffers = vec![x, weight, poisoned(2 * want.len())];
        for (target, after) in run(&kernel, tokens(rows), &buffers) {
            close(&kernel, &target, &after[2], &want);
        }
    }
}

fn layer_norm() {
    for (rows, width) in SIZES {
        for mean in [0.0, 8.0] {
            let kernel = LayerNorm { rows: Rows::TOKENS, width: width as u32, eps: 1e-5 };
            let (_, values) = drawn(5, rows * width);
            let moved: Vec<f64> = values.iter().map(|v| Rounding::Bf16.round(v + mean)).collect();
            let (weight, w) = drawn(6, width);
            let (bias, b) = drawn(7, width);
            let norm = reference::LayerNorm { weight: &w, bias: &b, eps: 1e-5 };
            let want = reference::layer_norm(&moved, &norm, Rounding::Bf16);
            let buffers = vec![bytes_of(&moved), weight, bias, poisoned(2 * want.len())];
            for (target, after) in run(&kernel, tokens(rows), &buffers) {
                close(&kernel, &target, &after[3], &want);
            }
        }
    }
}

fn neighbours() {
    let (rows, width) = (19, 67);
    let kernel = RmsNorm { rows: Rows::TOKENS, width: width as u32, eps: 1e-6 };
    let (x, _) = drawn(8, rows * width);
    let (weight, _) = drawn(9, width);
    let row_bytes = 2 * width;
    let together: Buffers = vec![x.clone(), weight.clone(), poisoned(rows * row_bytes)];
    for (target, all) in run(&kernel, tokens(rows), &together) {
        for row in [0, 7, rows - 1] {
            let range = row * row_bytes..(row + 1) * row_bytes;
            let alone: Buffers =
                vec![x[range.clone()].to_vec(), weight.clone(), poisoned(row_bytes)];
            let runs = run(&kernel, tokens(1), &alone);
            let (_, after) = runs.iter().find(|(t, _)| *t == target).expect("the same targets");
            assert_eq!(after[2], all[2][range], "{target}, row {row}");
        }
    }
}
