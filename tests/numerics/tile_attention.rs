//! Attention within an image tile, against its twin.

use sail_kernels::attention::TileAttention;
use sail_kernels::emit::run::poisoned;
use sail_kernels::reference::{self, Heads, Rounding};
use sail_tests::harness::Test;

use super::check::{close, images, run, scaled};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("tile_attention holds for any patches and head sizes", any_size),
        Test::new("tile_attention holds where one key takes all the weight", sharp),
        Test::new("a tile is attended to the same whatever its neighbours", neighbours),
    ]
}

fn check(tiles: usize, patches: usize, heads: usize, dim: usize, scale: f32) {
    let kernel = TileAttention::new(patches as u32, heads as u32, dim as u32);
    let (qkv, values) = scaled(patches as u64, tiles * patches * 3 * heads * dim, scale);
    let heads = Heads { query: heads, kv: heads, dim };
    let want = reference::tile_attention(&values, patches, heads, Rounding::Bf16);
    let buffers = vec![qkv, poisoned(2 * want.len())];
    for (target, after) in run(&kernel, images(tiles), &buffers) {
        close(&kernel, &target, &after[1], &want);
    }
}

fn any_size() {
    for (tiles, patches, heads, dim) in [
        (1, 1, 1, 2),
        (1, 16, 2, 20),
        (2, 49, 3, 64),
        (1, 64, 1, 128),
        (3, 100, 2, 16),
        (1, 131, 1, 80),
    ] {
        check(tiles, patches, heads, dim, 1.0);
    }
    check(1, 1024, 1, 128, 1.0);
}

fn sharp() {
    check(1, 100, 2, 64, 12.0);
}

fn neighbours() {
    let (patches, heads, dim) = (70, 2, 32);
    let kernel = TileAttention::new(70, 2, 32);
    let (qkv, _) = scaled(5, 3 * patches * 3 * heads * dim, 1.0);
    let (given, made) = (qkv.len() / 3, qkv.len() / 9);
    let all = run(&kernel, images(3), &vec![qkv.clone(), poisoned(3 * made)]);
    for tile in 0..3 {
        let alone = vec![qkv[tile * given..][..given].to_vec(), poisoned(made)];
        for ((target, one), (_, all)) in run(&kernel, images(1), &alone).iter().zip(&all) {
            assert_eq!(one[1], all[1][tile * made..][..made], "{target}, tile {tile}");
        }
    }
}
