//! The router on the simulator, against its twin.

use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::{Route, Router, RouterProblem};
use crate::emit::gpu::simulate::{Simulated, without_order};
use crate::emit::run::{Counts, bf16_bytes, bf16_values, i32_values, poisoned, random};
use crate::kernel::Kernel;
use crate::packing::{Join, rows};
use crate::ptxas::tests::{MOST_REGISTERS, assemble_all};
use crate::reference::{self, Rounding};
use crate::table::template;

/// Most rows of calls of one block of rows, of a batch, of a prompt.
const MOST: [u32; 3] = [8, 64, 4096];

const EPS: f64 = 1e-6;

fn target(name: &str) -> Target {
    Target::parse(name).unwrap()
}

fn drawn(seed: u64, count: usize, scale: f32) -> (Vec<u8>, Vec<f64>) {
    let bytes = bf16_bytes(&random(seed, count).iter().map(|v| v * scale).collect::<Vec<_>>());
    let values = bf16_values(&bytes).into_iter().map(f64::from).collect();
    (bytes, values)
}

fn problem(experts: usize, top_k: usize, width: usize) -> RouterProblem {
    let route = Route { experts: experts as u32, top_k: top_k as u32, renormalize: true };
    RouterProblem { route, width: width as u32, eps: EPS }
}

/// A router, and the rows that it is given.
struct Case {
    problem: RouterProblem,
    x: (Vec<u8>, Vec<f64>),
    norm: (Vec<u8>, Vec<f64>),
    weight: (Vec<u8>, Vec<f64>),
}

/// What a kernel gives.
#[derive(Debug, PartialEq)]
struct Given {
    ids: Vec<i32>,
    weights: Vec<f32>,
    groups: reference::Groups,
    normed: Vec<f32>,
}

impl Case {
    fn new(problem: RouterProblem, tokens: usize) -> Self {
        let (experts, width) = (problem.route.experts as usize, problem.width as usize);
        let x = drawn(1, tokens * width, 3.0);
        let weight = drawn(3, experts * width, 6.0 / (width as f32).sqrt());
        Self { problem, x, norm: drawn(2, width, 1.0), weight }
    }

    fn tokens(&self) -> usize {
        self.x.1.len() / self.problem.width as usize
    }

    fn counts(&self) -> Counts {
        Counts { tokens: self.tokens() as u32, ..Counts::default() }
    }

    fn buffers(&self) -> Vec<Vec<u8>> {
        let Route { experts, top_k, .. } = self.problem.route;
        let paths = [(&self.weight.0[..], u64::from(experts))];
        let width = self.problem.width as usize;
        let packed = rows::pack_whole(Scheme::Bf16, Join::One, &paths, width);
        let pairs = self.tokens() * top_k as usize;
        let written = [4 * pairs, 2 * pairs, 4 * pairs, 4 * pairs, 4 * (experts as usize + 1)];
        let mut buffers = vec![self.x.0.clone(), self.norm.0.clone(), packed];
        buffers.extend(written.map(poisoned));
        buffers.push(poisoned(self.x.0.len()));
        buffers
    }

    fn run(&self, kernel: &Router, target: &Target) -> Given {
        let after = Simulated::new(kernel, target).run(self.counts(), &self.buffers());
        let [order, place, starts] = [5, 6, 7].map(|at: usize| i32_values(&after[at]));
        Given {
            ids: i32_values(&after[3]),
            weights: bf16_values(&after[4]),
            groups: reference::Groups { order, place, starts },
            normed: bf16_values(&after[8]),
        }
    }

    /// Hold the kernel of calls of at most `most` rows to the twin.
    fn check(&self, most: u32) {
        let RouterProblem { ref route, width, eps } = self.problem;
        let (experts, top_k) = (route.experts as usize, route.top_k as usize);
        let choice = (top_k, route.renormalize);
        let norm = (&self.norm.1[..], eps);
        let want = reference::norm_linear_route_group(
            &self.x.1,
            norm,
            &self.weight.1,
            choice,
            Rounding::Bf16,
        );
        let width = width as usize;
        let logits = reference::linear(&want.normed, &self.weight.1, width, Rounding::Exact);
        for name in ["sm_80", "sm_90"] {
            let target = target(name);
            let kernel = Router::new(self.problem.clone(), &target, most).expect("it has code");
            let got = self.run(&kernel, &target);
            let what = format!("{target} `{}`, {} tokens", kernel.symbol(), self.tokens());
            let near = template("rms_norm").unwrap().tolerance;
            assert_eq!(near.first_beyond(&got.normed, &want.normed), None, "{what}");
            assert_eq!(got.groups, reference::group_by_expert(&got.ids, experts), "{what}");
            let near = template(kernel.family()).unwrap().tolerance;
            for (row, logits) in logits.chunks_exact(experts).enumerate() {
                let of_row = row * top_k..(row + 1) * top_k;
                let [got_ids, ids] = [&got.ids, &want.ids].map(|ids| &ids[of_row.clone()]);
                for (got, want) in got_ids.iter().zip(ids) {
                    let (got, want) = (logits[*got as usize], logits[*want as usize]);
                    assert!((got - want).abs() <= want.abs() / 64.0 + 0.01, "{what}, row {row}");
                }
                if got_ids == ids {
                    let (got, want) = (&got.weights[of_row.clone()], &want.weights[of_row]);
                    assert_eq!(near.first_beyond(got, want), None, "{what}, row {row}");
                }
            }
        }
    }
}

