//! The router, the grouping and the sum of experts, against their twins.

use sail_ir::scheme::Scheme;
use sail_kernels::Rows;
use sail_kernels::emit::run::{Loaded, i32_bytes, i32_values, poisoned, targets_here};
use sail_kernels::experts::{Combine, GroupByExpert, LinearRoute, Route};
use sail_kernels::linear::{Epilogue, Linear, LinearProblem, Prologue};
use sail_kernels::reference::{self, Rounding};
use sail_tests::harness::Test;

use super::check::{bytes_of, close, drawn, run, run_loaded, scaled, tokens};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("route gives the twin's experts in its order, and their weights", route),
        Test::new("of equal logits the router takes the lower expert first", ties),
        Test::new("the router gives experts that exist where logits are not numbers", not_numbers),
        Test::new("linear_route chooses as the rounded product does", linear_route),
        Test::new("linear_route gives the bytes of linear and route", as_single_kernels),
        Test::new("group_by_expert sorts any load, and none", group_by_expert),
        Test::new("combine adds in the order of experts and rounds once", combine),
    ]
}

/// Rows, experts, choices.
const SIZES: [(usize, usize, usize); 6] =
    [(1, 128, 8), (7, 5, 5), (13, 8, 2), (3, 17, 1), (5, 40, 17), (61, 128, 8)];

fn route() {
    for (rows, experts, top_k) in SIZES {
        for renormalize in [true, false] {
            let (logits, values) = scaled(1, rows * experts, 6.0);
            check_route(
                Route { experts: experts as u32, top_k: top_k as u32, renormalize },
                &logits,
                &values,
            );
        }
    }
}

fn check_route(kernel: Route, logits: &[u8], values: &[f64]) {
    let (experts, top_k) = (kernel.experts as usize, kernel.top_k as usize);
    let (ids, weights) =
        reference::route(values, experts, top_k, kernel.renormalize, Rounding::Bf16);
    let buffers = vec![logits.to_vec(), poisoned(4 * ids.len()), poisoned(2 * ids.len())];
    for (target, after) in run(&kernel, tokens(values.len() / experts), &buffers) {
        assert_eq!(i32_values(&after[1]), ids, "{target}");
        close(&kernel, &target, &after[2], &weights);
    }
}

fn ties() {
    let values: Vec<f64> =
        (0..6 * 40).map(|i| [1.0, 2.5, -0.0, 2.5, 0.0, -3.0, 2.5][i % 7]).collect();
    check_route(Route { experts: 40, top_k: 9, renormalize: true }, &bytes_of(&values), &values);
}

fn not_numbers() {
    let kernel = Route { experts: 20, top_k: 4, renormalize: true };
    let mut values = vec![f64::NAN; 20];
    values.extend([f64::NEG_INFINITY; 20]);
    values.extend((0..20).map(|i| if i % 2 == 0 { f64::NAN } else { f64::from(i) }));
    let buffers = vec![bytes_of(&values), poisoned(48), poisoned(24)];
    for (target, after) in run(&kernel, tokens(3), &buffers) {
        let ids = i32_values(&after[1]);
        assert!(ids.iter().all(|id| (0..20).contains(id)), "{target}: {ids:?}");
        assert_eq!(ids[8..], [19, 17, 15, 13], "{target}");
    }
}

fn linear_route() {
    for (rows, experts, top_k) in SIZES {
        for width in [1, 67, 256] {
            let (x, x_values) = drawn(2, rows * width);
            let (weight, w_values) = drawn(3, experts * width);
            let route = Route { experts: experts as u32, top_k: top_k as u32, renormalize: true };
            let choice = (top_k, true);
            let (ids, weights) =
                reference::linear_route(&x_values, &w_values, width, choice, Rounding::Bf16);
            let logits = reference::linear(&x_values, &w_values, width, Rounding::Exact);
            for target in targets_here() {
                let kernel = LinearRoute::new(width as u32, route.clone(), &target);
                let packed = panels(&weight, width, target.limits().panel_width as usize);
                let [i32s, bf16s] = [4, 2].map(|bytes| poisoned(bytes * ids.len()));
                let buffers = vec![x.clone(), packed, i32s, bf16s];
                let after =
                    run_loaded(&kernel, &Loaded::new(&kernel, &target), tokens(rows), &buffers);
                let got = i32_values(&after[2]);
                assert_chosen_as(&logits, experts, &got, &ids);
                if got == ids {
                    close(&kernel, &target, &after[3], &weights);
                }
            }
        }
    }
}

