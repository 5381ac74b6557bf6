//! RoPE, writing the cache, and attention over it, against their twins.

use std::collections::BTreeMap;

use sail_ir::CacheScheme;
use sail_ir::target::Target;
use sail_kernels::Kernel;
use sail_kernels::attention::{
    Attention, CacheWrite, PageLayout, PlainPage, QkNormRopeWrite, Rope, rope_table,
};
use sail_kernels::emit::run::{Counts, bf16_values, f32_values, i32_bytes, poisoned};
use sail_kernels::reference::{self, Cache, Heads, QkNormRope, Rounding, Row};
use sail_tests::harness::Test;

use super::check::{Buffers, bytes_of, close, close_values, drawn, run, run_here, scaled};
use super::simulated::run_on_gpus;

const THETA: f64 = 1e6;
const PAGE: usize = 64;

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

/// A pool of pages and who has which.
struct Pages {
    heads: Heads,
    scheme: CacheScheme,
    /// Row by row, as on CUDA targets.
    plain: bool,
    /// `[slots][pages_per_slot]`
    table: Vec<i32>,
    pages_per_slot: usize,
    pages: usize,
}

impl Pages {
    /// Room for `slots` slots of `pages_per_slot` pages each, handed out in a mixed order.
    fn new((heads, scheme): (Heads, CacheScheme), slots: usize, pages_per_slot: usize) -> Self {
        let pages = slots * pages_per_slot + 3;
        let step = (5..).find(|step| gcd(*step, pages) == 1).expect("some step is coprime");
        let table = (0..slots * pages_per_slot).map(|i| ((i + 1) * step % pages) as i32).collect();
        Self { heads, scheme, plain: false, table, pages_per_slot, pages }
    }

    /// The same pages, each row by row.
    fn plainly(self) -> Self {
        Self { plain: true, ..self }
    }

    fn layout(&self) -> PageLayout {
        PageLayout { head_dim: self.heads.dim as u32, scheme: self.scheme }
    }

    fn counts(&self, rows: &[Row]) -> Counts {
        Counts {
            tokens: rows.len() as u32,
            pages_per_slot: self.pages_per_slot as u32,
            ..Counts::default()
        }
    }

    /// What `kernel` makes of `buffers` where the cache is laid out like this.
    fn run(&self, kernel: &dyn Kernel, rows: &[Row], buffers: &Buffers) -> Vec<(Target, Buffers)> {
        let run = if self.plain { run_on_gpus } else { run_here };
        run(kernel, self.counts(rows), buffers)
    }

    /// A pool of NaN.
    fn pool(&self) -> Vec<u8> {
        vec![0xff; self.pages * self.heads.kv * self.layout().block_bytes() as usize]
    }

    /// Byte of the pool at which the block of `head` begins that has `row`, and its place in there.
    fn block(&self, row: Row, head: usize) -> (usize, u64) {
        let [slot, position] = row.map(|v| v as usize);
        let page = self.table[slot * self.pages_per_slot + position / PAGE] as usize;
        let block = (page * self.heads.kv + head) * self.layout().block_bytes() as usize;
        (block, (position % PAGE) as u64)
    }

    /// Bytes of the pool at which the scales of the key and of the value of `head` stand.
    fn scales(&self, row: Row, head: usize) -> [usize; 2] {
        // The same place whatever the order of what they are for.
        let (block, position) = self.block(row, head);
        self.layout().scale_offsets(position).map(|offset| block + offset as usize)
    }

    /// Bytes of the pool at which value `i` of the key and of the value of `head` stand.
    fn places(&self, row: Row, head: usize, i: usize) -> [usize; 2] {
        let (block, position) = self.block(row, head);
        let i = i as u64;
        let offsets = if self.plain {
            let page = PlainPage::of(self.layout());
            [page.key_offset(position, i), page.value_offset(position, i)]
        } else {
            let layout = self.layout();
            [layout.key_offset(position, i), layout.value_offset(position, i)]
        };
        offsets.map(|offset| block + offset as usize)
    }

    /// Keys and values of `rows` in `pool`, `[t, g·e]` each.
    fn read(&self, pool: &[u8], rows: &[Row]) -> [Vec<f32>; 2] {
        let mut read = [Vec::new(), Vec::new()];
        for row in rows {
            for (head, i) in self.values() {
                for (part, at) in self.places(*row, head, i).into_iter().enumerate() {
                    read[part].push(match self.scheme {
                        CacheScheme::Bf16 => bf16_values(&pool[at..at + 2])[0],
                        CacheScheme::Int8 => {
                            let scale = self.scales(*row, head)[part];
                            f32::from(pool[at] as i8) * f32_values(&pool[scale..scale + 4])[0]
                        }
                    });
                }
            }
        }
        read
    }

