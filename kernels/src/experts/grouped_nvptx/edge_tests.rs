//! Grouped products at the edges of their tiles: every shape of every way, groups that are just full, just
//! over and empty, tiles that end inside a weight; and who notices where warps are not ordered.

use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::super::Grouped;
use super::tests::{Case, EIGHT, MANY, SIXTEEN, TOP_K, targets};
use crate::config::Config;
use crate::emit::gpu::simulate::{others, without_order};
use crate::emit::run::{Counts, bf16_values};
use crate::kernel::Kernel;
use crate::table::template;

const SCHEMES: [Scheme; 2] = [Scheme::Int8Weight, Scheme::Int4];

fn sm_90() -> Target {
    Target::parse("sm_90").unwrap()
}

/// Choices of tokens that give each expert so many rows, an even number in all, in no order.
fn of_counts(counts: &[usize]) -> Vec<i32> {
    let sorted: Vec<i32> =
        counts.iter().enumerate().flat_map(|(expert, count)| vec![expert as i32; *count]).collect();
    assert!(sorted.len().is_multiple_of(TOP_K), "whole tokens");
    // A prime, so that all are met.
    (0..sorted.len()).map(|at| sorted[at * 7919 % sorted.len()]).collect()
}

/// The kernel with a config.
fn in_shape(kernel: &dyn Kernel, config: &str) -> Box<dyn Kernel> {
    let shaped = kernel.shaped().expect("it has shapes");
    shaped.with(&Config::parse(config, &shaped.space()).expect("it fits"))
}

fn close(kernel: &dyn Kernel, got: &[u8], want: &[f64]) {
    let tolerance = template(kernel.family()).unwrap().tolerance;
    let beyond = tolerance.first_beyond(&bf16_values(got), want);
    assert_eq!(beyond, None, "`{}`: (index, got, want)", kernel.symbol());
}

#[test]
fn groups_that_are_just_full_and_just_over_are_their_twins() {
    for scheme in SCHEMES {
        for (counts, sizes) in [
            // All steps of rows of a tile, and one more of each.
            ([32, 0, 33, 64, 65], [40, 72]),
            ([96, 97, 0, 128, 129], [136, 200]),
            // Two whole tiles and two rows; all to the last expert.
            ([0, 258, 1, 0, 3], [72, 136]),
            ([0, 0, 0, 0, 130], [264, 328]),
        ] {
            for what in [Grouped::GateUpSilu, Grouped::Linear] {
                let case = Case::new((what, scheme), sizes, of_counts(&counts));
                let (own, want) = (case.kernel(&sm_90(), MANY), case.want());
                for config in own.shaped().expect("it has shapes").configs() {
                    let kernel = in_shape(own.as_ref(), &config.to_string());
                    assert!(kernel.symbol().contains("mixed"), "{}", kernel.symbol());
                    close(kernel.as_ref(), &case.run(&sm_90(), kernel.as_ref(), None), &want);
                }
            }
        }
    }
}

#[test]
fn no_config_changes_a_byte_but_by_the_order_of_a_sum() {
    let mut seen = Vec::new();
    for (what, counts, sizes, most) in [
        (Grouped::GateUpSilu, [1, 0, 2, 4, 1], [24, 520], EIGHT),
        (Grouped::Linear, [20, 0, 1, 9, 2], [48, 136], SIXTEEN),
        (Grouped::GateUpSilu, [70, 0, 33, 2, 1], [40, 72], MANY),
        (Grouped::Linear, [1, 0, 129, 65, 1], [72, 136], MANY),
    ] {
        for scheme in Scheme::ALL {
            let case = Case::new((what, scheme), sizes, of_counts(&counts));
            let want = case.want();
            for target in targets(scheme) {
                let kernel = case.kernel(&target, most);
                let own = case.run(&target, kernel.as_ref(), None);
                close(kernel.as_ref(), &own, &want);
                for (other, reorders) in others(kernel.as_ref()) {
                    let got = case.run(&target, other.as_ref(), None);
                    close(other.as_ref(), &got, &want);
                    assert!(got == own || reorders, "{target}: `{}`", other.symbol());
                    seen.push(other.shaped().unwrap().config().to_string());
                }
            }
        }
    }
    // Ways and their parameters are all there.
    for part in ["warps=4", "share=2", "keeps=0", "stages=3", "tile=64 columns=256", "tile=128"] {
        assert!(seen.iter().any(|config| config.contains(part)), "{part} in {seen:?}");
    }
}

/// Each instruction that orders warps, copies and products is missed where it lacks or is weaker.
#[test]
fn products_without_order_are_noticed() {
    for (scheme, k) in [(Scheme::Int8Weight, 456), (Scheme::Int4, 904)] {
        // More steps than stages; three tiles of a weight among as many blocks, so that each has groups
        // for either loop, and others after them.
        let ids = of_counts(&[40, 20, 0, 50, 10]);
        let case = Case::new((Grouped::Linear, scheme), [264, k], ids);
        let kernel = in_shape(case.kernel(&sm_90(), MANY).as_ref(), "tile=64 columns=128");
        let buffers = case.buffers(&sm_90(), kernel.as_ref(), None);
        let counts = Counts { tokens: case.tokens(), ..Counts::default() };
        let missed = without_order(kernel.as_ref(), &sm_90(), (counts, &buffers), &[]).missed;
        assert_eq!(missed, Vec::<String>::new(), "{scheme}: nobody misses these");
    }
}
