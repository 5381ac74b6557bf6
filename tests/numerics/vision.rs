//! Kernels that move values of image tiles, against their twins.

use sail_kernels::emit::run::poisoned;
use sail_kernels::reference::{self, Picture};
use sail_kernels::vision::{Patches, PixelShuffle};
use sail_tests::harness::Test;

use super::check::{close, drawn, images, run};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("patches are read in the order channel, row, column", patches),
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
