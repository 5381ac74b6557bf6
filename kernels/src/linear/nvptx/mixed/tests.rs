//! Every shape against the twin, and judged by ptxas where it is found.

use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::super::finish::Finish;
use super::super::tests::{PLAIN, check_on, gated_case, linear_case, taken_by};
use super::super::{Sizes, of_mixed};
use super::Mixed;
use crate::emit::gpu::simulate::without_order;
use crate::emit::run::Counts;
use crate::kernel::{Kernel, Rows};
use crate::linear::{
    Activation, Epilogue, GateUpSilu, GateUpSiluProblem, Linear, LinearProblem, Prologue,
};
use crate::ptxas::tests::assemble_all;

const SCHEMES: [Scheme; 2] = [Scheme::Int8Weight, Scheme::Int4];

/// What is read beside the sums, all of it.
const ALL: Epilogue = Epilogue { bias: true, activation: Activation::Gelu, residual: true };

fn target() -> Target {
    Target::parse("sm_90").unwrap()
}

fn linear(
    shape: Mixed,
    [n, k]: [u32; 2],
    (prologue, epilogue): (Prologue, Epilogue),
) -> Box<dyn Kernel> {
    let (rows, scheme, finish) = (Rows::TOKENS, shape.scheme, Finish::Each(epilogue));
    let problem = LinearProblem { rows, n, k, scheme, prologue, epilogue };
    let sizes = Sizes { rows, n, k, scheme, prologue, finish, weights: 1 };
    Box::new(of_mixed(&Linear::new(problem, &target()), sizes, shape, &target()))
}

fn gated(shape: Mixed, [n, k]: [u32; 2], prologue: Prologue) -> Box<dyn Kernel> {
    let (rows, scheme, finish) = (Rows::TOKENS, shape.scheme, Finish::Gated);
    let problem = GateUpSiluProblem { rows, n, k, scheme, prologue };
    let sizes = Sizes { rows, n, k, scheme, prologue, finish, weights: 1 };
    Box::new(of_mixed(&GateUpSilu::new(problem, &target()), sizes, shape, &target()))
}

fn check(shape: Mixed, sizes: [u32; 2], around: (Prologue, Epilogue), rows: usize) {
    let (buffers, want) = linear_case(sizes, shape.scheme, around, rows);
    check_on(&target(), linear(shape, sizes, around).as_ref(), &buffers, &want, rows);
}

fn check_gated(shape: Mixed, sizes: [u32; 2], prologue: Prologue, rows: usize) {
    let (buffers, want) = gated_case(sizes, shape.scheme, prologue, rows);
    check_on(&target(), gated(shape, sizes, prologue).as_ref(), &buffers, &want, rows);
}

#[test]
fn every_shape_is_its_twin() {
    for shape in SCHEMES.into_iter().flat_map(Mixed::all) {
        // Two tiles each way, both ragged; K ends inside a step and, of groups, inside one.
        let around = (Prologue::Direct, Epilogue { activation: Activation::None, ..ALL });
        check(shape, [shape.columns + 24, 200], around, shape.rows as usize + 13);
    }
}

#[test]
fn rows_of_few_and_of_many_steps_are_their_twins() {
    let norm = Prologue::RmsNorm { eps: 1e-6 };
    for scheme in SCHEMES {
        for (columns, rows) in [(64, 64), (128, 128)] {
            let shape = Mixed { scheme, columns, rows };
            check(shape, [8, 8], PLAIN, 1);
            check(shape, [152, 1000], (norm, ALL), 70);
            check_gated(shape, [16, 64], norm, 3);
            check_gated(shape, [104, 456], Prologue::Direct, 133);
        }
    }
    let shape = Mixed { scheme: Scheme::Int8Weight, columns: 256, rows: 96 };
    check_gated(shape, [136, 128], norm, 100);
}

/// Each instruction that orders warps, copies and products is missed where it lacks or is weaker.
#[test]
fn products_without_order_are_noticed() {
    let (rows, plain) = (100, Epilogue::NONE);
    let added = Epilogue { activation: Activation::None, ..ALL };
    for (scheme, sizes, epilogue) in [
        (Scheme::Int8Weight, [136, 456], added),
        (Scheme::Int8Weight, [136, 456], plain),
        (Scheme::Int4, [136, 1000], added),
    ] {
        let around = (Prologue::Direct, epilogue);
        // More tiles than blocks, more steps than stages, more rows than are staged together.
        let kernel = linear(Mixed { scheme, columns: 128, rows: 96 }, sizes, around);
        let (buffers, _) = linear_case(sizes, scheme, around, rows);
        let buffers = taken_by(&target(), kernel.as_ref(), &buffers, rows);
        let counts = Counts { tokens: rows as u32, ..Counts::default() };
        let missed = without_order(kernel.as_ref(), &target(), (counts, &buffers), &[]).missed;
        assert_eq!(missed, Vec::<String>::new(), "{scheme}: nobody misses these");
    }
}

#[test]
fn the_largest_shapes_of_each_kind_assemble_without_spills() {
    let (int8, int4) = (Scheme::Int8Weight, Scheme::Int4);
    let mut kernels = Vec::new();
    for (scheme, columns, rows) in
        [(int8, 256, 128), (int8, 128, 256), (int8, 64, 128), (int4, 128, 128), (int4, 64, 128)]
    {
        let shape = Mixed { scheme, columns, rows };
        let bias = Epilogue { activation: Activation::None, ..ALL };
        kernels.push(linear(shape, [1536, 4096], (Prologue::Direct, bias)));
        kernels.push(gated(shape, [4096, 1536], Prologue::Direct));
    }
    assemble_all(&target(), &kernels, 168);
}

#[test]
fn stages_fit() {
    for shape in SCHEMES.into_iter().flat_map(Mixed::all) {
        let finish = Finish::Each(ALL);
        let (rows, prologue) = (Rows::TOKENS, Prologue::Direct);
        let sizes =
            Sizes { rows, n: 2048, k: 2048, scheme: shape.scheme, prologue, finish, weights: 1 };
        let stages = shape.stages(&sizes, 0);
        assert!((4..=6).contains(&stages.count), "{shape:?}: {stages:?}");
        assert!(shape.block(&sizes, 1, &target()).shared_bytes <= 227 << 10, "{shape:?}");
    }
}
