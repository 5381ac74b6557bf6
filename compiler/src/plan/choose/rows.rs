//! Ops on rows: norms, elementwise, copies, positions, attention.

use sail_ir::Scheme;
use sail_ir::op::Attribute;
use sail_kernels::attention::{
    Attention, CacheWrite, PageLayout, QkNormRopeWrite, Rope, TileAttention,
};
use sail_kernels::elementwise::activation::{Activation, Function};
use sail_kernels::elementwise::{Add, AddPositions, Mul};
use sail_kernels::norm::{LayerNorm, RmsNorm};
use sail_kernels::rows::{
    Columns, Embed, EmbedPacked, EmbedPitched, SelectRows, Splice, Tap as TapCopy,
};
use sail_kernels::vision::{Patches, PixelShuffle};

use super::Argument::{Operand, PageTable, Result, Tap};
use super::{Found, Scope, step};
use crate::plan::weights::Source;

/// The table behind a `table` op.
pub fn table(scope: &Scope<'_>) -> Source {
    let sizes = scope.result(0);
    let kind = scope.text("kind");
    assert_eq!(kind, "rope", "broken invariant `table.kind`: `{kind}`");
    Source::RopeTable {
        positions: u64::from(sizes[0]),
        head_dim: u64::from(sizes[1]),
        theta: match scope.op.attributes.get("theta") {
            Some(Attribute::Float(theta)) => *theta,
            other => panic!("broken invariant `table.theta`: {other:?}"),
        },
    }
}

/// Everything that is neither a product nor about experts.
pub fn choose(scope: &Scope<'_>) -> Found {
    let rows = scope.rows(0);
    let width = scope.width(0);
    match scope.op.op.name {
        "add" => step(Add { rows, width }, &[Operand(0), Operand(1), Result(0)]),
        "mul" => step(Mul { rows, width }, &[Operand(0), Operand(1), Result(0)]),
        "silu" => activation(scope, Function::Silu),
        "gelu" => activation(scope, Function::Gelu),
        "add_positions" => {
            let kernel = AddPositions { patches: rows.per, width };
            step(kernel, &[Operand(0), Operand(1), Result(0)])
        }
        "rms_norm" => {
            let kernel = RmsNorm { rows, width, eps: scope.float("eps") };
            step(kernel, &[Operand(0), Operand(1), Result(0)])
        }
        "head_norm" => {
            let head = scope.width(1);
            let kernel = RmsNorm::of_heads(rows, width / head, head, scope.float("eps"));
            step(kernel, &[Operand(0), Operand(1), Result(0)])
        }
        "layer_norm" => {
            let kernel = LayerNorm { rows, width, eps: scope.float("eps") };
            step(kernel, &[Operand(0), Operand(1), Operand(2), Result(0)])
        }
        "columns" => {
            let (first, count) = (scope.size("first"), scope.size("count"));
            step(Columns { rows, width, first, count }, &[Operand(0), Result(0)])
        }
        "tap" => step(TapCopy { rows, width }, &[Operand(0), Tap]),
        _ => positions(scope).or_else(|| pictures(scope)),
    }
}

fn activation(scope: &Scope<'_>, function: Function) -> Found {
    let kernel = Activation { function, rows: scope.rows(0), width: scope.width(0) };
    step(kernel, &[Operand(0), Result(0)])
}

fn positions(scope: &Scope<'_>) -> Found {
    match scope.op.op.name {
        "embed" => {
            let (width, arguments) = (scope.width(1), [Operand(0), Operand(1), Result(0)]);
            match scope.is_packed(1) {
                true if scope.target.gpu().is_some() => {
                    let pitch = Scheme::Bf16.row_bytes(width.into()) / 2;
                    let pitch = u32::try_from(pitch).ok()?;
                    step(EmbedPitched { width, pitch }, &arguments)
                }
                true => step(EmbedPacked::new(width, scope.target), &arguments),
                false => step(Embed { width }, &arguments),
            }
        }
        "splice" => {
            let kernel = Splice { width: scope.width(0) };
            step(kernel, &[Operand(0), Operand(1), Operand(2), Result(0)])
        }
        "select_rows" => {
            let kernel = SelectRows { width: scope.width(0) };
            step(kernel, &[Operand(0), Operand(1), Result(0)])
        }
        "rope" => {
            let head = scope.size("head_dim");
            let kernel = Rope { heads: scope.width(0) / head, head_dim: head };
            step(kernel, &[Operand(0), Operand(2), Operand(1), Result(0)])
        }
        "cache_write" => {
            let [kv_heads, head_dim] = scope.operand(0)[..] else { return None };
            let layout = PageLayout { head_dim, scheme: scope.cache };
            let kernel = CacheWrite { kv_heads, layout };
            step(kernel, &[Operand(1), Operand(2), Operand(3), PageTable, Result(0)])
        }
        "qk_norm_rope_write" => {
            let kernel = QkNormRopeWrite {
                heads: scope.size("heads"),
                kv_heads: scope.size("kv_heads"),
                layout: PageLayout { head_dim: scope.size("head_dim"), scheme: scope.cache },
                eps: scope.float("eps"),
            };
            let arguments = [
                Operand(0),
                Operand(1),
                Operand(2),
                Operand(5),
                Operand(3),
                PageTable,
                Result(0),
                Result(1),
            ];
            step(kernel, &arguments)
        }
        "attention" => {
            let [kv_heads, head_dim] = scope.operand(1)[..] else { return None };
            let layout = PageLayout { head_dim, scheme: scope.cache };
            let kernel = Attention::new(scope.width(0) / head_dim, kv_heads, layout);
            step(kernel, &[Operand(0), Operand(1), Operand(2), PageTable, Result(0)])
        }
        _ => None,
    }
}

fn pictures(scope: &Scope<'_>) -> Found {
    match scope.op.op.name {
        "tile_attention" => {
            let [patches, width] = scope.operand(0)[..] else { return None };
            let heads = scope.size("heads");
            let kernel = TileAttention::new(patches, heads, width / (3 * heads));
            step(kernel, &[Operand(0), Result(0)])
        }
        "pixel_shuffle" => {
            let [patches, width] = scope.operand(0)[..] else { return None };
            let kernel = PixelShuffle { side: patches.isqrt(), width };
            step(kernel, &[Operand(0), Result(0)])
        }
        "patches" => {
            let [channels, size, _] = scope.operand(0)[..] else { return None };
            let patch = scope.size("patch");
            let kernel = Patches { channels, size, patch };
            step(kernel, &[Operand(0), Result(0)])
        }
        _ => None,
    }
}