#[test]
fn rows_are_normed_and_their_pairs_sorted_by_the_experts_they_choose() {
    for (tokens, [experts, top_k, width]) in [
        (1, [128, 8, 256]),
        (3, [5, 5, 7]),
        (8, [17, 1, 67]),
        (7, [40, 17, 130]),
        (5, [300, 32, 64]),
    ] {
        for renormalize in [true, false] {
            let mut problem = problem(experts, top_k, width);
            problem.route.renormalize = renormalize;
            let case = Case::new(problem, tokens);
            MOST.into_iter().for_each(|most| case.check(most));
        }
    }
    for (tokens, [experts, top_k, width]) in
        [(45, [128, 8, 72]), (16, [40, 6, 33]), (17, [9, 3, 80])]
    {
        let case = Case::new(problem(experts, top_k, width), tokens);
        MOST[1..].iter().for_each(|most| case.check(*most));
    }
}

#[test]
fn a_row_is_the_same_among_others() {
    let all = Case::new(problem(24, 3, 72), 7);
    for (most, tokens) in [(8, 7), (64, 23)] {
        let all = Case::new(all.problem.clone(), tokens);
        let target = target("sm_90");
        let kernel = Router::new(all.problem.clone(), &target, most).unwrap();
        let together = all.run(&kernel, &target);
        for row in [0, tokens - 1] {
            let mut one = Case::new(all.problem.clone(), 1);
            one.x.0 = all.x.0[row * 144..(row + 1) * 144].to_vec();
            let alone = one.run(&kernel, &target);
            assert_eq!(alone.ids, together.ids[3 * row..3 * (row + 1)]);
            assert_eq!(alone.weights, together.weights[3 * row..3 * (row + 1)]);
            assert_eq!(alone.normed, together.normed[72 * row..72 * (row + 1)]);
        }
    }
}

#[test]
fn where_logits_are_no_numbers_experts_exist() {
    let mut case = Case::new(problem(20, 4, 40), 3);
    // Infinite rows make infinite and undefined logits.
    case.x.0[..80].fill(0xff);
    case.x.0[80..82].copy_from_slice(&0x7f80_u16.to_le_bytes());
    for most in MOST {
        let target = target("sm_90");
        let got = case.run(&Router::new(case.problem.clone(), &target, most).unwrap(), &target);
        assert!(got.ids.iter().all(|id| (0..20).contains(id)), "{:?}", got.ids);
        assert_eq!(got.groups, reference::group_by_expert(&got.ids, 20));
    }
}

#[test]
fn nothing_is_done_without_rows() {
    let case = Case::new(problem(20, 4, 40), 0);
    for most in MOST {
        let target = target("sm_90");
        let kernel = Router::new(case.problem.clone(), &target, most).unwrap();
        let mut buffers = case.buffers();
        buffers.iter_mut().filter(|it| it.is_empty()).for_each(|none| *none = poisoned(16));
        let after = Simulated::new(&kernel, &target).run(case.counts(), &buffers);
        assert!(after == buffers);
    }
}

#[test]
fn routers_without_order_are_noticed() {
    // Of many rows, so many that a warp sorts more pairs than it has threads.
    for (most, tokens, experts, top_k) in
        [(8, 5, 24, 3), (64, 33, 40, 17), (64, 33, 24, 17), (4096, 33, 40, 17)]
    {
        let case = Case::new(problem(experts, top_k, 264), tokens);
        let target = target("sm_90");
        let kernel = Router::new(case.problem.clone(), &target, most).unwrap();
        let found = without_order(&kernel, &target, (case.counts(), &case.buffers()), &[]);
        // That of blocks past the counts: there are some, and all of them have waited before.
        let last = "griddepcontrol.wait;";
        let missed: Vec<_> = found.missed.iter().filter(|it| !it.contains(last)).collect();
        assert!(missed.is_empty(), "`{}`: nobody misses {missed:?}", kernel.symbol());
        assert!(found.missed.len() <= 1 && found.tried[last.trim_end_matches(';')] == 2);
    }
}

#[test]
fn the_largest_routers_assemble_without_spills() {
    for name in ["sm_80", "sm_90"] {
        let target = target(name);
        let mut kernels: Vec<Box<dyn Kernel>> = Vec::new();
        for [experts, top_k, width] in [[128, 8, 2048], [512, 10, 4096], [60, 4, 1408], [5, 2, 33]]
        {
            for most in MOST {
                let router = Router::new(problem(experts, top_k, width), &target, most);
                let router = router.expect("it has code");
                if kernels.iter().all(|it| it.symbol() != router.symbol()) {
                    kernels.push(Box::new(router));
                }
            }
        }
        let text = assemble_all(&target, &kernels, MOST_REGISTERS);
        assert!(!text.contains("call"), "a kernel calls a library");
    }
}
