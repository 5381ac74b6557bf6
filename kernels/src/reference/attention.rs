//! Meanings of RoPE, the cache, and the two attentions.

use std::collections::BTreeMap;

use sail_ir::plan::PAGE_POSITIONS;

use super::{Rounding, Row, head_norm, rows_of};

/// Heads of one attention: query heads, the kv heads they share, values per head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    pub query: usize,
    pub kv: usize,
    pub dim: usize,
}

/// Keys and values of one layer, by (slot, position); each `[g·e]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cache {
    stored: BTreeMap<Row, [Vec<f64>; 2]>,
}

impl Cache {
    /// Key and value at `row`.
    #[must_use]
    pub fn at(&self, row: Row) -> Option<&[Vec<f64>; 2]> {
        self.stored.get(&row)
    }
}

/// Store row `t` of `k` and of `v` (`[t, g·e]`) at `rows[t]`. Rounds nothing.
pub fn cache_write(cache: &mut Cache, k: &[f64], v: &[f64], rows: &[Row]) {
    assert_eq!(k.len(), v.len(), "keys and values have one shape");
    assert_eq!(k.len() % rows.len().max(1), 0, "a key for every row");
    let width = k.len() / rows.len().max(1);
    for (t, row) in rows.iter().enumerate() {
        let [k, v] = [k, v].map(|x| x[t * width..][..width].to_vec());
        cache.stored.insert(*row, [k, v]);
    }
}

/// Cosines, then sines of one position: `[e]`.
///
/// The inverse frequency `theta^(-2i/e)`, the angle, the cosine and the sine are f32, as the model
/// computes them whatever the precision of the rest; cosine and sine round.
#[must_use]
pub fn rope_table(position: i32, head_dim: usize, theta: f64, rounding: Rounding) -> Vec<f64> {
    assert_eq!(head_dim % 2, 0, "RoPE turns pairs");
    let angle = |i: usize| {
        let exponent = (2 * i) as f32 / head_dim as f32;
        let frequency = 1.0 / libm::pow(theta, f64::from(exponent)) as f32;
        f64::from(position as f32 * frequency)
    };
    let value = |v: f64| rounding.round(f64::from(v as f32));
    let cosines = (0..head_dim / 2).map(|i| value(libm::cos(angle(i))));
    let sines = (0..head_dim / 2).map(|i| value(libm::sin(angle(i))));
    cosines.chain(sines).collect()
}

/// Rotate-half RoPE: values `i` and `i + e/2` of every head turn by the angle of the position.
///
/// `x` is `[t, heads·e]`. Rounds both products, then their sum.
#[must_use]
pub fn rope(x: &[f64], rows: &[Row], head_dim: usize, theta: f64, rounding: Rounding) -> Vec<f64> {
    let tables = rows.iter().map(|row| rope_table(row[1], head_dim, theta, rounding));
    rotate(x, &tables.collect::<Vec<_>>(), rounding)
}

/// Turn every head of row `t` by `tables[t]`.
fn rotate(x: &[f64], tables: &[Vec<f64>], rounding: Rounding) -> Vec<f64> {
    let head_dim = tables.first().map_or(1, Vec::len);
    assert_eq!(x.len() % (tables.len().max(1) * head_dim), 0, "whole heads for every row");
    let half = head_dim / 2;
    let mut y = x.to_vec();
    for (t, table) in tables.iter().enumerate() {
        let (cosines, sines) = table.split_at(half);
        let width = x.len() / tables.len();
        for head in y[t * width..][..width].chunks_exact_mut(head_dim) {
            for i in 0..half {
                let (a, b) = (head[i], head[i + half]);
                let (cos, sin) = (cosines[i], sines[i]);
                head[i] = turn(rounding, [a, cos], [-b, sin]);
                head[i + half] = turn(rounding, [b, cos], [a, sin]);
            }
        }
    }
    y
}

fn turn(rounding: Rounding, straight: [f64; 2], across: [f64; 2]) -> f64 {
    let [straight, across] = [straight, across].map(|[x, by]| rounding.round(x * by));
    rounding.round(straight + across)
}

