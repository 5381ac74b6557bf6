//! Attention for CUDA targets against its twins, executed from its PTX, and judged by ptxas.

use sail_ir::scheme::CacheScheme;
use sail_ir::target::Target;

use super::{Attention, PageLayout, PlainPage, TileAttention};
use crate::emit::gpu::simulate::Simulated;
use crate::emit::run::{Counts, bf16_bytes, bf16_values, i32_bytes, poisoned, random};
use crate::kernel::Kernel;
use crate::ptx::ptx;
use crate::ptxas;
use crate::reference::{self, Cache, Heads, Rounding, Row};
use crate::table::template;

const PAGE: usize = 64;

pub(super) fn drawn(seed: u64, count: usize) -> (Vec<u8>, Vec<f64>) {
    let bytes = bf16_bytes(&random(seed, count));
    let values = bf16_values(&bytes).into_iter().map(f64::from).collect();
    (bytes, values)
}

pub(super) fn attention(Heads { query, kv, dim }: Heads) -> Attention {
    let layout = PageLayout { head_dim: dim as u32, scheme: CacheScheme::Bf16 };
    Attention::new(query as u32, kv as u32, layout)
}

pub(super) fn run_of(slot: i32, from: i32, to: i32) -> Vec<Row> {
    (from..to).map(|position| [slot, position]).collect()
}

/// What the kernel for at most `most_rows` rows gives for `rows`, over slots with positions
/// `0 .. lengths`, and what its twin does.
pub(super) fn run(
    target: &str,
    heads: Heads,
    (lengths, rows): (&[i32], &[Row]),
    most_rows: u32,
) -> (Vec<u8>, Vec<f64>) {
    let Heads { query, kv, dim } = heads;
    let page = PlainPage { head_dim: dim as u32 };
    let pages_per_slot = lengths.iter().map(|n| (*n as usize).div_ceil(PAGE)).max().unwrap();
    let pages = lengths.len() * pages_per_slot + 1;
    let table: Vec<i32> = (0..pages - 1).rev().map(|page| page as i32).collect();
    let all: Vec<Row> =
        lengths.iter().enumerate().flat_map(|(slot, n)| run_of(slot as i32, 0, *n)).collect();
    let [(k, keys), (v, values)] = [1, 2].map(|seed| drawn(seed, all.len() * kv * dim));
    // What was not written is no number.
    let mut pool = vec![0xff; pages * kv * page.block_bytes() as usize];
    for (t, [slot, position]) in all.iter().enumerate() {
        let [slot, position] = [slot, position].map(|v| *v as usize);
        let number = table[slot * pages_per_slot + position / PAGE] as usize;
        let within = (position % PAGE) as u64;
        for head in 0..kv {
            let block = (number * kv + head) * page.block_bytes() as usize;
            let from = 2 * (t * kv + head) * dim;
            for (offset, bytes) in
                [(page.key_offset(within, 0), &k), (page.value_offset(within, 0), &v)]
            {
                let to = block + offset as usize;
                pool[to..to + 2 * dim].copy_from_slice(&bytes[from..from + 2 * dim]);
            }
        }
    }
    let mut cache = Cache::default();
    reference::cache_write(&mut cache, &keys, &values, &all);
    let (q, queries) = drawn(3, rows.len() * query * dim);
    let want = reference::attention(&queries, &cache, rows, heads, Rounding::Bf16);
    let target = Target::parse(target).unwrap();
    let kernel = attention(heads).on_gpu_for(&target, most_rows).expect("it has code");
    let lists = [i32_bytes(rows.as_flattened()), i32_bytes(&table)];
    let [row_list, page_table] = lists;
    let buffers = vec![q, pool, row_list, page_table, poisoned(2 * want.len())];
    let counts = Counts {
        tokens: rows.len() as u32,
        pages_per_slot: pages_per_slot as u32,
        ..Counts::default()
    };
    let after = Simulated::new(kernel.as_ref(), &target).run(counts, &buffers);
    (after.last().unwrap().clone(), want)
}

pub(super) fn close(family: &str, got: &[u8], want: &[f64]) {
    let row = template(family).expect("every template has a row");
    let beyond = row.tolerance.first_beyond(&bf16_values(got), want);
    assert_eq!(beyond, None, "(index, got, want)");
}

