//! Attention of the decoder and of the vision tower, and what stands before it.

use criterion::Criterion;
use sail_bench::{drawn, images, time};
use sail_ir::CacheScheme;
use sail_kernels::attention::{Attention, PageLayout, QkNormRopeWrite, TileAttention, rope_table};
use sail_kernels::emit::run::{Counts, i32_bytes, poisoned};

const HEADS: u32 = 16;
const KV_HEADS: u32 = 8;
const HEAD_DIM: u32 = 128;
const LAYOUT: PageLayout = PageLayout { head_dim: HEAD_DIM, scheme: CacheScheme::Bf16 };
const WIDTH: u32 = HEADS * HEAD_DIM;

/// First row and one past the last: decode near and far, a prompt, a chunk after a long prompt.
const CALLS: [(u32, u32); 4] = [(512, 513), (2_860, 2_861), (0, 512), (2_048, 2_560)];

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(20);
    let calls = CacheScheme::ALL.into_iter().flat_map(|scheme| CALLS.map(|call| (scheme, call)));
    for (scheme, (from, to)) in calls {
        let layout = PageLayout { scheme, ..LAYOUT };
        let kernel = Attention::new(HEADS, KV_HEADS, layout);
        let Call { counts, rows, page_table, cache } = call(from, to);
        let q = drawn(1, counts.tokens * WIDTH);
        let y = poisoned(q.len());
        let seen = u64::from(from + to).div_ceil(2);
        time(&mut group, &kernel, counts, seen, &[q, cache, rows, page_table, y]);
    }
    for (from, to) in [(512, 513), (0, 512)] {
        let (heads, kv_heads) = (HEADS, KV_HEADS);
        let kernel = QkNormRopeWrite { heads, kv_heads, layout: LAYOUT, eps: 1e-6 };
        let Call { counts, rows, page_table, cache } = call(from, to);
        let qkv = drawn(2, counts.tokens * (HEADS + 2 * KV_HEADS) * HEAD_DIM);
        let [q_norm, k_norm] = [3, 4].map(|seed| drawn(seed, HEAD_DIM));
        let table = rope_table(1e6, HEAD_DIM, to).iter().flat_map(|v| v.to_le_bytes()).collect();
        let q = poisoned(2 * (counts.tokens * WIDTH) as usize);
        let buffers = [qkv, q_norm, k_norm, table, rows, page_table, q, cache];
        time(&mut group, &kernel, counts, 0, &buffers);
    }
    group.finish();

    let mut group = criterion.benchmark_group("tile_attention");
    group.sample_size(20);
    let kernel = TileAttention::new(1_024, 12, HEAD_DIM);
    let qkv = drawn(5, 3 * 1_024 * 12 * HEAD_DIM);
    let y = poisoned(qkv.len() / 3);
    time(&mut group, &kernel, images(1), 0, &[qkv, y]);
    group.finish();
}

struct Call {
    counts: Counts,
    rows: Vec<u8>,
    page_table: Vec<u8>,
    cache: Vec<u8>,
}

/// Positions `from .. to` of one slot whose pages stand in reverse order.
fn call(from: u32, to: u32) -> Call {
    let rows: Vec<i32> = (from..to).flat_map(|position| [0, position as i32]).collect();
    let pages = to.div_ceil(64);
    let page_table: Vec<i32> = (0..pages as i32).rev().collect();
    let values = LAYOUT.block_bytes() / 2;
    Call {
        counts: Counts { tokens: to - from, pages_per_slot: pages, ..Counts::default() },
        rows: i32_bytes(&rows),
        page_table: i32_bytes(&page_table),
        cache: drawn(6, pages * KV_HEADS * values as u32),
    }
}
