//! Kernels that read every byte once: norms, value by value, moved rows, pixels.

use sail_kernels::elementwise::{Activation, Add, AddPositions, Function, Mul};
use sail_kernels::emit::run::{Counts, i32_bytes, poisoned};
use sail_kernels::norm::{LayerNorm, RmsNorm};
use sail_kernels::rows::{Columns, Embed, EmbedPacked, SelectRows, Splice, Tap};
use sail_kernels::vision::{Patches, PixelShuffle};
use sail_kernels::{Kernel, Rows};

use crate::{Case, drawn, images, machine, tokens};

const ROWS: u32 = 512;
const WIDTH: u32 = 2_048;
/// Conversations whose last rows are selected.
const OUTPUTS: u32 = 64;
/// Patches of an image tile, and values of one in the vision tower.
const PATCHES: u32 = 1_024;
const VIT: u32 = 1_536;
/// Rows that a tile is in the prompt.
const FEATURES: u32 = 256;

pub fn cases() -> Vec<Case> {
    let (rows, width) = (Rows::TOKENS, WIDTH);
    // Keys out of q, k and v.
    let columns = Columns { rows, width: 2 * WIDTH, first: WIDTH, count: WIDTH / 2 };
    let mut cases = vec![
        of_tokens(RmsNorm { rows, width, eps: 1e-6 }),
        of_tokens(LayerNorm { rows, width, eps: 1e-5 }),
        of_tokens(Add { rows, width }),
        of_tokens(Mul { rows, width }),
        of_tokens(Activation { function: Function::Silu, rows, width }),
        of_tokens(Activation { function: Function::Gelu, rows, width }),
        of_tokens(columns),
        of_tokens(Embed { width }),
        of_tokens(EmbedPacked::new(width, &machine())),
        of_tokens(Splice { width }),
    ];
    // What is looked at is f32.
    cases.push(Case::new(Tap { rows, width }, tokens(ROWS), |name| match name {
        "y" => poisoned(4 * (ROWS * WIDTH) as usize),
        other => of_rows(other),
    }));
    let selected = Counts { outputs: OUTPUTS, ..tokens(ROWS) };
    cases.push(Case::new(SelectRows { width }, selected, of_rows));

    let pixels = 3 * 448 * 448;
    cases.push(Case::new(Patches { channels: 3, size: 448, patch: 14 }, images(1), move |name| {
        match name {
            "pixels" => drawn(5, pixels),
            _ => poisoned(2 * pixels as usize),
        }
    }));
    let of_tile = |name: &str| match name {
        "x" | "positions" => drawn(6, PATCHES * VIT),
        _ => poisoned(2 * (PATCHES * VIT) as usize),
    };
    cases.push(Case::new(PixelShuffle { side: 32, width: VIT }, images(1), of_tile));
    cases.push(Case::new(AddPositions { patches: PATCHES, width: VIT }, images(1), of_tile));
    cases
}

fn of_tokens(kernel: impl Kernel + 'static) -> Case {
    Case::new(kernel, tokens(ROWS), of_rows)
}

/// An argument for [`ROWS`] rows of at most twice [`WIDTH`] values.
fn of_rows(name: &str) -> Vec<u8> {
    let scattered =
        |count: u32| i32_bytes(&(0..count as i32).map(|at| at * 7 % 512).collect::<Vec<_>>());
    match name {
        "ids" => scattered(ROWS),
        "index" => scattered(OUTPUTS),
        // The tile stands behind some words.
        "image_rows" => {
            let rows = (0..ROWS as i32).map(|row| row - 16);
            let is_image = |row: &i32| (0..FEATURES as i32).contains(row);
            i32_bytes(&rows.map(|row| Some(row).filter(is_image).unwrap_or(-1)).collect::<Vec<_>>())
        }
        "features" => drawn(2, FEATURES * WIDTH),
        "weight" | "bias" => drawn(3, WIDTH),
        "y" => poisoned(2 * (ROWS * WIDTH) as usize),
        "x" => drawn(1, 2 * ROWS * WIDTH),
        _ => drawn(4, ROWS * WIDTH),
    }
}
