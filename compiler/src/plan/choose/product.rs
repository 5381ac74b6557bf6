//! Ops that are a matrix product with something before or after it.

use sail_ir::shape::Type;
use sail_kernels::linear::{
    Activation, Epilogue, GateUpSilu, GateUpSiluProblem, Linear, LinearProblem, Prologue,
};
use sail_kernels::packing::{Arrangement, Join};
use sail_kernels::vision::{PatchEmbed, PatchEmbedProblem};

use super::Argument::{Operand, Result};
use super::{Argument, Found, Scope, step};
use crate::plan::weights::{Packed, Source};

/// The weight behind a `weight` op: packed when its type says so, as it is otherwise.
pub fn weight(scope: &Scope<'_>) -> Source {
    let paths = scope.texts("paths").to_vec();
    let value = scope.op.results[0];
    match &scope.view.values[value].ty {
        Type::Packed { dims, scheme } => {
            let join: Join = scope
                .text("join")
                .parse()
                .unwrap_or_else(|error| panic!("broken invariant `weight.join`: {error}"));
            let stacked = matches!(join, Join::Stack | Join::StackInterleave);
            let part = if stacked { &dims[1..] } else { &dims[..] };
            let (n, k) = (part[0], part[1..].iter().product());
            let order = if stacked { scope.order_of(&paths[0]) } else { None };
            let order = order.map_or(Vec::new(), |(_, order)| order.to_vec());
            let arrangement = Arrangement::of(scope.target);
            Source::Packed(Packed { paths, join, scheme: *scheme, n, k, arrangement, order })
        }
        _ => Source::Plain { paths, dims: scope.result(0).iter().map(|d| u64::from(*d)).collect() },
    }
}

/// The product kernels.
pub fn choose(scope: &Scope<'_>) -> Found {
    match scope.op.op.name {
        "gate_up_silu" => gate_up(scope, Prologue::Direct, &[Operand(0), Operand(1), Result(0)]),
        "norm_gate_up_silu" => gate_up(scope, rms_norm(scope), &operands_then_result(3)),
        "patch_embed" => patch_embed(scope),
        _ => linear(scope),
    }
}

fn linear(scope: &Scope<'_>) -> Found {
    let mut rows = scope.rows(0);
    let mut k = scope.width(0);
    let plain = Epilogue::NONE;
    let gelu = Epilogue { bias: true, activation: Activation::Gelu, residual: false };
    let (prologue, epilogue, operands) = match scope.op.op.name {
        "linear" => (Prologue::Direct, plain, 2),
        "linear_bias" => (Prologue::Direct, Epilogue { bias: true, ..plain }, 3),
        "linear_bias_gelu" => (Prologue::Direct, gelu, 3),
        "linear_add" => (Prologue::Direct, Epilogue { residual: true, ..plain }, 3),
        "norm_linear" => (rms_norm(scope), plain, 3),
        "shuffle_norm_linear_gelu" => {
            let [patches, width] = scope.operand(0)[..] else { return None };
            rows.per = patches / 4;
            k = 4 * width;
            let grid = patches.isqrt();
            (Prologue::ShuffleLayerNorm { eps: scope.float("eps"), grid }, gelu, 5)
        }
        _ => return None,
    };
    let (n, scheme) = (scope.result_width(0), scope.scheme());
    let problem = LinearProblem { rows, n, k, scheme, prologue, epilogue };
    step(Linear::new(problem, scope.target), &operands_then_result(operands))
}

fn gate_up(scope: &Scope<'_>, prologue: Prologue, arguments: &[Argument]) -> Found {
    let problem = GateUpSiluProblem {
        rows: scope.rows(0),
        n: scope.result_width(0),
        k: scope.width(0),
        scheme: scope.scheme(),
        prologue,
    };
    step(GateUpSilu::new(problem, scope.target), arguments)
}

fn patch_embed(scope: &Scope<'_>) -> Found {
    let [channels, size, _] = scope.operand(0)[..] else { return None };
    let problem = PatchEmbedProblem {
        channels,
        size,
        patch: scope.size("patch"),
        n: scope.result_width(0),
        eps: scope.float("eps"),
        scheme: scope.scheme(),
    };
    step(PatchEmbed::new(problem, scope.target), &operands_then_result(5))
}

fn rms_norm(scope: &Scope<'_>) -> Prologue {
    Prologue::RmsNorm { eps: scope.float("eps") }
}

fn operands_then_result(operands: usize) -> Vec<Argument> {
    (0..operands).map(Operand).chain([Result(0)]).collect()
}
