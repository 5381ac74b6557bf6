//! Pools of pages for tests of what writes and reads the cache, laid out as on x86-64 or as on CUDA targets.

use sail_ir::CacheScheme;
use sail_ir::target::Target;
use sail_kernels::Kernel;
use sail_kernels::attention::{Attention, PageLayout, PlainPage};
use sail_kernels::emit::run::{Counts, bf16_values, f32_values, i32_bytes, poisoned};
use sail_kernels::reference::{self, Cache, Heads, Row};

use super::check::{Buffers, bytes_of, drawn, run_here, scaled};
use super::simulated::run_on_gpus;

const PAGE: usize = 64;

/// Vectors that repeat in a pool that is to be small in an archive, keys and values: primes, so that neither
/// heads nor pages are alike, and no two positions are while both are the same.
const REPEATING: [usize; 2] = [61, 59];

/// A pool of pages and who has which.
pub struct Pages {
    pub heads: Heads,
    pub scheme: CacheScheme,
    /// Row by row, as on CUDA targets.
    plain: bool,
    /// `[slots][pages_per_slot]`
    pub table: Vec<i32>,
    pages_per_slot: usize,
    pages: usize,
}

impl Pages {
    /// Room for `slots` slots of `pages_per_slot` pages each, handed out in a mixed order.
    pub fn new((heads, scheme): (Heads, CacheScheme), slots: usize, pages_per_slot: usize) -> Self {
        let pages = slots * pages_per_slot + 3;
        let step = (5..).find(|step| gcd(*step, pages) == 1).expect("some step is coprime");
        let table = (0..slots * pages_per_slot).map(|i| ((i + 1) * step % pages) as i32).collect();
        Self { heads, scheme, plain: false, table, pages_per_slot, pages }
    }

    /// The same pages, each row by row.
    pub fn plainly(self) -> Self {
        Self { plain: true, ..self }
    }

    pub fn layout(&self) -> PageLayout {
        PageLayout { head_dim: self.heads.dim as u32, scheme: self.scheme }
    }

    pub fn counts(&self, rows: &[Row]) -> Counts {
        Counts {
            tokens: rows.len() as u32,
            pages_per_slot: self.pages_per_slot as u32,
            ..Counts::default()
        }
    }

    /// What `kernel` makes of `buffers` where the cache is laid out like this.
    pub fn run(
        &self,
        kernel: &dyn Kernel,
        rows: &[Row],
        buffers: &Buffers,
    ) -> Vec<(Target, Buffers)> {
        let run = if self.plain { run_on_gpus } else { run_here };
        run(kernel, self.counts(rows), buffers)
    }

    /// A pool of NaN.
    pub fn pool(&self) -> Vec<u8> {
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
    pub fn read(&self, pool: &[u8], rows: &[Row]) -> [Vec<f32>; 2] {
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
    pub fn write_bytes(&self, pool: &mut [u8], rows: &[Row], kv: [&[f64]; 2]) {
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
    pub fn kept(&self, values: &[f64]) -> Vec<f64> {
        match self.scheme {
            CacheScheme::Bf16 => values.to_vec(),
            CacheScheme::Int8 => reference::quantized_rows(values, self.heads.dim),
        }
    }

    /// Write keys and values `[t, g·e]` of `rows`, and, where pairs of positions stand together, zeros
    /// beside an even position, as the kernels do.
    pub fn write(&self, pool: &mut [u8], rows: &[Row], kv: [&[u8]; 2]) {
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
pub fn run_of(slot: i32, from: i32, to: i32) -> Vec<Row> {
    (from..to).map(|position| [slot, position]).collect()
}

/// A filled cache: every slot has positions `0 .. length`.
pub struct Filled {
    pub pages: Pages,
    pool: Vec<u8>,
    pub cache: Cache,
}

impl Filled {
    /// Keys of `-scale .. scale` and values of -1 .. 1.
    pub fn new(scheme: CacheScheme, heads: Heads, lengths: &[i32], scale: f32) -> Self {
        let (pages, rows) = Self::room(scheme, heads, lengths);
        let count = rows.len() * heads.kv * heads.dim;
        let [k, v] = [scaled(6, count, scale).1, scaled(7, count, 1.0).1];
        Self::with(pages, &rows, [k, v])
    }

    /// As on CUDA targets, of a few keys and values that repeat.
    pub fn plainly(scheme: CacheScheme, heads: Heads, lengths: &[i32]) -> Self {
        let (pages, rows) = Self::room(scheme, heads, lengths);
        let count = rows.len() * heads.kv * heads.dim;
        let mut seed = 5;
        let parts = REPEATING.map(|vectors| {
            seed += 1;
            let values = drawn(seed, vectors * heads.dim).1;
            values.into_iter().cycle().take(count).collect()
        });
        Self::with(pages.plainly(), &rows, parts)
    }

    /// Pages for slots of `lengths` positions, and those positions.
    fn room(scheme: CacheScheme, heads: Heads, lengths: &[i32]) -> (Pages, Vec<Row>) {
        let longest = lengths.iter().max().expect("there is a slot");
        let pages = Pages::new((heads, scheme), lengths.len(), (*longest as usize).div_ceil(PAGE));
        let slots = lengths.iter().enumerate();
        (pages, slots.flat_map(|(slot, n)| run_of(slot as i32, 0, *n)).collect())
    }

    /// `pages` with keys and values `[t, g·e]` of `rows`.
    fn with(pages: Pages, rows: &[Row], [keys, values]: [Vec<f64>; 2]) -> Self {
        let mut pool = pages.pool();
        match pages.scheme {
            CacheScheme::Bf16 => {
                let [k, v] = [&keys, &values].map(|values| bytes_of(values));
                pages.write(&mut pool, rows, [&k, &v]);
            }
            CacheScheme::Int8 => pages.write_bytes(&mut pool, rows, [&keys, &values]),
        }
        let mut cache = Cache::default();
        let [keys, values] = [keys, values].map(|values| pages.kept(&values));
        reference::cache_write(&mut cache, &keys, &values, rows);
        Self { pages, pool, cache }
    }

    pub fn kernel(&self) -> Attention {
        let Heads { query, kv, .. } = self.pages.heads;
        Attention::new(query as u32, kv as u32, self.pages.layout())
    }

    pub fn buffers(&self, q: &[u8], rows: &[Row]) -> Vec<Vec<u8>> {
        let lists = [i32_bytes(rows.as_flattened()), i32_bytes(&self.pages.table)];
        let [row_list, page_table] = lists;
        vec![q.to_vec(), self.pool.clone(), row_list, page_table, poisoned(q.len())]
    }
}
