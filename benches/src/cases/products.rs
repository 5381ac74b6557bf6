//! Products with what stands around them, in every scheme: of a decoder layer, the head, an image tile, the
//! experts.

use sail_ir::Scheme;
use sail_ir::plan::Count;
use sail_kernels::emit::run::{Counts, i32_bytes, poisoned};
use sail_kernels::experts::{Grouped, GroupedProblem, GroupedProduct};
use sail_kernels::linear::{
    Activation, Epilogue, GateUpSilu, GateUpSiluProblem, Linear, LinearProblem, Prologue,
};
use sail_kernels::packing::{Join, Panels};
use sail_kernels::vision::{PatchEmbed, PatchEmbedProblem};
use sail_kernels::{Kernel, Rows};

use crate::{Case, drawn, images, machine, outputs, tokens};

const NORM: Prologue = Prologue::RmsNorm { eps: 1e-6 };
const RESIDUAL: Epilogue = Epilogue { residual: true, ..Epilogue::NONE };
const VIT: Rows = Rows { count: Count::Images, per: 1_024 };
const OUTPUTS: Rows = Rows { count: Count::Outputs, per: 1 };

/// One token, and a prompt.
const CALLS: [u32; 2] = [1, 512];

pub fn cases() -> Vec<Case> {
    let here = |scheme: &Scheme| scheme.missing_on(&machine()).is_none();
    Scheme::ALL.into_iter().filter(here).flat_map(of_scheme).collect()
}

fn of_scheme(scheme: Scheme) -> Vec<Case> {
    let linear = |shape, rows, prologue, epilogue| linear(scheme, shape, rows, prologue, epilogue);
    let gelu = Epilogue { bias: true, activation: Activation::Gelu, residual: false };
    let shuffled = Prologue::ShuffleLayerNorm { grid: 32, eps: 1e-5 };
    let cases = [
        // Of the 2B model: q, k and v; the output of attention; the way back of the feed-forward.
        linear((4_096, 2_048), Rows::TOKENS, NORM, Epilogue::NONE),
        linear((2_048, 2_048), Rows::TOKENS, Prologue::Direct, RESIDUAL),
        linear((2_048, 6_144), Rows::TOKENS, Prologue::Direct, RESIDUAL),
        gate_up(scheme, (6_144, 2_048), Rows::TOKENS),
        // Of the 8B model.
        linear((4_096, 12_288), Rows::TOKENS, Prologue::Direct, RESIDUAL),
        gate_up(scheme, (12_288, 4_096), Rows::TOKENS),
        // Of 30B-A3B: q, k and v; the output of attention; the experts.
        linear((5_120, 2_048), Rows::TOKENS, NORM, Epilogue::NONE),
        linear((2_048, 4_096), Rows::TOKENS, Prologue::Direct, RESIDUAL),
        grouped(scheme, Grouped::GateUpSilu, (768, 2_048)),
        grouped(scheme, Grouped::Linear, (2_048, 768)),
        // The head, for one token only.
        linear((151_936, 2_048), OUTPUTS, NORM, Epilogue::NONE),
        // The vision tower and the adapter.
        linear((4_608, 1_536), VIT, NORM, Epilogue::NONE),
        linear((1_536, 4_096), VIT, Prologue::Direct, RESIDUAL),
        gate_up(scheme, (4_096, 1_536), VIT),
        linear((2_048, 6_144), Rows { count: Count::Images, per: 256 }, shuffled, gelu),
        patches(scheme),
    ];
    cases.into_iter().flatten().collect()
}

fn linear(
    scheme: Scheme,
    (n, k): (u32, u32),
    rows: Rows,
    prologue: Prologue,
    epilogue: Epilogue,
) -> Vec<Case> {
    let problem = LinearProblem { rows, n, k, scheme, prologue, epilogue };
    calls(&Linear::new(problem, &machine()), rows, move |name, rows| match name {
        "x" => drawn(1, rows * k),
        "weight" => packed(scheme, Join::One, &[n], k),
        "bias" => drawn(2, n),
        "residual" => drawn(3, rows * n),
        "y" => poisoned(2 * (rows * n) as usize),
        _ => drawn(4, k),
    })
}

