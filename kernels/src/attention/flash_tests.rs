//! Attention for CUDA targets against its twins, executed from its PTX, and judged by ptxas.

use sail_ir::scheme::CacheScheme;
use sail_ir::target::Target;

use super::{Attention, PageLayout, PlainPage, TileAttention};
use crate::emit::gpu::simulate::{Simulated, others, without_order};
use crate::emit::run::{Counts, bf16_bytes, bf16_values, i32_bytes, poisoned, random};
use crate::kernel::Kernel;
use crate::ptxas::tests::assemble_all;
use crate::reference::{self, Cache, Heads, Rounding, Row};
use crate::table::template;

const PAGE: usize = 64;

pub(super) fn drawn(seed: u64, count: usize) -> (Vec<u8>, Vec<f64>) {
    let bytes = bf16_bytes(&random(seed, count));
    let values = bf16_values(&bytes).into_iter().map(f64::from).collect();
    (bytes, values)
}

/// A cache with positions `0 .. lengths` of slots, and rows that look at it.
pub(super) struct Case<'a> {
    pub heads: Heads,
    pub scheme: CacheScheme,
    pub lengths: &'a [i32],
    pub rows: &'a [Row],
    /// Most rows of a call of the kernel.
    pub most_rows: u32,
}

pub(super) fn run_of(slot: i32, from: i32, to: i32) -> Vec<Row> {
    (from..to).map(|position| [slot, position]).collect()
}

/// Where an entry of the cache stands.
struct Pool<'a> {
    case: &'a Case<'a>,
    page: PlainPage,
    pages_per_slot: usize,
    table: Vec<i32>,
    bytes: Vec<u8>,
}

impl<'a> Pool<'a> {
    /// What was not written is no number, or a scale that is none.
    fn new(case: &'a Case<'a>) -> Self {
        let page = PlainPage { head_dim: case.heads.dim as u32, scheme: case.scheme };
        let pages = case.lengths.iter().map(|n| (*n as usize).div_ceil(PAGE));
        let pages_per_slot = pages.max().expect("there is a slot");
        let pages = case.lengths.len() * pages_per_slot + 1;
        let table = (0..pages - 1).rev().map(|page| page as i32).collect();
        let bytes = vec![0xff; pages * case.heads.kv * page.block_bytes() as usize];
        Self { case, page, pages_per_slot, table, bytes }
    }

    fn block(&self, [slot, position]: Row, head: usize) -> (usize, u64) {
        let [slot, position] = [slot, position].map(|v| v as usize);
        let number = self.table[slot * self.pages_per_slot + position / PAGE] as usize;
        let block = (number * self.case.heads.kv + head) * self.page.block_bytes() as usize;
        (block, (position % PAGE) as u64)
    }

    /// Store one head's key or value of a row.
    fn put(&mut self, row: Row, head: usize, part: usize, values: &[f64]) {
        let (block, within) = self.block(row, head);
        let offset = match part {
            0 => self.page.key_offset(within, 0),
            _ => self.page.value_offset(within, 0),
        };
        let at = block + offset as usize;
        match self.case.scheme {
            CacheScheme::Bf16 => {
                let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
                let bytes = bf16_bytes(&values);
                self.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            CacheScheme::Int8 => {
                let greatest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs() as f32));
                let inverse = if greatest == 0.0 { 0.0 } else { 127.0 / greatest };
                for (i, value) in values.iter().enumerate() {
                    self.bytes[at + i] = (*value as f32 * inverse).round_ties_even() as i8 as u8;
                }
                let scale = block + self.page.scale_offsets(within)[part] as usize;
                self.bytes[scale..scale + 4].copy_from_slice(&(greatest / 127.0).to_le_bytes());
            }
        }
    }
}