/// What [`qk_norm_rope_write`] reads besides the activations; the norms are `[e]`.
#[derive(Debug, Clone, Copy)]
pub struct QkNormRope<'a> {
    pub q_norm: &'a [f64],
    pub k_norm: &'a [f64],
    pub eps: f64,
    pub theta: f64,
    pub heads: Heads,
}

/// `qkv [t, (h + 2g)·e]` to the queries `[t, h·e]`, keys and values into the cache: head norm, then
/// RoPE, on queries and keys.
///
/// Cosines and sines round; between them and the norm nothing does; the turned values round once.
#[must_use]
pub fn qk_norm_rope_write(
    qkv: &[f64],
    parameters: &QkNormRope<'_>,
    rows: &[Row],
    cache: &mut Cache,
    rounding: Rounding,
) -> Vec<f64> {
    let QkNormRope { q_norm, k_norm, eps, theta, heads: Heads { query, kv, dim } } = *parameters;
    let width = (query + 2 * kv) * dim;
    assert_eq!(rows_of(qkv, width), rows.len(), "a row of q, k, v for every token");
    let part = |first, count| super::columns(qkv, width, first * dim, count * dim);
    let tables: Vec<_> = rows.iter().map(|row| rope_table(row[1], dim, theta, rounding)).collect();
    let turned = |x: Vec<f64>, norm| {
        let normal = head_norm(&x, norm, eps, Rounding::Exact);
        rounding.all(rotate(&normal, &tables, Rounding::Exact))
    };
    cache_write(cache, &turned(part(query, kv), k_norm), &part(query + kv, kv), rows);
    turned(part(0, query), q_norm)
}

/// Causal grouped-query attention: row (slot, position) of `q [t, h·e]` sees positions
/// `0..=position` of its slot; query head `i` reads kv head `i / (h/g)`; scale `e^-0.5`.
///
/// Scores, their softmax and its sum stay unrounded; each probability, before it is divided by the
/// sum, rounds on its way into the product with the values; the result rounds.
///
/// # Panics
///
/// When a position up to a row's own was never written.
#[must_use]
pub fn attention(
    q: &[f64],
    cache: &Cache,
    rows: &[Row],
    heads: Heads,
    rounding: Rounding,
) -> Vec<f64> {
    attention_with(q, cache, rows, heads, |weights, _| rounding.all(weights), rounding)
}

/// [`attention`] over keys and values that are integers of 8 bits times a step: a probability takes
/// the step of its value along before it rounds.
#[must_use]
pub fn attention_int8(
    q: &[f64],
    cache: &Cache,
    rows: &[Row],
    heads: Heads,
    rounding: Rounding,
) -> Vec<f64> {
    let keep = |weights: Vec<f64>, values: &[&[f64]]| {
        let of_each = weights.iter().zip(values).map(|(weight, value)| (weight, step(value)));
        let kept = of_each.map(|(weight, step)| match step {
            0.0 => 0.0,
            _ => rounding.round(weight * step) / step,
        });
        kept.collect()
    };
    attention_with(q, cache, rows, heads, keep, rounding)
}

/// [`attention_int8`] as x86-64 computes it: a query is integers of 16 bits times a step, and so are the
/// probabilities of a page, times the steps of their values.
#[must_use]
pub fn attention_int8_by_integers(
    q: &[f64],
    cache: &Cache,
    rows: &[Row],
    heads: Heads,
    rounding: Rounding,
) -> Vec<f64> {
    const MOST: f64 = i16::MAX as f64;
    if rounding == Rounding::Exact {
        return attention_int8(q, cache, rows, heads, rounding);
    }
    let keep = |weights: Vec<f64>, values: &[&[f64]]| {
        let pages = weights.chunks(PAGE_POSITIONS as usize);
        let kept =
            pages.zip(values.chunks(PAGE_POSITIONS as usize)).flat_map(|(weights, values)| {
                let steps: Vec<f64> = values.iter().map(|value| step(value)).collect();
                let all: Vec<f64> = weights.iter().zip(&steps).map(|(w, step)| w * step).collect();
                let worth = as_integers(&all, MOST).into_iter().zip(steps);
                worth.map(|(kept, step)| if step == 0.0 { 0.0 } else { kept / step })
            });
        kept.collect()
    };
    let padded = heads.dim.next_multiple_of(16);
    let most = MOST.min((i32::MAX as usize / (128 * padded)) as f64);
    let q: Vec<f64> = q.chunks(heads.dim).flat_map(|query| as_integers(query, most)).collect();
    attention_with(&q, cache, rows, heads, keep, rounding)
}

