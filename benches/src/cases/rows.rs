//! Kernels that read every byte once: norms, value by value, moved rows, pixels.

use criterion::Criterion;
use sail_bench::{drawn, images, time, tokens};
use sail_kernels::Rows;
use sail_kernels::elementwise::{Activation, Add, Function};
use sail_kernels::emit::run::{host, i32_bytes, poisoned};
use sail_kernels::norm::{LayerNorm, RmsNorm};
use sail_kernels::rows::{Embed, EmbedPacked};
use sail_kernels::vision::{Patches, PixelShuffle};

const ROWS: u32 = 512;
const WIDTH: u32 = 2_048;

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    let (rows, width, counts) = (Rows::TOKENS, WIDTH, tokens(ROWS));
    let x = drawn(1, ROWS * WIDTH);
    let y = poisoned(x.len());
    let [weight, bias] = [2, 3].map(|seed| drawn(seed, WIDTH));

    let kernel = RmsNorm { rows, width, eps: 1e-6 };
    time(&mut group, &kernel, counts, 0, &[x.clone(), weight.clone(), y.clone()]);
    let kernel = LayerNorm { rows, width, eps: 1e-5 };
    time(&mut group, &kernel, counts, 0, &[x.clone(), weight, bias, y.clone()]);
    let kernel = Add { rows, width };
    time(&mut group, &kernel, counts, 0, &[x.clone(), drawn(4, ROWS * WIDTH), y.clone()]);
    for function in [Function::Silu, Function::Gelu] {
        let kernel = Activation { function, rows, width };
        time(&mut group, &kernel, counts, 0, &[x.clone(), y.clone()]);
    }
    let ids: Vec<i32> = (0..ROWS as i32).map(|t| t * 7 % ROWS as i32).collect();
    let kernel = EmbedPacked::new(width, &host().expect("kernels need at least x86-64-v3"));
    let buffers = [i32_bytes(&ids), x, y];
    time(&mut group, &Embed { width }, counts, 0, &buffers);
    time(&mut group, &kernel, counts, 0, &buffers);

    let pixels = drawn(5, 3 * 448 * 448);
    let y = poisoned(pixels.len());
    let kernel = Patches { channels: 3, size: 448, patch: 14 };
    time(&mut group, &kernel, images(1), 0, &[pixels, y]);
    let x = drawn(6, 1_024 * 1_536);
    let y = poisoned(x.len());
    time(&mut group, &PixelShuffle { side: 32, width: 1_536 }, images(1), 0, &[x, y]);
    group.finish();
}
