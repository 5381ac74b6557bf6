//! Meanings of the router and of the experts.
//!
//! A *pair* is a (token, choice): pair `t·k + j` is choice `j` of token `t`.

use super::{Rounding, gate_up_silu, linear, mul, rms_norm, rows_of, silu};

/// Softmax over all `x` experts, the best `top_k`, divided by their sum when `renormalize`.
///
/// `logits [t, x]` to experts `[t, k]`, best first, of equal logits the lower expert first, and
/// weights `[t, k]`. Rounds the weights once.
#[must_use]
pub fn route(
    logits: &[f64],
    experts: usize,
    top_k: usize,
    renormalize: bool,
    rounding: Rounding,
) -> (Vec<i32>, Vec<f64>) {
    assert!(top_k <= experts, "{top_k} of {experts} experts");
    rows_of(logits, experts);
    let (mut ids, mut weights) = (Vec::new(), Vec::new());
    for row in logits.chunks_exact(experts) {
        let mut best: Vec<usize> = (0..experts).collect();
        // stable, so of equal logits the lower expert stays first
        best.sort_by(|&a, &b| row[b].partial_cmp(&row[a]).expect("logits are numbers"));
        let raised = |expert: &usize| libm::exp(row[*expert] - row[best[0]]);
        let divisor: f64 =
            best[..if renormalize { top_k } else { experts }].iter().map(raised).sum();
        for expert in &best[..top_k] {
            ids.push(i32::try_from(*expert).expect("experts are counted in i32"));
            weights.push(rounding.round(raised(expert) / divisor));
        }
    }
    (ids, weights)
}

/// [`route`] of the logits `x · weightᵀ`, `weight [experts, k]`.
///
/// Rounds the logits although they could stay unrounded: the experts chosen are then those that
/// the logits shown by a tap choose.
#[must_use]
pub fn linear_route(
    x: &[f64],
    weight: &[f64],
    k: usize,
    (top_k, renormalize): (usize, bool),
    rounding: Rounding,
) -> (Vec<i32>, Vec<f64>) {
    let logits = linear(x, weight, k, rounding);
    route(&logits, rows_of(weight, k), top_k, renormalize, rounding)
}

/// What [`norm_linear_route_group`] gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Routed {
    pub ids: Vec<i32>,
    pub weights: Vec<f64>,
    pub groups: Groups,
    pub normed: Vec<f64>,
}

/// [`rms_norm`] of `x [t, k]` by `norm [k]`, [`linear_route`] of that, [`group_by_expert`] of the ids.
/// Rounds where they do.
#[must_use]
pub fn norm_linear_route_group(
    x: &[f64],
    (norm, eps): (&[f64], f64),
    weight: &[f64],
    choice: (usize, bool),
    rounding: Rounding,
) -> Routed {
    let normed = rms_norm(x, norm, eps, rounding);
    let (ids, weights) = linear_route(&normed, weight, norm.len(), choice, rounding);
    let groups = group_by_expert(&ids, rows_of(weight, norm.len()));
    Routed { ids, weights, groups, normed }
}

/// Stacked weights of a layer's experts: gate and up `[x, f, d]`, down `[x, d, f]`.
#[derive(Debug, Clone, Copy)]
pub struct Mixture<'a> {
    pub gate: &'a [f64],
    pub up: &'a [f64],
    pub down: &'a [f64],
    pub experts: usize,
    pub width: usize,
}

impl Mixture<'_> {
    fn one<'w>(&self, stacked: &'w [f64], expert: usize) -> &'w [f64] {
        let size = stacked.len() / self.experts;
        &stacked[expert * size..][..size]
    }
}

/// The weighted sum of the chosen experts' feed-forwards: `x [t, d]`, `ids` and `weights [t, k]` to
/// `[t, d]`.
///
/// Rounds where the model does: gate, up, silu, their product, down, down · weight, and the sum
/// after each expert, in ascending order of experts.
#[must_use]
pub fn experts(
    x: &[f64],
    ids: &[i32],
    weights: &[f64],
    mixture: &Mixture<'_>,
    rounding: Rounding,
) -> Vec<f64> {
    let width = mixture.width;
    let top_k = ids.len() / rows_of(x, width).max(1);
    let mut y = Vec::with_capacity(x.len());
    for (t, row) in x.chunks_exact(width).enumerate() {
        let mut chosen: Vec<usize> = (t * top_k..(t + 1) * top_k).collect();
        chosen.sort_by_key(|&pair| ids[pair]);
        let mut sum = vec![0.0; width];
        for pair in chosen {
            let expert = ids[pair] as usize;
            let gate = linear(row, mixture.one(mixture.gate, expert), width, rounding);
            let up = linear(row, mixture.one(mixture.up, expert), width, rounding);
            let act = mul(&silu(&gate, rounding), &up, rounding);
            let down = linear(&act, mixture.one(mixture.down, expert), act.len(), rounding);
            for (sum, down) in sum.iter_mut().zip(down) {
                *sum = rounding.round(*sum + rounding.round(down * weights[pair]));
            }
        }
        y.extend(sum);
    }
    y
}