impl Case<'_> {
    fn kernel(&self, target: &Target) -> Box<dyn Kernel> {
        attention_over(self.scheme, self.heads)
            .on_gpu_for(target, self.most_rows)
            .expect("it has code")
    }

    fn counts(&self, pool: &Pool<'_>) -> Counts {
        let pages_per_slot = pool.pages_per_slot as u32;
        Counts { tokens: self.rows.len() as u32, pages_per_slot, ..Counts::default() }
    }

    /// The pool, the buffers of the kernel, and what the twin gives.
    fn prepared(&self) -> (Pool<'_>, Vec<Vec<u8>>, Vec<f64>) {
        let Heads { query, kv, dim } = self.heads;
        let slots = self.lengths.iter().enumerate();
        let all: Vec<Row> = slots.flat_map(|(slot, n)| run_of(slot as i32, 0, *n)).collect();
        let kv_values = [1, 2].map(|seed| drawn(seed, all.len() * kv * dim).1);
        let mut pool = Pool::new(self);
        for (t, row) in all.iter().enumerate() {
            for (part, values) in kv_values.iter().enumerate() {
                for head in 0..kv {
                    pool.put(*row, head, part, &values[(t * kv + head) * dim..][..dim]);
                }
            }
        }
        let [keys, values] = kv_values.map(|values| match self.scheme {
            CacheScheme::Bf16 => values,
            CacheScheme::Int8 => reference::quantized_rows(&values, dim),
        });
        let twin = match self.scheme {
            CacheScheme::Bf16 => reference::attention,
            CacheScheme::Int8 => reference::attention_int8,
        };
        let mut cache = Cache::default();
        reference::cache_write(&mut cache, &keys, &values, &all);
        let (q, queries) = drawn(3, self.rows.len() * query * dim);
        let want = twin(&queries, &cache, self.rows, self.heads, Rounding::Bf16);
        let (row_list, table) = (i32_bytes(self.rows.as_flattened()), i32_bytes(&pool.table));
        let buffers = vec![q, pool.bytes.clone(), row_list, table, poisoned(2 * want.len())];
        (pool, buffers, want)
    }

    /// What the kernel gives, which must be what its twin does.
    pub fn run(&self, target: &str) -> Vec<u8> {
        let target = Target::parse(target).unwrap();
        let kernel = self.kernel(&target);
        self.run_of(kernel.as_ref(), &target)
    }

    /// As [`Self::run`], of this `kernel`.
    fn run_of(&self, kernel: &dyn Kernel, target: &Target) -> Vec<u8> {
        let (pool, buffers, want) = self.prepared();
        let after = Simulated::new(kernel, target).run(self.counts(&pool), &buffers);
        close(kernel.family(), &after[4], &want);
        after[4].clone()
    }
}

/// Over a cache of bf16.
pub(super) fn attention(heads: Heads) -> Attention {
    attention_over(CacheScheme::Bf16, heads)
}