fn gate_up(scheme: Scheme, (n, k): (u32, u32), rows: Rows) -> Vec<Case> {
    let problem = GateUpSiluProblem { rows, n, k, scheme, prologue: NORM };
    calls(&GateUpSilu::new(problem, &machine()), rows, move |name, rows| match name {
        "x" => drawn(1, rows * k),
        "weight" => packed(scheme, Join::Interleave, &[n, n], k),
        "y" => poisoned(2 * (rows * n) as usize),
        _ => drawn(4, k),
    })
}

/// The first step of the vision tower, one image tile.
fn patches(scheme: Scheme) -> Vec<Case> {
    let (channels, size, patch, n) = (3, 448, 14, 1_536);
    let k = channels * patch * patch;
    let problem = PatchEmbedProblem { channels, size, patch, n, eps: 1e-5, scheme };
    calls(&PatchEmbed::new(problem, &machine()), VIT, move |name, rows| match name {
        "pixels" => drawn(1, channels * size * size),
        "weight" => packed(scheme, Join::One, &[n], k),
        "positions" => drawn(2, rows * n),
        "y" => poisoned(2 * (rows * n) as usize),
        _ => drawn(3, n),
    })
}

/// 8 of 128 experts for each token, the load as even as it can be.
fn grouped(scheme: Scheme, what: Grouped, (n, k): (u32, u32)) -> Vec<Case> {
    let (experts, top_k) = (128, 8);
    let rows = Rows { count: Count::Tokens, per: top_k };
    let problem = GroupedProblem { what, rows, experts, n, k, scheme, placed: false };
    calls(&GroupedProduct::new(problem, &machine()), rows, move |name, rows| match name {
        "x" => drawn(1, rows * k),
        "order" => i32_bytes(&(0..rows as i32).collect::<Vec<_>>()),
        "starts" => {
            let starts = (0..=experts).map(|expert| (expert * rows / experts) as i32);
            i32_bytes(&starts.collect::<Vec<_>>())
        }
        "weight" => match what {
            Grouped::GateUpSilu => {
                packed(scheme, Join::StackInterleave, &vec![n; 2 * experts as usize], k)
            }
            Grouped::Linear => packed(scheme, Join::Stack, &vec![n; experts as usize], k),
        },
        _ => poisoned(2 * (rows * n) as usize),
    })
}

/// The calls of a kernel whose rows are `rows`; `buffer` makes an argument for so many rows.
fn calls(
    kernel: &(impl Kernel + Clone + 'static),
    rows: Rows,
    buffer: impl Fn(&str, u32) -> Vec<u8> + Copy + 'static,
) -> Vec<Case> {
    type Of = fn(u32) -> Counts;
    let (calls, counts) = match rows.count {
        Count::Tokens => (CALLS.as_slice(), tokens as Of),
        Count::Images => (&[1_u32] as &[u32], images as Of),
        Count::Outputs => (&[1_u32] as &[u32], outputs as Of),
    };
    let case = |count: &u32| {
        let rows = count * rows.per;
        Case::new(kernel.clone(), counts(*count), move |name| buffer(name, rows))
    };
    calls.iter().map(case).collect()
}

/// Values of the size of a packed weight; which value stands where is all one to the clock.
fn packed(scheme: Scheme, join: Join, rows: &[u32], k: u32) -> Vec<u8> {
    let width = machine().limits().panel_width;
    let rows: Vec<u64> = rows.iter().map(|rows| u64::from(*rows)).collect();
    let panels = Panels::new(join, &rows, width).expect("paths that can be joined");
    let bytes = panels.bytes(scheme, k.into()) as usize;
    let some = drawn(5, 1 << 20);
    let mut weight = some.repeat(bytes.div_ceil(some.len()));
    weight.truncate(bytes);
    weight
}