/// Pairs sorted by expert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// `[t, k]`: the pair of each sorted row; by expert, then by pair.
    pub order: Vec<i32>,
    /// `[t, k]`: the sorted row of each pair, the inverse of `order`.
    pub place: Vec<i32>,
    /// `[x + 1]`: sorted rows `starts[i]..starts[i + 1]` belong to expert `i`.
    pub starts: Vec<i32>,
}

/// Sort the pairs of `ids [t, k]` by expert.
#[must_use]
pub fn group_by_expert(ids: &[i32], experts: usize) -> Groups {
    let count = |n: usize| i32::try_from(n).expect("pairs are counted in i32");
    let mut order: Vec<i32> = (0..count(ids.len())).collect();
    order.sort_by_key(|&pair| ids[pair as usize]); // stable
    let mut place = vec![0; ids.len()];
    for (row, &pair) in order.iter().enumerate() {
        place[pair as usize] = count(row);
    }
    let below = |expert: usize| ids.iter().filter(|&&id| id < count(expert)).count();
    let starts = (0..=experts).map(|expert| count(below(expert))).collect();
    Groups { order, place, starts }
}

/// [`gate_up_silu`] of every pair by its expert: `x [t, k]` to `[pairs, f]` in sorted order; gate and
/// up `[x, f, k]`.
#[must_use]
pub fn grouped_gate_up_silu(
    x: &[f64],
    groups: &Groups,
    gate_up: [&[f64]; 2],
    k: usize,
    rounding: Rounding,
) -> Vec<f64> {
    let top_k = groups.order.len() / rows_of(x, k).max(1);
    let tokens: Vec<i32> = groups.order.iter().map(|pair| pair / top_k.max(1) as i32).collect();
    let sorted = super::select_rows(x, &tokens, k);
    by_expert(&sorted, &groups.starts, k, |rows, expert, experts| {
        let weights = gate_up.map(|stacked| of_expert(stacked, expert, experts));
        gate_up_silu(rows, weights, k, rounding)
    })
}

/// [`linear`] of every sorted row by its expert: `x [pairs, k]`, `weight [x, n, k]` to `[pairs, n]`.
#[must_use]
pub fn grouped_linear(
    x: &[f64],
    starts: &[i32],
    weight: &[f64],
    k: usize,
    rounding: Rounding,
) -> Vec<f64> {
    by_expert(x, starts, k, |rows, expert, experts| {
        linear(rows, of_expert(weight, expert, experts), k, rounding)
    })
}

fn by_expert(
    x: &[f64],
    starts: &[i32],
    k: usize,
    compute: impl Fn(&[f64], usize, usize) -> Vec<f64>,
) -> Vec<f64> {
    let experts = starts.len() - 1;
    let mut y = Vec::new();
    for expert in 0..experts {
        let [from, to] = [starts[expert], starts[expert + 1]].map(|row| row as usize);
        y.extend(compute(&x[from * k..to * k], expert, experts));
    }
    y
}

fn of_expert(stacked: &[f64], expert: usize, experts: usize) -> &[f64] {
    let size = stacked.len() / experts;
    &stacked[expert * size..][..size]
}

/// The weighted sum of each token's pairs: `out [pairs, d]` in sorted order, `place` and
/// `weights [t, k]` to `[t, d]`.
///
/// Adds in ascending order of experts, unrounded, and rounds once: nearer to exact than the model,
/// which rounds each term and each sum.
#[must_use]
pub fn combine(
    out: &[f64],
    place: &[i32],
    weights: &[f64],
    top_k: usize,
    rounding: Rounding,
) -> Vec<f64> {
    rounding.all(weighted_sums(out, place, weights, top_k))
}

/// [`combine`] plus `residual [t, d]`, rounded once.
#[must_use]
pub fn combine_add(
    out: &[f64],
    place: &[i32],
    weights: &[f64],
    residual: &[f64],
    rounding: Rounding,
) -> Vec<f64> {
    let width = rows_of(out, 1) / place.len().max(1);
    let top_k = place.len() * width / residual.len().max(1);
    super::add(&weighted_sums(out, place, weights, top_k), residual, rounding)
}