fn attention_over(scheme: CacheScheme, Heads { query, kv, dim }: Heads) -> Attention {
    let layout = PageLayout { head_dim: dim as u32, scheme };
    Attention::new(query as u32, kv as u32, layout)
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

const TARGETS: [&str; 2] = ["sm_80", "sm_90"];

#[test]
fn rows_that_walk_pages_together_are_the_twin() {
    let rows = [run_of(1, 61, 67), run_of(0, 0, 1), run_of(2, 127, 130), run_of(3, 0, 70)].concat();
    for heads in SIZES {
        for scheme in CacheScheme::ALL {
            let lengths = &[1, 67, 130, 70];
            for target in TARGETS {
                Case { heads, scheme, lengths, rows: &rows, most_rows: 4096 }.run(target);
            }
        }
    }
}

#[test]
fn rows_alone_are_the_twin() {
    let rows = [[0, 0], [1, 66], [2, 129], [3, 63], [4, 500], [5, 62], [6, 64], [7, 15]];
    let lengths = &[1, 67, 130, 64, 501, 63, 65, 16];
    for heads in SIZES {
        for scheme in CacheScheme::ALL {
            for target in TARGETS {
                for rows in [&rows[..], &rows[4..5], &rows[5..]] {
                    Case { heads, scheme, lengths, rows, most_rows: 8 }.run(target);
                }
            }
        }
    }
}

#[test]
fn rows_alone_see_thousands_of_positions() {
    let heads = Heads { query: 16, kv: 8, dim: 128 };
    for scheme in CacheScheme::ALL {
        let rows = &[[0, 2_299]];
        Case { heads, scheme, lengths: &[2_300], rows, most_rows: 1 }.run("sm_90");
    }
    // More blocks than are joined at once, each with several runs.
    let heads = Heads { query: 2, kv: 1, dim: 32 };
    for target in TARGETS {
        let rows = &[[0, 4_099], [1, 2_047]];
        let scheme = CacheScheme::Bf16;
        Case { heads, scheme, lengths: &[4_100, 2_048], rows, most_rows: 8 }.run(target);
    }
}

/// However positions are shared out: among blocks and warps, among clusters.
#[test]
fn every_config_is_the_twin() {
    let (lengths, rows) = (&[520, 40], &[[0, 518], [0, 519], [1, 39]]);
    let heads = Heads { query: 4, kv: 2, dim: 64 };
    let mut seen = 0;
    for (target, scheme, most_rows) in [
        ("sm_80", CacheScheme::Bf16, 8),
        ("sm_90", CacheScheme::Int8, 64),
        ("sm_90", CacheScheme::Bf16, 4096),
    ] {
        let case = Case { heads, scheme, lengths, rows, most_rows };
        let target = Target::parse(target).unwrap();
        for (other, reorders) in others(case.kernel(&target).as_ref()) {
            assert!(reorders, "{}", other.symbol());
            case.run_of(other.as_ref(), &target);
            seen += 1;
        }
    }
    assert!(seen >= 15, "{seen} configs");
}

#[test]
fn heads_are_grouped_by_any_number() {
    for group in [1, 2, 5, 8, 9, 16, 17, 60] {
        let heads = Heads { query: group, kv: 1, dim: 48 };
        for scheme in CacheScheme::ALL {
            let (lengths, rows) = (&[150, 3], &[[0, 149], [1, 1], [1, 2]]);
            Case { heads, scheme, lengths, rows, most_rows: 8 }.run("sm_90");
        }
    }
    let heads = Heads { query: 65, kv: 1, dim: 48 };
    let target = Target::parse("sm_90").unwrap();
    assert!(attention(heads).on_gpu_for(&target, 8).is_none());
}

#[test]
fn a_row_attends_the_same_whatever_its_neighbours() {
    let heads = SIZES[0];
    let rows = [run_of(0, 40, 100), run_of(1, 3, 9)].concat();
    for scheme in CacheScheme::ALL {
        for (target, most_rows) in [("sm_80", 8), ("sm_80", 4096), ("sm_90", 4096)] {
            let case = Case { heads, scheme, lengths: &[100, 9], rows: &rows, most_rows };
            let together = case.run(target);
            // The queries of a call are drawn from its first row on: cut the rows at the end.
            for cut in [1, 33, 61] {
                let part = Case { rows: &rows[..cut], ..case }.run(target);
                assert_eq!(part, together[..part.len()], "{cut} rows");
            }
        }
    }
}

/// Each instruction that orders warps, copies and blocks is missed where it lacks or is weaker.
#[test]
fn blocks_that_join_without_order_are_noticed() {
    let heads = Heads { query: 4, kv: 2, dim: 16 };
    let rows = &[[0, 2_299], [1, 40]];
    for scheme in CacheScheme::ALL {
        let case = Case { heads, scheme, lengths: &[2_300, 41], rows, most_rows: 8 };
        let (pool, buffers, _) = case.prepared();
        let target = Target::parse("sm_90").unwrap();
        let kernel = case.kernel(&target);
        // Groups of nothing are counted, too, and blocks without work wait for those before them.
        let spared = ["cp.async.commit_group", "griddepcontrol.wait"];
        let run = (case.counts(&pool), &buffers[..]);
        let found = without_order(kernel.as_ref(), &target, run, &spared);
        assert_eq!(found.missed, Vec::<String>::new(), "{scheme}: nobody misses these");
        let counter = found.tried["atom.acq_rel.gpu.global.inc.u32"];
        assert_eq!(counter, 3, "acquires, releases, neither");
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
    let sizes = sizes.into_iter().flat_map(|heads| CacheScheme::ALL.map(|scheme| (heads, scheme)));
    let sizes: Vec<_> = sizes.collect();
    for name in ["sm_80", "sm_90"] {
        let target = Target::parse(name).unwrap();
        let tile = TileAttention::new(1024, 12, 128);
        let mut kernels = vec![tile.on_gpu_for(&target, 1).unwrap()];
        for (heads, scheme) in &sizes {
            for most_rows in [8, 4096] {
                kernels
                    .push(attention_over(*scheme, *heads).on_gpu_for(&target, most_rows).unwrap());
            }
        }
        // Three blocks that walk pages together have room beside each other.
        assemble_all(&target, &kernels, 168);
    }
}