/// `values` rounded to multiples of a `most`th of the greatest magnitude, ties to even.
fn as_integers(values: &[f64], most: f64) -> Vec<f64> {
    let step = greatest(values) / most;
    let round = |value: &f64| (value / step).round_ties_even() * step;
    if step == 0.0 { values.to_vec() } else { values.iter().map(round).collect() }
}

fn greatest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, v| most.max(v.abs()))
}

/// What an integer of a value is worth in a cache of bytes.
fn step(value: &[f64]) -> f64 {
    greatest(value) / 127.0
}

fn attention_with(
    q: &[f64],
    cache: &Cache,
    rows: &[Row],
    heads: Heads,
    keep: impl Fn(Vec<f64>, &[&[f64]]) -> Vec<f64>,
    rounding: Rounding,
) -> Vec<f64> {
    let Heads { query, kv, dim } = heads;
    assert_eq!(rows_of(q, query * dim), rows.len(), "a query for every row");
    let mut y = Vec::with_capacity(q.len());
    for (t, &[slot, position]) in rows.iter().enumerate() {
        for head in 0..query {
            let first = head / (query / kv) * dim;
            let seen = |part: usize| -> Vec<&[f64]> {
                let at = |p| cache.at([slot, p]).expect("a position was never written");
                (0..=position).map(|p| &at(p)[part][first..][..dim]).collect()
            };
            let q = &q[(t * query + head) * dim..][..dim];
            y.extend(attend(q, &seen(0), &seen(1), &keep, rounding));
        }
    }
    y
}

/// Attention of every patch to every patch of its tile: `qkv [n, p, 3·h·e]` (all q, all k, all v)
/// to `[n, p, h·e]`, scale `e^-0.5`. Rounds as [`attention`] does.
#[must_use]
pub fn tile_attention(qkv: &[f64], patches: usize, heads: Heads, rounding: Rounding) -> Vec<f64> {
    let Heads { query, kv, dim } = heads;
    assert_eq!(query, kv, "every query head has its own keys");
    let width = query * dim;
    rows_of(qkv, patches * 3 * width);
    let mut y = Vec::with_capacity(qkv.len() / 3);
    for tile in qkv.chunks_exact(patches * 3 * width) {
        for row in tile.chunks_exact(3 * width) {
            for head in 0..query {
                let seen = |part: usize| -> Vec<&[f64]> {
                    let first = part * width + head * dim;
                    tile.chunks_exact(3 * width).map(|row| &row[first..][..dim]).collect()
                };
                let q = &row[head * dim..][..dim];
                y.extend(attend(
                    q,
                    &seen(1),
                    &seen(2),
                    |weights, _| rounding.all(weights),
                    rounding,
                ));
            }
        }
    }
    y
}

