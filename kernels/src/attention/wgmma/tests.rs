//! Attention by warpgroups against its twin, executed from its PTX, and judged by ptxas.

use sail_ir::scheme::CacheScheme;
use sail_ir::target::Target;

use super::super::flash_tests::{Case, attention, close, drawn, run_of};
use crate::attention::TileAttention;
use crate::emit::gpu::simulate::Simulated;
use crate::emit::run::{Counts, poisoned};
use crate::kernel::Kernel;
use crate::ptxas::tests::{MOST_REGISTERS, assemble_all};
use crate::reference::{self, Heads, Rounding, Row};

fn by_warpgroups(heads: Heads, most_rows: u32) -> Box<dyn Kernel> {
    let target = Target::parse("sm_90").unwrap();
    attention(heads).on_gpu_for(&target, most_rows).expect("it has code")
}

/// What the kernel gives, which must be what its twin does.
fn run(heads: Heads, (lengths, rows): (&[i32], &[Row]), most_rows: u32) -> Vec<u8> {
    Case { heads, scheme: CacheScheme::Bf16, lengths, rows, most_rows }.run("sm_90")
}

/// Classes of which blocks take all steps, and in which clusters of 2, 4 and 8 share them.
const CLASSES: [(u32, u32); 4] = [(4096, 1), (2048, 2), (1024, 4), (512, 8)];

#[test]
fn every_size_of_group_and_head_is_the_twin() {
    for (query, kv, dim) in [(2, 2, 64), (2, 1, 128), (4, 1, 64), (8, 1, 128)] {
        let heads = Heads { query, kv, dim };
        let rows = [run_of(2, 250, 263), run_of(0, 0, 2), run_of(1, 100, 129), run_of(3, 7, 8)];
        let lengths = [2, 129, 263, 8];
        assert!(by_warpgroups(heads, 4096).symbol().contains("wgmma"));
        run(heads, (&lengths, &rows.concat()), 4096);
    }
}

#[test]
fn clusters_that_share_steps_are_the_twin() {
    for (dim, from, to) in [(128, 1100, 1112), (64, 500, 566), (128, 0, 3)] {
        let heads = Heads { query: 4, kv: 2, dim };
        let rows = [run_of(1, from, to), run_of(0, 60, 61)].concat();
        for (most_rows, parts) in CLASSES {
            let block = by_warpgroups(heads, most_rows).thread_block().unwrap();
            assert_eq!(block.cluster, parts, "for {most_rows} rows");
            run(heads, (&[61, to], &rows), most_rows);
        }
    }
}

#[test]
fn a_row_is_the_same_whatever_its_neighbours() {
    let heads = Heads { query: 4, kv: 2, dim: 64 };
    let rows = [run_of(0, 90, 160), run_of(1, 3, 9)].concat();
    for (most_rows, _) in [CLASSES[0], CLASSES[1], CLASSES[3]] {
        let together = run(heads, (&[160, 9], &rows), most_rows);
        // The queries of a call are drawn from its first row on: cut the rows at the end.
        for cut in [1, 39, 71] {
            let part = run(heads, (&[160, 9], &rows[..cut]), most_rows);
            assert_eq!(part, together[..part.len()], "{cut} rows of at most {most_rows}");
        }
    }
}

#[test]
fn a_tile_is_not_touched_by_what_stands_after_it() {
    for (patches, dim) in [(100, 64), (130, 128)] {
        let sizes = Heads { query: 2, kv: 2, dim };
        let (mut qkv, values) = drawn(4, patches * 3 * 2 * dim);
        let want = reference::tile_attention(&values, patches, sizes, Rounding::Bf16);
        // The second tile is no numbers; boxes of the first one's last step reach into it.
        qkv.extend(vec![0xff; qkv.len()]);
        let target = Target::parse("sm_90").unwrap();
        let problem = TileAttention::new(patches as u32, 2, dim as u32);
        let kernel = problem.on_gpu_for(&target, 2).expect("it has code");
        let counts = Counts { images: 2, ..Counts::default() };
        let buffers = vec![qkv, poisoned(4 * want.len())];
        let after = Simulated::new(kernel.as_ref(), &target).run(counts, &buffers);
        close("tile_attention", &after[1][..2 * want.len()], &want);
    }
}

#[test]
fn products_are_not_serialised_and_nothing_spills() {
    let target = Target::parse("sm_90").unwrap();
    let mut kernels = Vec::new();
    for (query, kv, dim) in [(16, 8, 128), (32, 8, 128), (32, 4, 128), (4, 4, 64)] {
        let heads = Heads { query, kv, dim };
        kernels.extend([128, 256, 512, 4096].map(|most_rows| by_warpgroups(heads, most_rows)));
    }
    for (patches, heads, dim) in [(1024, 12, 128), (100, 4, 64)] {
        let tile = TileAttention::new(patches, heads, dim);
        kernels.push(tile.on_gpu_for(&target, 1).expect("it has code"));
    }
    kernels.dedup_by_key(|kernel| kernel.symbol());
    let text = assemble_all(&target, &kernels, MOST_REGISTERS);
    assert!(text.contains("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16"));
}
