//! Kernels of image tiles, against their twins.

use sail_ir::scheme::Scheme;
use sail_kernels::emit::run::{Loaded, poisoned, targets_here};
use sail_kernels::packing::Join;
use sail_kernels::reference::{self, Picture, Rounding};
use sail_kernels::vision::{PatchEmbed, PatchEmbedProblem, Patches, PixelShuffle};
use sail_tests::harness::Test;

use super::check::{close, drawn, images, run, run_loaded, scaled};
use super::products::{Weight, taken};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("patches are read in the order channel, row, column", patches),
        Test::new("patch_embed multiplies, normalises, then adds positions", patch_embed),
        Test::new("pixel_shuffle joins neighbouring patches in every tile", pixel_shuffle),
    ]
}

fn patches() {
    for (tiles, channels, size, patch) in
        [(1, 1, 2, 1), (2, 3, 42, 14), (3, 2, 20, 5), (1, 3, 64, 32)]
    {
        let kernel = Patches { channels: channels as u32, size: size as u32, patch: patch as u32 };
        let (pixels, values) = drawn(1, tiles * channels * size * size);
        let want = reference::patches(&values, Picture { channels, size, patch });
        let buffers = vec![pixels, poisoned(2 * want.len())];
        for (target, after) in run(&kernel, images(tiles), &buffers) {
            close(&kernel, &target, &after[1], &want);
        }
    }
}

fn patch_embed() {
    for (tiles, channels, size, patch, n) in
        [(1, 3, 4, 2, 32), (2, 3, 42, 14, 48), (3, 1, 15, 5, 33), (1, 3, 21, 3, 100)]
    {
        let k = channels * patch * patch;
        let (pixels, pixel_values) = drawn(1, tiles * channels * size * size);
        let (weight, _) = scaled(2, n * k, 1.0 / (k as f32).sqrt());
        let [(bias, bias_values), (norm, norm_values)] = [3, 4].map(|seed| drawn(seed, n));
        let (positions, position_values) = drawn(5, (size / patch) * (size / patch) * n);
        let picture = Picture { channels, size, patch };
        let patches = reference::patches(&pixel_values, picture);
        for (target, scheme) in targets_here()
            .into_iter()
            .flat_map(|target| Scheme::EVERYWHERE.map(|s| (target.clone(), s)))
        {
            let problem = PatchEmbedProblem {
                channels: channels as u32,
                size: size as u32,
                patch: patch as u32,
                n: n as u32,
                eps: 1e-5,
                scheme,
            };
            let kernel = PatchEmbed::new(problem, &target);
            let Weight { packed, values } =
                Weight::new(scheme, Join::One, &[(&weight, n as u64)], k, &target);
            let x = taken(scheme, &patches, k);
            let x = reference::linear_bias(&x, &values[0], &bias_values, Rounding::Exact);
            let normal = reference::rms_norm(&x, &norm_values, 1e-5, Rounding::Bf16);
            let want = reference::add_positions(&normal, &position_values, Rounding::Bf16);
            if scheme == Scheme::Bf16 {
                let embed = reference::PatchEmbed {
                    weight: &values[0],
                    bias: &bias_values,
                    norm: &norm_values,
                    positions: &position_values,
                    eps: 1e-5,
                };
                let whole = reference::patch_embed(&pixel_values, picture, &embed, Rounding::Bf16);
                assert_eq!(whole, want, "the twin is its parts");
            }
            let mut buffers = vec![pixels.clone(), packed];
            buffers.extend([&bias, &norm, &positions].map(Clone::clone));
            buffers.push(poisoned(2 * want.len()));
            let loaded = Loaded::new(&kernel, &target);
            let after = run_loaded(&kernel, &loaded, images(tiles), &buffers);
            close(&kernel, &target, &after[5], &want);
        }
    }
}

fn pixel_shuffle() {
    for (tiles, side, width) in [(1, 2, 1), (2, 4, 5), (3, 6, 48), (1, 8, 67)] {
        let kernel = PixelShuffle { side: side as u32, width: width as u32 };
        let (x, values) = drawn(2, tiles * side * side * width);
        let want = reference::pixel_shuffle(&values, side * side, width);
        let buffers = vec![x, poisoned(2 * want.len())];
        for (target, after) in run(&kernel, images(tiles), &buffers) {
            close(&kernel, &target, &after[1], &want);
        }
    }
}
