//! RoPE, writing the cache, and attention over it, against their twins.

use std::collections::BTreeMap;

use sail_ir::CacheScheme;
use sail_kernels::Kernel;
use sail_kernels::attention::{CacheWrite, QkNormRopeWrite, Rope, rope_table};
use sail_kernels::emit::run::{Counts, bf16_values, i32_bytes, poisoned};
use sail_kernels::reference::{self, Cache, Heads, QkNormRope, Rounding, Row};
use sail_tests::harness::Test;

use super::check::{bytes_of, close, close_values, drawn, run, scaled};
use super::pages::{Filled, Pages, run_of};

const THETA: f64 = 1e6;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("rope turns every head by the position of its row", rope),
        Test::new("cache_write stores every position once and no other byte", cache_write),
        Test::new("qk_norm_rope_write gives the twin's queries, keys and values", fused_write),
        Test::new("attention holds for one row, page borders and several slots", attention),
        Test::new("attention holds for every head size and group", head_sizes),
        Test::new("attention holds after thousands of positions", long),
        Test::new("attention holds where one key takes all the weight", sharp),
        Test::new("a row attends the same whatever its neighbours and the chunk", chunks),
        Test::new("attention never reads what was not written", unwritten),
    ]
}

fn rope() {
    let rows = [run_of(0, 0, 5), run_of(2, 63, 66), run_of(1, 4_000, 4_001)].concat();
    for (heads, dim) in [(1, 2), (3, 20), (2, 64), (5, 128)] {
        let kernel = Rope { heads: heads as u32, head_dim: dim as u32 };
        let (x, values) = drawn(1, rows.len() * heads * dim);
        let want = reference::rope(&values, &rows, dim, THETA, Rounding::Bf16);
        let buffers =
            vec![x, table(dim, 4_001), i32_bytes(rows.as_flattened()), poisoned(2 * want.len())];
        let counts = Counts { tokens: rows.len() as u32, ..Counts::default() };
        for (target, after) in run(&kernel, counts, &buffers) {
            close(&kernel, &target, &after[3], &want);
        }
    }
}