fn weighted_sums(out: &[f64], place: &[i32], weights: &[f64], top_k: usize) -> Vec<f64> {
    assert_eq!(place.len(), weights.len(), "a weight for every pair");
    assert_eq!(place.len() % top_k.max(1), 0, "whole tokens");
    let width = out.len() / place.len().max(1);
    let mut y = Vec::new();
    for (places, weights) in place.chunks_exact(top_k).zip(weights.chunks_exact(top_k)) {
        let mut pairs: Vec<_> = places.iter().zip(weights).collect();
        pairs.sort_by_key(|(place, _)| **place);
        let mut sum = vec![0.0; width];
        for (place, weight) in pairs {
            for (sum, v) in sum.iter_mut().zip(&out[*place as usize * width..][..width]) {
                *sum += v * weight;
            }
        }
        y.extend(sum);
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    const LN_2: f64 = std::f64::consts::LN_2;

    #[test]
    fn the_router_takes_the_best_and_weighs_them_by_the_softmax() {
        let logits = [0.0, LN_2, 2.0 * LN_2, 0.0]; // 1 : 2 : 4 : 1
        let (ids, weights) = route(&logits, 4, 2, false, Rounding::Exact);
        assert_eq!(ids, [2, 1]);
        assert!((weights[0] - 0.5).abs() < 1e-15 && (weights[1] - 0.25).abs() < 1e-15);
        let (_, weights) = route(&logits, 4, 2, true, Rounding::Exact);
        assert!((weights[0] - 2.0 / 3.0).abs() < 1e-15);
        let (_, weights) = route(&logits, 4, 2, true, Rounding::Bf16);
        assert_eq!(weights[0], 0.66796875);
    }

    #[test]
    fn of_equal_logits_the_router_takes_the_lower_expert_first() {
        let (ids, _) = route(&[1.0, 3.0, 1.0, 3.0, 1.0], 5, 3, true, Rounding::Exact);
        assert_eq!(ids, [1, 3, 0]);
        let (ids, _) = route(&[-0.0, 0.0], 2, 1, true, Rounding::Exact);
        assert_eq!(ids, [0]);
    }

    #[test]
    fn the_fused_router_rounds_its_logits() {
        // 257 and 256 are one bf16 value: the tie goes to expert 0
        let (ids, _) = linear_route(&[1.0], &[256.0, 257.0], 1, (1, true), Rounding::Bf16);
        assert_eq!(ids, [0]);
        let (ids, _) = linear_route(&[1.0], &[256.0, 257.0], 1, (1, true), Rounding::Exact);
        assert_eq!(ids, [1]);
    }

    #[test]
    fn grouping_sorts_pairs_by_expert_and_keeps_their_order() {
        let groups = group_by_expert(&[2, 0, 0, 3, 2, 0], 4);
        assert_eq!(groups.order, [1, 2, 5, 0, 4, 3]);
        assert_eq!(groups.place, [3, 0, 1, 5, 4, 2]);
        assert_eq!(groups.starts, [0, 3, 3, 5, 6]);
    }

    const MIXTURE: Mixture<'static> = Mixture {
        gate: &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0],
        up: &[2.0, 0.0, 0.0, 3.0, 1.0, -1.0],
        down: &[1.0, -1.0, 2.0, 0.5, 0.25, 4.0],
        experts: 3,
        width: 2,
    };

    #[test]
    fn a_token_gets_the_weighted_sum_of_its_experts() {
        let y = experts(&[1.0, 2.0], &[1, 0], &[0.5, 0.25], &MIXTURE, Rounding::Exact);
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let (first, second) = (silu(1.0) * 2.0, silu(2.0) * 6.0);
        assert!((y[0] - (0.25 * first + 0.5 * 2.0 * second)).abs() < 1e-12);
        assert!((y[1] - (-0.25 * first + 0.5 * 0.5 * second)).abs() < 1e-12);
    }

    #[test]
    fn grouped_products_and_their_combination_are_the_experts() {
        let x = [1.0, 2.0, -1.0, 0.5, 3.0, -2.0];
        let (ids, weights) = ([2, 0, 0, 1, 2, 1], [0.5, 0.25, 0.125, 0.75, 1.0, 2.0]);
        let groups = group_by_expert(&ids, 3);
        let gate_up = [MIXTURE.gate, MIXTURE.up];
        let act = grouped_gate_up_silu(&x, &groups, gate_up, 2, Rounding::Exact);
        let out = grouped_linear(&act, &groups.starts, MIXTURE.down, 1, Rounding::Exact);
        let y = combine(&out, &groups.place, &weights, 2, Rounding::Exact);
        let want = experts(&x, &ids, &weights, &MIXTURE, Rounding::Exact);
        assert!(y.iter().zip(&want).all(|(y, want)| (y - want).abs() < 1e-12));
        let with_residual = combine_add(&out, &groups.place, &weights, &x, Rounding::Exact);
        for ((sum, y), x) in with_residual.iter().zip(&y).zip(x) {
            assert!((sum - y - x).abs() < 1e-12);
        }
    }
}
