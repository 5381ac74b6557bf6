//! Attention over the cache on CUDA targets, every way of it: what `--record-cases` gives a real GPU. Shapes
//! that only their own rules can break are tested beside the kernels.

use std::collections::BTreeSet;

use sail_ir::CacheScheme;
use sail_ir::target::Target;
use sail_kernels::Kernel;
use sail_kernels::reference::{self, Heads, Rounding, Row};
use sail_tests::harness::Test;

use super::check::{Buffers, close, drawn};
use super::pages::{Filled, run_of};
use super::recorder;
use super::simulated::{gpu_targets, run_simulated};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("attention of GPUs holds for the heads of the published models", published),
        Test::new("attention of GPUs holds whoever shares the positions of a row", shared),
        Test::new("attention of GPUs holds for blocks of one conversation and of several", several),
        Test::new("attention of GPUs holds for heads of other sizes", other_sizes),
    ]
}

/// Query heads and kv heads of SAIL-VL2-2B, 8B and 30B-A3B, which all have 128 values; and the ways that
/// they are attended in.
const PUBLISHED: [([usize; 2], [&str; 5]); 3] = [
    ([16, 8], ["alone13x8", "alone16x8", "together", "wgmma", "wgmma.s8"]),
    ([32, 8], ["alone13x8", "alone16x8", "together", "wgmma", "wgmma.s4"]),
    ([32, 4], ["alone27x4", "alone33x4", "together", "wgmma", "wgmma.s4"]),
];

/// Most rows of a call that decodes, of one for the end of a prompt, of one for a prompt.
const CLASSES: [u32; 3] = [8, 128, 4096];

/// Rows over a cache, and what their twin gives.
struct Call<'f> {
    filled: &'f Filled,
    rows: Vec<Row>,
    buffers: Buffers,
    want: Vec<f64>,
}

impl<'f> Call<'f> {
    fn new(filled: &'f Filled, rows: Vec<Row>) -> Self {
        let (pages, cache) = (&filled.pages, &filled.cache);
        let (q, queries) = drawn(8, rows.len() * pages.heads.query * pages.heads.dim);
        let twin = match pages.layout().scheme {
            CacheScheme::Bf16 => reference::attention,
            CacheScheme::Int8 => reference::attention_int8,
        };
        let want = twin(&queries, cache, &rows, pages.heads, Rounding::Bf16);
        let buffers = filled.buffers(&q, &rows);
        Self { filled, rows, buffers, want }
    }

    fn check(&self, target: &Target, kernel: &dyn Kernel) {
        let counts = self.filled.pages.counts(&self.rows);
        let after = run_simulated(kernel, target, counts, &self.buffers);
        close(kernel, target, &after[4], &self.want);
    }
}

/// Kernels for calls of so many rows, each way once.
fn ways(filled: &Filled, target: &Target, classes: &[u32]) -> Vec<Box<dyn Kernel>> {
    let of_class = |most: &u32| filled.kernel().on_gpu_for(target, *most).expect("it has code");
    let mut kernels: Vec<_> = classes.iter().map(of_class).collect();
    kernels.dedup_by_key(|kernel| kernel.symbol());
    kernels
}

/// `alone16x8` of `attention.bf16.h16.g8.e128.alone16x8`.
fn way_of(kernel: &dyn Kernel) -> String {
    kernel.symbol().splitn(6, '.').nth(5).expect("the way stands behind the sizes").to_owned()
}

/// `kernel` with these `values` in its config.
fn shaped(kernel: &dyn Kernel, values: &[(&str, u32)]) -> Box<dyn Kernel> {
    let shaped = kernel.shaped().expect("there is a choice");
    let own = shaped.config();
    shaped.with(&values.iter().fold(own, |config, (name, value)| config.with(name, *value)))
}