    /// Quantized keys and values of `rows` into `pool`.
    fn write_bytes(&self, pool: &mut [u8], rows: &[Row], kv: [&[f64]; 2]) {
        let Heads { kv: heads, dim, .. } = self.heads;
        for (t, row) in rows.iter().enumerate() {
            for head in 0..heads {
                let scales = self.scales(*row, head);
                for part in 0..2 {
                    let values = &kv[part][(t * heads + head) * dim..][..dim];
                    let greatest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs() as f32));
                    pool[scales[part]..][..4].copy_from_slice(&(greatest / 127.0).to_le_bytes());
                    let inverse = if greatest == 0.0 { 0.0 } else { 127.0 / greatest };
                    for (i, value) in values.iter().enumerate() {
                        let integer = (*value as f32 * inverse).round_ties_even() as i8;
                        pool[self.places(*row, head, i)[part]] = integer as u8;
                    }
                }
            }
        }
    }

    /// `[t, g·e]` as this cache gives them back.
    fn kept(&self, values: &[f64]) -> Vec<f64> {
        match self.scheme {
            CacheScheme::Bf16 => values.to_vec(),
            CacheScheme::Int8 => reference::quantized_rows(values, self.heads.dim),
        }
    }

    /// Write keys and values `[t, g·e]` of `rows`, and, where pairs of positions stand together, zeros
    /// beside an even position, as the kernels do.
    fn write(&self, pool: &mut [u8], rows: &[Row], kv: [&[u8]; 2]) {
        let width = self.heads.kv * self.heads.dim;
        for (t, row) in rows.iter().enumerate() {
            for (n, (head, i)) in self.values().enumerate() {
                let from = 2 * (t * width + n);
                let [key, value] = self.places(*row, head, i);
                pool[key..key + 2].copy_from_slice(&kv[0][from..from + 2]);
                pool[value..value + 2].copy_from_slice(&kv[1][from..from + 2]);
                if row[1] % 2 == 0 && !self.plain {
                    pool[value + 2..value + 4].fill(0);
                }
            }
        }
    }

    fn values(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let Heads { kv, dim, .. } = self.heads;
        (0..kv).flat_map(move |head| (0..dim).map(move |i| (head, i)))
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Positions `from .. to` of a slot.
fn run_of(slot: i32, from: i32, to: i32) -> Vec<Row> {
    (from..to).map(|position| [slot, position]).collect()
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

/// A filled cache: every slot has positions `0 .. length`.
struct Filled {
    pages: Pages,
    pool: Vec<u8>,
    cache: Cache,
}

impl Filled {
    fn new(scheme: CacheScheme, heads: Heads, lengths: &[i32], scale: f32) -> Self {
        let longest = lengths.iter().max().expect("there is a slot");
        let pages = Pages::new((heads, scheme), lengths.len(), (*longest as usize).div_ceil(PAGE));
        let rows: Vec<Row> =
            lengths.iter().enumerate().flat_map(|(s, n)| run_of(s as i32, 0, *n)).collect();
        let (k, keys) = scaled(6, rows.len() * heads.kv * heads.dim, scale);
        let (v, values) = scaled(7, rows.len() * heads.kv * heads.dim, 1.0);
        let mut pool = pages.pool();
        match scheme {
            CacheScheme::Bf16 => pages.write(&mut pool, &rows, [&k, &v]),
            CacheScheme::Int8 => pages.write_bytes(&mut pool, &rows, [&keys, &values]),
        }
        let mut cache = Cache::default();
        let [keys, values] = [keys, values].map(|values| pages.kept(&values));
        reference::cache_write(&mut cache, &keys, &values, &rows);
        Self { pages, pool, cache }
    }

    fn kernel(&self) -> Attention {
        let Heads { query, kv, .. } = self.pages.heads;
        Attention::new(query as u32, kv as u32, self.pages.layout())
    }

    fn buffers(&self, q: &[u8], rows: &[Row]) -> Vec<Vec<u8>> {
        let lists = [i32_bytes(rows.as_flattened()), i32_bytes(&self.pages.table)];
        let [row_list, page_table] = lists;
        vec![q.to_vec(), self.pool.clone(), row_list, page_table, poisoned(q.len())]
    }

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
