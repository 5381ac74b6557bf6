//! Kernels that treat every value alike, against their twins.

use sail_kernels::elementwise::{Activation, Add, AddPositions, Function, Mul};
use sail_kernels::emit::run::poisoned;
use sail_kernels::reference::{self, Rounding};
use sail_kernels::{Kernel, Rows};
use sail_tests::harness::Test;

use super::check::{close, drawn, images, run, scaled, tokens};

const SIZES: [(usize, usize); 5] = [(1, 1), (3, 7), (17, 64), (37, 67), (19, 6144)];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("add and mul round once, for any width", pairs),
        Test::new("silu and gelu hold in both tails", activations),
        Test::new("add_positions gives every tile the same positions", positions),
    ]
}

fn pairs() {
    type Twin = fn(&[f64], &[f64], Rounding) -> Vec<f64>;
    for (count, width) in SIZES {
        let (rows, w) = (Rows::TOKENS, width as u32);
        let (add, mul) = (Add { rows, width: w }, Mul { rows, width: w });
        let kernels: [(&dyn Kernel, Twin); 2] = [(&add, reference::add), (&mul, reference::mul)];
        for (kernel, twin) in kernels {
            let (x, x_values) = drawn(1, count * width);
            let (y, y_values) = drawn(2, count * width);
            let want = twin(&x_values, &y_values, Rounding::Bf16);
            let buffers = vec![x, y, poisoned(2 * want.len())];
            for (target, after) in run(kernel, tokens(count), &buffers) {
                close(kernel, &target, &after[2], &want);
            }
        }
    }
}

fn activations() {
    type Twin = fn(&[f64], Rounding) -> Vec<f64>;
    let functions: [(Function, Twin); 2] =
        [(Function::Silu, reference::silu), (Function::Gelu, reference::gelu)];
    for (function, twin) in functions {
        for (count, width) in SIZES {
            for scale in [1.0, 12.0] {
                let kernel = Activation { function, rows: Rows::TOKENS, width: width as u32 };
                let (x, values) = scaled(3, count * width, scale);
                let want = twin(&values, Rounding::Bf16);
                let buffers = vec![x, poisoned(2 * want.len())];
                for (target, after) in run(&kernel, tokens(count), &buffers) {
                    close(&kernel, &target, &after[1], &want);
                }
            }
        }
    }
}

fn positions() {
    for (tiles, patches, width) in [(1, 4, 5), (2, 36, 48), (3, 25, 67)] {
        let kernel = AddPositions { patches: patches as u32, width: width as u32 };
        let (x, x_values) = drawn(4, tiles * patches * width);
        let (positions, values) = drawn(5, patches * width);
        let want = reference::add_positions(&x_values, &values, Rounding::Bf16);
        let buffers = vec![x, positions, poisoned(2 * want.len())];
        for (target, after) in run(&kernel, images(tiles), &buffers) {
            close(&kernel, &target, &after[2], &want);
        }
    }
}