/// One query over its keys and values; `keep` says what is kept of the weights of all values.
fn attend(
    q: &[f64],
    keys: &[&[f64]],
    values: &[&[f64]],
    keep: impl Fn(Vec<f64>, &[&[f64]]) -> Vec<f64>,
    rounding: Rounding,
) -> Vec<f64> {
    let scale = 1.0 / (q.len() as f64).sqrt();
    let dot = |k: &&[f64]| q.iter().zip(*k).map(|(q, k)| q * k).sum::<f64>() * scale;
    let scores: Vec<f64> = keys.iter().map(dot).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| libm::exp(score - largest)).collect();
    let sum: f64 = weights.iter().sum();
    let mut y = vec![0.0; q.len()];
    for (weight, value) in keep(weights, values).into_iter().zip(values) {
        for (y, v) in y.iter_mut().zip(*value) {
            *y += weight * v;
        }
    }
    y.into_iter().map(|y| rounding.round(y / sum)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LN_3: f64 = 1.098_612_288_668_109_8;

    #[test]
    fn rope_turns_the_first_pair_by_one_radian_a_position() {
        let y = rope(&[1.0, 5.0, 0.0, 0.0], &[[0, 1]], 4, 10_000.0, Rounding::Exact);
        let (sin, cos) = 1f64.sin_cos();
        assert!((y[0] - cos).abs() < 1e-7 && (y[2] - sin).abs() < 1e-7);
        // the second pair turns by theta^(-2/4) = 0.01
        assert!((y[1] - 5.0 * 0.01f64.cos()).abs() < 1e-6);
        assert!((y[3] - 5.0 * 0.01f64.sin()).abs() < 1e-6);
    }

    #[test]
    fn rope_leaves_position_zero_alone_and_serves_every_head_alike() {
        let x = [1.0, 2.0, 1.0, 2.0];
        assert_eq!(rope(&x, &[[3, 0]], 2, 1e6, Rounding::Bf16), x);
        let y = rope(&x, &[[3, 7]], 2, 1e6, Rounding::Exact);
        assert_eq!(y[..2], y[2..]);
    }

    #[test]
    fn rope_rounds_the_table_both_products_and_the_sum() {
        let y = rope(&[3.0, 1.0], &[[0, 1]], 2, 1e6, Rounding::Bf16);
        // cos 1 = 0.5390625, sin 1 = 0.83984375 as bf16; 1.6171875 -> 1.6171875, minus 0.83984375
        assert_eq!(y[0], 0.77734375);
        // 0.5390625 + 2.51953125 (-> 2.515625) = 3.0546875 -> 3.0625
        assert_eq!(y[1], 3.0625);
    }

    #[test]
    fn a_query_weighs_values_by_the_softmax_of_its_scores() {
        let heads = Heads { query: 1, kv: 1, dim: 1 };
        let mut cache = Cache::default();
        cache_write(&mut cache, &[0.0, LN_3], &[8.0, 4.0], &[[0, 0], [0, 1]]);
        // position 0 sees itself; position 1 both, weighted 1 : 3
        let y = attention(&[1.0, 1.0], &cache, &[[0, 0], [0, 1]], heads, Rounding::Exact);
        assert!((y[0] - 8.0).abs() < 1e-12 && (y[1] - 5.0).abs() < 1e-12);
    }

    #[test]
    fn integers_are_of_the_greatest_magnitude_and_ties_go_to_even() {
        // A quarter of 1 is a step: 0.375 and 0.625 lie in the midst of two.
        assert_eq!(as_integers(&[0.375, -1.0, 0.625, 0.2], 4.0), [0.5, -1.0, 0.5, 0.25]);
        assert_eq!(as_integers(&[0.0, 0.0], 5.0), [0.0, 0.0]);
    }

    #[test]
    fn weights_are_integers_page_by_page_with_the_steps_of_their_values() {
        let heads = Heads { query: 1, kv: 1, dim: 1 };
        let mut cache = Cache::default();
        // All weights are 1 over 65. On the first page the greatest, times their steps, are those of two values
        // that cancel; the small values' are a 60,000th and an 80,000th of it. The second page has one of
        // fewer still, which is the greatest there.
        let rows: Vec<Row> = (0..65).map(|position| [0, position]).collect();
        let values: Vec<f64> = (0..65)
            .map(|at| match at {
                0 => 120.0,
                1 => -120.0,
                64 => 0.0018,
                at if at % 2 == 0 => 120.0 / 60_000.0,
                _ => 120.0 / 80_000.0,
            })
            .collect();
        cache_write(&mut cache, &[0.0; 65], &values, &rows);
        let y = attention_int8_by_integers(&[1.0], &cache, &[[0, 64]], heads, Rounding::Bf16);
        // Each 60,000th counts as a 32,767th, each 80,000th as nothing.
        let want = (31.0 * 120.0 / 32_767.0 + 0.0018) / 65.0;
        assert_eq!(y, [Rounding::Bf16.round(want)]);
        assert_ne!(y, [Rounding::Bf16.round(values.iter().sum::<f64>() / 65.0)]);
        let exact = attention_int8(&[1.0], &cache, &[[0, 64]], heads, Rounding::Exact);
        assert!((exact[0] - values.iter().sum::<f64>() / 65.0).abs() < 1e-12);
    }

    #[test]
    fn query_heads_share_a_kv_head_and_slots_do_not_see_each_other() {
        let heads = Heads { query: 2, kv: 1, dim: 1 };
        let mut cache = Cache::default();
        cache_write(&mut cache, &[1.0, 1.0], &[8.0, 4.0], &[[0, 0], [5, 0]]);
        let y = attention(&[1.0, 2.0, 3.0, 4.0], &cache, &[[5, 0], [0, 0]], heads, Rounding::Bf16);
        assert_eq!(y, [4.0, 4.0, 8.0, 8.0]);
    }

    #[test]
    fn scores_are_scaled_by_the_root_of_the_head_size() {
        let heads = Heads { query: 1, kv: 1, dim: 4 };
        let k = [0.0, 0.0, 0.0, 0.0, LN_3, LN_3, 0.0, 0.0];
        let v = [8.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0];
        let mut cache = Cache::default();
        cache_write(&mut cache, &k, &v, &[[0, 0], [0, 1]]);
        let y = attention(&[1.0; 4], &cache, &[[0, 1]], heads, Rounding::Exact);
        assert!((y[0] - 5.0).abs() < 1e-12);
    }

    #[test]
    fn patches_of_a_tile_see_each_other_and_no_other_tile() {
        let heads = Heads { query: 1, kv: 1, dim: 1 };
        let tile = |v: f64| [1.0, 0.0, 2.0 * v, 1.0, LN_3, v];
        let qkv: Vec<f64> = [tile(4.0), tile(8.0)].concat();
        let y = tile_attention(&qkv, 2, heads, Rounding::Exact);
        for (got, want) in y.iter().zip([5.0, 5.0, 10.0, 10.0]) {
            assert!((got - want).abs() < 1e-12);
        }
    }

    #[test]
    fn the_fused_write_rounds_once() {
        let heads = Heads { query: 1, kv: 1, dim: 2 };
        let norm = [0.789_062_5, 0.345_703_125];
        let parameters = QkNormRope { q_norm: &norm, k_norm: &norm, eps: 0.0, theta: 1e6, heads };
        let mut cache = Cache::default();
        let qkv = [0.863_281_25, 0.886_718_75, 1.0, 1.0, 1.0, 1.0];
        let q = qk_norm_rope_write(&qkv, &parameters, &[[0, 64]], &mut cache, Rounding::Bf16);
        // 0.778424… and 0.350301…, turned by cos 0.392578125 and sin 0.921875: -0.017341…; with
        // the single ops' roundings it would be -0.017578125
        assert_eq!(q, [-0.017_333_984_375, 0.855_468_75]);
    }

    #[test]
    fn the_fused_write_normalises_turns_and_stores() {
        let heads = Heads { query: 1, kv: 1, dim: 2 };
        let parameters =
            QkNormRope { q_norm: &[1.0, 1.0], k_norm: &[2.0, 2.0], eps: 0.0, theta: 1e6, heads };
        let mut cache = Cache::default();
        let qkv = [3.0, 3.0, -4.0, 4.0, 7.0, 9.0];
        let q = qk_norm_rope_write(&qkv, &parameters, &[[1, 0]], &mut cache, Rounding::Exact);
        assert_eq!(q, [1.0, 1.0]);
        assert_eq!(cache.stored[&[1, 0]], [vec![-2.0, 2.0], vec![7.0, 9.0]]);
    }
}