const SIZES: [Heads; 4] = [
    Heads { query: 4, kv: 2, dim: 128 },
    Heads { query: 8, kv: 1, dim: 64 },
    Heads { query: 3, kv: 1, dim: 20 },
    Heads { query: 2, kv: 2, dim: 2 },
];

#[test]
fn rows_that_walk_pages_together_are_the_twin() {
    for heads in SIZES {
        let rows = [run_of(1, 61, 67), run_of(0, 0, 1), run_of(2, 127, 130), run_of(3, 0, 70)];
        for target in ["sm_80", "sm_90"] {
            let (got, want) = run(target, heads, (&[1, 67, 130, 70], &rows.concat()), 4096);
            close("attention", &got, &want);
        }
    }
}

#[test]
fn rows_alone_are_the_twin() {
    for heads in SIZES {
        let rows = [[0, 0], [1, 66], [2, 129], [3, 63], [4, 700]];
        let (got, want) = run("sm_80", heads, (&[1, 67, 130, 64, 701], &rows), 8);
        close("attention", &got, &want);
    }
}

#[test]
fn a_row_attends_the_same_whatever_its_neighbours() {
    let heads = SIZES[0];
    let rows = [run_of(0, 40, 100), run_of(1, 3, 9)].concat();
    for (target, most_rows) in [("sm_80", 8), ("sm_80", 4096), ("sm_90", 4096)] {
        let (together, _) = run(target, heads, (&[100, 9], &rows), most_rows);
        // The queries of a call are drawn from its first row on: cut the rows at the end.
        for cut in [1, 33, 61] {
            let (part, _) = run(target, heads, (&[100, 9], &rows[..cut]), most_rows);
            assert_eq!(part, together[..part.len()], "{cut} rows");
        }
    }
}

#[test]
fn patches_attend_to_all_patches_of_their_tile() {
    let sizes =
        [(2, 64, 2, 128), (1, 100, 3, 20), (2, 9, 1, 64), (1, 256, 2, 128), (2, 300, 1, 64)];
    for (tiles, patches, heads, dim) in sizes {
        let (qkv, values) = drawn(4, tiles * patches * 3 * heads * dim);
        let sizes = Heads { query: heads, kv: heads, dim };
        let want = reference::tile_attention(&values, patches, sizes, Rounding::Bf16);
        let problem = TileAttention::new(patches as u32, heads as u32, dim as u32);
        for target in ["sm_80", "sm_90"] {
            let target = Target::parse(target).unwrap();
            let kernel = problem.on_gpu_for(&target, 1).expect("it has code");
            let counts = Counts { images: tiles as u32, ..Counts::default() };
            let buffers = vec![qkv.clone(), poisoned(2 * want.len())];
            let after = Simulated::new(kernel.as_ref(), &target).run(counts, &buffers);
            close("tile_attention", &after[1], &want);
        }
    }
}

#[test]
fn attention_of_the_models_assembles_without_spills() {
    let sizes = [(16, 8), (32, 8), (32, 4)].map(|(query, kv)| Heads { query, kv, dim: 128 });
    for name in ["sm_80", "sm_90"] {
        let target = Target::parse(name).unwrap();
        let tile = TileAttention::new(1024, 12, 128);
        let mut kernels = vec![tile.on_gpu_for(&target, 1).unwrap()];
        for heads in sizes {
            for most_rows in [8, 4096] {
                kernels.push(attention(heads).on_gpu_for(&target, most_rows).unwrap());
            }
        }
        let kernels: Vec<&dyn Kernel> = kernels.iter().map(AsRef::as_ref).collect();
        let text = ptx(&kernels, &target, 2).unwrap_or_else(|error| panic!("{error}")).text;
        let Some(ptxas) = ptxas::find() else {
            eprintln!("SKIPPED: there is no ptxas here to judge PTX for {target}");
            continue;
        };
        let cubin = ptxas::assemble(&ptxas, &text, target.ptx_architecture().unwrap())
            .unwrap_or_else(|error| panic!("{error}"));
        for usage in &cubin.usage {
            eprintln!("{name} {} {}", usage.registers, usage.entry);
            assert_eq!((usage.spill_bytes, usage.stack_bytes), (0, 0), "{usage:?}");
            // Three blocks that walk pages together have room beside each other.
            assert!(usage.registers <= 168, "{usage:?}");
        }
        assert_eq!(cubin.warnings, Vec::<String>::new());
    }
}