fn table(dim: usize, positions: u32) -> Vec<u8> {
    let table = rope_table(THETA, dim as u32, positions);
    table.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Rows that cross page borders, begin and end on odd positions, and stand alone.
fn mixed_rows() -> Vec<Row> {
    [run_of(1, 61, 67), run_of(0, 0, 1), run_of(2, 127, 129), run_of(3, 5, 6), run_of(4, 0, 70)]
        .concat()
}

fn cache_write() {
    let rows = mixed_rows();
    let layouts =
        CacheScheme::ALL.into_iter().flat_map(|scheme| [false, true].map(|on| (scheme, on)));
    for ((scheme, plain), (kv, dim)) in
        layouts.flat_map(|layout| [(1, 2), (2, 20), (3, 64), (1, 128)].map(|sizes| (layout, sizes)))
    {
        let pages = Pages::new((Heads { query: kv, kv, dim }, scheme), 5, 3);
        let pages = if plain { pages.plainly() } else { pages };
        let kernel = CacheWrite { kv_heads: kv as u32, layout: pages.layout() };
        let (k, keys) = drawn(1, rows.len() * kv * dim);
        let (v, values) = drawn(2, rows.len() * kv * dim);
        let mut want = pages.pool();
        if scheme == CacheScheme::Int8 {
            pages.write_bytes(&mut want, &rows, [&keys, &values]);
        } else if plain {
            pages.write(&mut want, &rows, [&k, &v]);
        } else {
            let even: Vec<Row> = rows.iter().copied().filter(|row| row[1] % 2 == 0).collect();
            let zeros = vec![0; 2 * even.len() * kv * dim];
            pages.write(&mut want, &even, [&zeros, &zeros]);
            pages.write(&mut want, &rows, [&k, &v]);
        }
        let lists = [i32_bytes(rows.as_flattened()), i32_bytes(&pages.table)];
        let buffers = vec![k, v, lists[0].clone(), lists[1].clone(), pages.pool()];
        for (target, after) in pages.run(&kernel, &rows, &buffers) {
            // What a quad has beyond the last value of a head may be anything.
            let [got, want] = [&after[4], &want].map(|pool| match scheme {
                CacheScheme::Bf16 => (pool.clone(), [Vec::new(), Vec::new()]),
                CacheScheme::Int8 => (Vec::new(), pages.read(pool, &rows)),
            });
            assert!(got == want, "{target}, {kv} heads of {dim}");
        }
    }
}

fn fused_write() {
    let rows = mixed_rows();
    for heads in [
        Heads { query: 2, kv: 1, dim: 2 },
        Heads { query: 4, kv: 2, dim: 20 },
        Heads { query: 3, kv: 3, dim: 64 },
        Heads { query: 4, kv: 1, dim: 128 },
    ] {
        for scheme in CacheScheme::ALL {
            check_fused_write(&Pages::new((heads, scheme), 5, 3), &rows);
            check_fused_write(&Pages::new((heads, scheme), 5, 3).plainly(), &rows);
        }
    }
}

fn check_fused_write(pages: &Pages, rows: &[Row]) {
    let heads = pages.heads;
    let Heads { query, kv, dim } = heads;
    let (heads_, kv_heads) = (query as u32, kv as u32);
    let layout = pages.layout();
    let kernel = QkNormRopeWrite { heads: heads_, kv_heads, layout, eps: 1e-6 };
    let (qkv, values) = drawn(3, rows.len() * (query + 2 * kv) * dim);
    let (q_norm, q_values) = drawn(4, dim);
    let (k_norm, k_values) = drawn(5, dim);
    let parameters =
        QkNormRope { q_norm: &q_values, k_norm: &k_values, eps: 1e-6, theta: THETA, heads };
    let mut cache = Cache::default();
    let rounding = Rounding::Bf16;
    let want = reference::qk_norm_rope_write(&values, &parameters, rows, &mut cache, rounding);
    let stored: Vec<[Vec<f64>; 2]> =
        rows.iter().map(|row| cache.at(*row).expect("the twin stores every row").clone()).collect();
    let lists = [i32_bytes(rows.as_flattened()), i32_bytes(&pages.table)];
    let [row_list, page_table] = lists;
    let buffers = vec![
        qkv,
        q_norm,
        k_norm,
        table(dim, 129),
        row_list,
        page_table,
        poisoned(2 * want.len()),
        pages.pool(),
    ];
    for (target, after) in pages.run(&kernel, rows, &buffers) {
        close(&kernel, &target, &after[6], &want);
        let got = pages.read(&after[7], rows);
        for part in 0..2 {
            let want: Vec<f64> = stored.iter().flat_map(|kv| kv[part].clone()).collect();
            close_values(&kernel, &target, &got[part], &pages.kept(&want));
        }
    }
}

impl Filled {
    fn check(&self, rows: &[Row], scale: f32) {
        let heads = self.pages.heads;
        let (q, values) = scaled(8, rows.len() * heads.query * heads.dim, scale);
        let twin = match self.pages.scheme {
            CacheScheme::Bf16 => reference::attention,
            CacheScheme::Int8 => reference::attention_int8_by_integers,
        };
        let want = twin(&values, &self.cache, rows, heads, Rounding::Bf16);
        let kernel = self.kernel();
        for (target, after) in self.pages.run(&kernel, rows, &self.buffers(&q, rows)) {
            close(&kernel, &target, &after[4], &want);
        }
    }
}

fn attention() {
    CacheScheme::ALL.into_iter().for_each(attention_of);
}

fn attention_of(scheme: CacheScheme) {
    let filled =
        Filled::new(scheme, Heads { query: 4, kv: 2, dim: 64 }, &[1, 64, 65, 200, 131], 1.0);
    for rows in [
        run_of(0, 0, 1),
        run_of(1, 63, 64),
        run_of(2, 64, 65),
        run_of(3, 0, 200),
        run_of(3, 60, 133),
        [run_of(4, 130, 131), run_of(0, 0, 1), run_of(1, 12, 13), run_of(3, 199, 200)].concat(),
        [run_of(2, 0, 65), run_of(1, 63, 64), run_of(4, 100, 131), run_of(3, 7, 8)].concat(),
    ] {
        filled.check(&rows, 1.0);
    }
}

fn head_sizes() {
    for (query, kv, dim) in
        [(1, 1, 2), (2, 1, 20), (6, 2, 16), (16, 8, 128), (8, 1, 96), (60, 1, 32)]
    {
        for scheme in CacheScheme::ALL {
            let filled = Filled::new(scheme, Heads { query, kv, dim }, &[70, 3], 1.0);
            filled.check(&[run_of(0, 50, 70), run_of(1, 2, 3)].concat(), 1.0);
        }
    }
}

fn long() {
    for scheme in CacheScheme::ALL {
        let filled = Filled::new(scheme, Heads { query: 2, kv: 1, dim: 128 }, &[3_400], 1.0);
        filled.check(&[run_of(0, 2_860, 2_863), run_of(0, 3_399, 3_400)].concat(), 1.0);
    }
}

fn sharp() {
    for scheme in CacheScheme::ALL {
        let filled = Filled::new(scheme, Heads { query: 4, kv: 2, dim: 64 }, &[150], 8.0);
        filled.check(&run_of(0, 0, 150), 8.0);
    }
}

fn chunks() {
    CacheScheme::ALL.into_iter().for_each(chunks_of);
}

fn chunks_of(scheme: CacheScheme) {
    let filled = Filled::new(scheme, Heads { query: 4, kv: 2, dim: 64 }, &[150, 40], 1.0);
    let rows = [run_of(0, 0, 150), run_of(1, 0, 40)].concat();
    let width = 2 * 4 * 64;
    let (q, _) = drawn(9, rows.len() * width / 2);
    let kernel = filled.kernel();
    let mut whole: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (target, after) in filled.pages.run(&kernel, &rows, &filled.buffers(&q, &rows)) {
        whole.insert(target.name, after[4].clone());
    }
    for (from, to) in [(0, 1), (149, 150), (60, 70), (140, 160), (189, 190)] {
        let part = &rows[from..to];
        let buffers = filled.buffers(&q[from * width..to * width], part);
        for (target, after) in filled.pages.run(&kernel, part, &buffers) {
            let want = &whole[&target.name][from * width..to * width];
            assert!(after[4] == want, "{target}: rows {from}..{to} differ from those of the whole");
        }
    }
}

fn unwritten() {
    CacheScheme::ALL.into_iter().for_each(unwritten_of);
}

fn unwritten_of(scheme: CacheScheme) {
    // The pools of all tests here begin as NaN; this one also looks for them by name.
    let filled = Filled::new(scheme, Heads { query: 2, kv: 1, dim: 20 }, &[1, 2, 33, 64], 1.0);
    let rows = [run_of(0, 0, 1), run_of(1, 1, 2), run_of(2, 32, 33), run_of(3, 63, 64)].concat();
    let q = bytes_of(&vec![1.0; rows.len() * 40]);
    let kernel = filled.kernel();
    for (target, after) in filled.pages.run(&kernel, &rows, &filled.buffers(&q, &rows)) {
        let all_numbers = bf16_values(&after[4]).iter().all(|v| v.is_finite());
        assert!(all_numbers, "{target}, `{}`", kernel.symbol());
    }
}
