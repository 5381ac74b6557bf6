//! The router of CUDA targets in one kernel, against its twin, for one row, for few and for many.

use sail_ir::scheme::Scheme;
use sail_kernels::Kernel;
use sail_kernels::emit::run::{bf16_values, i32_values, poisoned};
use sail_kernels::experts::{Route, Router, RouterProblem};
use sail_kernels::packing::{Join, rows};
use sail_kernels::reference::{self, Groups, Rounding};
use sail_kernels::table::template;
use sail_tests::harness::Test;

use super::check::{close, drawn, scaled, tokens};
use super::simulated::{gpu_targets, run_simulated};

pub fn tests() -> Vec<Test> {
    vec![Test::new("the router of GPUs norms, chooses and sorts as its twin does", router)]
}

/// Rows, experts, choices, width.
const SIZES: [(usize, usize, usize, usize); 6] = [
    (1, 128, 8, 320),
    (8, 128, 8, 264),
    (7, 5, 5, 67),
    (3, 17, 1, 40),
    (61, 128, 8, 72),
    (35, 40, 17, 130),
];

const EPS: f64 = 1e-6;

fn router() {
    for (count, experts, top_k, width) in SIZES {
        for (most, renormalize) in [(count as u32, true), (64, false), (4096, true)] {
            let (x, x_values) = scaled(1, count * width, 3.0);
            let (norm, norm_values) = drawn(2, width);
            let (weight, w_values) = scaled(3, experts * width, 6.0 / (width as f32).sqrt());
            let packed = [(&weight[..], experts as u64)];
            let packed = rows::pack_whole(Scheme::Bf16, Join::One, &packed, width);
            let (normed, rounding) = ((&norm_values[..], EPS), Rounding::Bf16);
            let choice = (top_k, renormalize);
            let want =
                reference::norm_linear_route_group(&x_values, normed, &w_values, choice, rounding);
            let logits = reference::linear(&want.normed, &w_values, width, Rounding::Exact);

            let route = Route { experts: experts as u32, top_k: top_k as u32, renormalize };
            let problem = RouterProblem { route, width: width as u32, eps: EPS };
            let pairs = count * top_k;
            let mut buffers = vec![x, norm, packed];
            let written = [4 * pairs, 2 * pairs, 4 * pairs, 4 * pairs, 4 * experts + 4];
            buffers.extend(written.map(poisoned));
            buffers.push(poisoned(2 * count * width));
            for target in gpu_targets() {
                let kernel = Router::new(problem.clone(), &target, most).expect("a CUDA target");
                let after = run_simulated(&kernel, &target, tokens(count), &buffers);
                let ids = i32_values(&after[3]);
                assert_chosen_as(&logits, experts, &ids, &want.ids);
                if ids == want.ids {
                    close(&kernel, &target, &after[4], &want.weights);
                }
                let [order, place, starts] = [5, 6, 7].map(|at: usize| i32_values(&after[at]));
                let groups = Groups { order, place, starts };
                assert_eq!(groups, reference::group_by_expert(&ids, experts), "{target}");
                let near = template("rms_norm").expect("it has a row").tolerance;
                let beyond = near.first_beyond(&bf16_values(&after[8]), &want.normed);
                assert_eq!(beyond, None, "{target}, `{}`", kernel.symbol());
            }
        }
    }
}

/// Where the choice differs from the twin's, the logits are two roundings apart: that of the normed values,
/// and their own.
fn assert_chosen_as(logits: &[f64], experts: usize, got: &[i32], want: &[i32]) {
    let near = template("norm_linear_route_group").expect("it has a row").tolerance;
    let top_k = got.len() / (logits.len() / experts);
    for (row, logits) in logits.chunks_exact(experts).enumerate() {
        let of_row = row * top_k..(row + 1) * top_k;
        let [got, want] = [got, want].map(|ids| {
            ids[of_row.clone()].iter().map(|id| logits[*id as usize]).collect::<Vec<_>>()
        });
        let got: Vec<f32> = got.iter().map(|logit| *logit as f32).collect();
        assert_eq!(near.first_beyond(&got, &want), None, "row {row}: (choice, got, want)");
    }
}