fn as_single_kernels() {
    let (rows, experts, width, top_k) = (29, 40, 131, 6);
    let (x, _) = drawn(7, rows * width);
    let (weight, _) = drawn(8, experts * width);
    let counts = tokens(rows);
    let route = Route { experts: experts as u32, top_k: top_k as u32, renormalize: true };
    let lists = [poisoned(4 * rows * top_k), poisoned(2 * rows * top_k)];
    for target in targets_here() {
        let weight = panels(&weight, width, target.limits().panel_width as usize);
        let problem = LinearProblem {
            rows: Rows::TOKENS,
            n: experts as u32,
            k: width as u32,
            scheme: Scheme::Bf16,
            prologue: Prologue::Direct,
            epilogue: Epilogue::NONE,
        };
        let linear = Linear::new(problem, &target);
        let buffers = vec![x.clone(), weight.clone(), poisoned(2 * rows * experts)];
        let logits =
            run_loaded(&linear, &Loaded::new(&linear, &target), counts, &buffers).remove(2);
        let buffers = [vec![logits], lists.to_vec()].concat();
        let single = run_loaded(&route, &Loaded::new(&route, &target), counts, &buffers);
        let fused = LinearRoute::new(width as u32, route.clone(), &target);
        let buffers = [vec![x.clone(), weight], lists.to_vec()].concat();
        let fused = run_loaded(&fused, &Loaded::new(&fused, &target), counts, &buffers);
        assert!(single[1..] == fused[2..], "{target}");
    }
}

/// Where the choice differs from the twin's, the logits are a rounding apart.
fn assert_chosen_as(logits: &[f64], experts: usize, got: &[i32], want: &[i32]) {
    let top_k = got.len() / (logits.len() / experts);
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        let row = &logits[at / top_k * experts..][..experts];
        let (got, want) = (row[*got as usize], row[*want as usize]);
        assert!((got - want).abs() <= want.abs() / 128.0, "choice {at}: {got} for {want}");
    }
}

/// A `[n, width]` bf16 weight in panels, as `Scheme::Bf16` draws them.
fn panels(weight: &[u8], width: usize, panel_width: usize) -> Vec<u8> {
    let n = weight.len() / 2 / width;
    let mut packed = Vec::new();
    for first in (0..n).step_by(panel_width) {
        for pair in 0..width.div_ceil(2) {
            for output in first..first + panel_width {
                for i in [2 * pair, 2 * pair + 1] {
                    let inside = output < n && i < width;
                    let at = 2 * (output * width + i);
                    packed.extend(if inside { &weight[at..at + 2] } else { &[0, 0] });
                }
            }
        }
    }
    packed
}

fn group_by_expert() {
    let spread: Vec<i32> = (0..37 * 8).map(|i| i * 89 % 128).collect();
    let one = vec![3; 11 * 2];
    for (ids, experts, top_k) in
        [(spread, 128, 8), (one, 5, 2), (vec![1], 2, 1), (vec![2, 0], 3, 2)]
    {
        let kernel = GroupByExpert { experts: experts as u32, top_k: top_k as u32 };
        let want = reference::group_by_expert(&ids, experts);
        let lists = [4 * ids.len(), 4 * ids.len(), 4 * (experts + 1)].map(poisoned);
        let buffers = [vec![i32_bytes(&ids)], lists.to_vec()].concat();
        for (target, after) in run(&kernel, tokens(ids.len() / top_k), &buffers) {
            assert_eq!(i32_values(&after[1]), want.order, "{target}");
            assert_eq!(i32_values(&after[2]), want.place, "{target}");
            assert_eq!(i32_values(&after[3]), want.starts, "{target}");
        }
    }
}

fn combine() {
    for (rows, top_k, width) in [(1, 1, 1), (3, 8, 67), (7, 2, 64), (11, 5, 96)] {
        let ids: Vec<i32> = (0..rows * top_k).map(|i| (i * 5 % 7) as i32).collect();
        let place = reference::group_by_expert(&ids, 7).place;
        let (out, out_values) = drawn(4, rows * top_k * width);
        let (weights, weight_values) = drawn(5, rows * top_k);
        let (residual, residual_values) = drawn(6, rows * width);
        for add in [false, true] {
            let kernel = Combine { width: width as u32, top_k: top_k as u32, residual: add };
            let mut buffers = vec![out.clone(), i32_bytes(&place), weights.clone()];
            let want = if add {
                buffers.push(residual.clone());
                let bf16 = Rounding::Bf16;
                reference::combine_add(&out_values, &place, &weight_values, &residual_values, bf16)
            } else {
                reference::combine(&out_values, &place, &weight_values, top_k, Rounding::Bf16)
            };
            buffers.push(poisoned(2 * want.len()));
            for (target, after) in run(&kernel, tokens(rows), &buffers) {
                close(&kernel, &target, after.last().expect("the result is last"), &want);
            }
        }
    }
}