fn published() {
    for ([query, kv], expected) in recorder::daily(&PUBLISHED, 1) {
        let mut seen = BTreeSet::new();
        let heads = Heads { query: *query, kv: *kv, dim: 128 };
        for scheme in CacheScheme::ALL {
            // In the second slot more positions than a block or a step has.
            let filled = Filled::plainly(scheme, heads, &[1, 141]);
            let few = Call::new(&filled, vec![[1, 140], [0, 0]]);
            let run = Call::new(&filled, [run_of(0, 0, 1), run_of(1, 127, 130)].concat());
            for target in gpu_targets() {
                for kernel in ways(&filled, &target, &CLASSES) {
                    let call = if kernel.scratch().is_some() { &few } else { &run };
                    call.check(&target, kernel.as_ref());
                    seen.insert(way_of(kernel.as_ref()));
                }
            }
        }
        assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
}

fn shared() {
    for group in recorder::daily(&[2, 4, 8], 1) {
        for scheme in CacheScheme::ALL {
            check_shared(*group, scheme);
        }
    }
}

fn check_shared(group: usize, scheme: CacheScheme) {
    let heads = Heads { query: group, kv: 1, dim: 128 };
    // More positions than all that share them take at a time, and fewer than one of them does.
    let filled = Filled::plainly(scheme, heads, &[1_100, 41]);
    let few = Call::new(&filled, vec![[0, 1_099], [1, 40]]);
    // As many query vectors as a block has.
    let rows = 128 / group as i32 - 2;
    let run = Call::new(&filled, [run_of(0, 1_030, 1_030 + rows), run_of(1, 39, 41)].concat());
    for target in gpu_targets() {
        for kernel in ways(&filled, &target, &[CLASSES[0], CLASSES[2]]) {
            let kernel = kernel.as_ref();
            if kernel.scratch().is_some() {
                few.check(&target, kernel);
                // One block has nothing to join, a few have several runs each.
                for [blocks, warps] in [[1, 8], [4, 2]] {
                    let other = shaped(kernel, &[("blocks", blocks), ("warps", warps)]);
                    few.check(&target, other.as_ref());
                }
            } else if kernel.shaped().is_some() {
                for parts in [1, 2, 4, 8] {
                    run.check(&target, shaped(kernel, &[("parts", parts)]).as_ref());
                }
            } else {
                run.check(&target, kernel);
            }
        }
    }
}

/// Each conversation has so many positions that rings come round in its steps, and again in those of the next
/// one of its block, also where two blocks share them.
fn several() {
    let heads = Heads { query: 2, kv: 1, dim: 128 };
    let lengths = [1_100, 1_290, 1_033, 1_211];
    for scheme in recorder::daily(&CacheScheme::ALL, 1) {
        let filled = Filled::plainly(*scheme, heads, &lengths);
        // A block of one, and one of three.
        let counts = [64, 21, 21, 21];
        let slots = lengths.iter().zip(counts).zip(0..);
        let rows: Vec<Row> =
            slots.flat_map(|((to, count), slot)| run_of(slot, to - count, *to)).collect();
        let call = Call::new(&filled, rows);
        for target in gpu_targets() {
            for kernel in ways(&filled, &target, &[CLASSES[2]]) {
                if kernel.shaped().is_none() {
                    call.check(&target, kernel.as_ref());
                    continue;
                }
                for parts in [1, 2] {
                    call.check(&target, shaped(kernel.as_ref(), &[("parts", parts)]).as_ref());
                }
            }
        }
    }
}

fn other_sizes() {
    for (query, dim) in [(3, 20), (8, 64)] {
        for scheme in CacheScheme::ALL {
            let filled = Filled::plainly(scheme, Heads { query, kv: 1, dim }, &[1, 200, 67]);
            let rows = [run_of(1, 190, 200), run_of(0, 0, 1), run_of(2, 61, 67)].concat();
            let call = Call::new(&filled, rows);
            for target in gpu_targets() {
                for kernel in ways(&filled, &target, &[CLASSES[0], CLASSES[2]]) {
                    call.check(&target, kernel.as_ref());
                }
            }
        }
    }
}
