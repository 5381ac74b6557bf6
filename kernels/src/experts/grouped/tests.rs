//! Grouped products against their twins: experts without rows, with one, with many.

use super::*;
use crate::check::{check, tensor};
use crate::emit::run::{Counts, i32_bytes, random, targets_here};
use crate::packing::{Join, pack_whole};
use crate::reference::{self, Rounding};

/// `[tokens, top_k]` distinct experts a token, some experts never chosen.
fn choices(tokens: usize, top_k: usize, experts: usize) -> Vec<i32> {
    let wishes = random(9, tokens * experts);
    let mut ids = Vec::new();
    for wishes in wishes.chunks_exact(experts) {
        let mut order: Vec<usize> = (0..experts).filter(|id| id % 5 != 3).collect();
        order.sort_by(|a, b| wishes[*a].total_cmp(&wishes[*b]));
        ids.extend(order[..top_k].iter().map(|id| *id as i32));
    }
    ids
}

#[test]
fn rows_of_every_expert_are_multiplied_with_its_own_weight() {
    for target in targets_here() {
        for (tokens, top_k, experts, n, k) in
            [(1, 2, 8, 16, 32), (7, 3, 6, 40, 25), (40, 2, 5, 72, 48), (300, 1, 2, 24, 16)]
        {
            let groups = reference::group_by_expert(&choices(tokens, top_k, experts), experts);
            let (order, starts) = (i32_bytes(&groups.order), i32_bytes(&groups.starts));
            let scale = 1.0 / (k as f32).sqrt();
            let [gate, up, down] = [1, 2, 3].map(|seed| tensor(seed, experts * n * k, scale));
            let width = target.limits().panel_width;
            let parts = |bytes: &[u8]| -> Vec<Vec<u8>> {
                bytes.chunks_exact(2 * n * k).map(<[u8]>::to_vec).collect()
            };
            let rows = Rows { per: top_k as u32, ..Rows::TOKENS };
            let problem = |what| GroupedProblem {
                what,
                rows,
                experts: experts as u32,
                n: n as u32,
                k: k as u32,
                scheme: Scheme::Bf16,
            };
            let counts = Counts { tokens: tokens as u32, ..Counts::default() };

            let (x, x_values) = tensor(4, tokens * k, 1.0);
            let want = reference::grouped_gate_up_silu(
                &x_values,
                &groups,
                [&gate.1, &up.1],
                k,
                Rounding::Bf16,
            );
            let both: Vec<Vec<u8>> = [parts(&gate.0), parts(&up.0)].concat();
            let both: Vec<(&[u8], u64)> = both.iter().map(|p| (p.as_slice(), n as u64)).collect();
            let packed = pack_whole(Join::StackInterleave, &both, k, width);
            let kernel = GroupedProduct::new(problem(Grouped::GateUpSilu), &target);
            check(&kernel, &target, counts, &[&x, &order, &starts, &packed], &want);

            let (x, x_values) = tensor(5, tokens * top_k * k, 1.0);
            let want =
                reference::grouped_linear(&x_values, &groups.starts, &down.1, k, Rounding::Bf16);
            let stack = parts(&down.0);
            let stack: Vec<(&[u8], u64)> = stack.iter().map(|p| (p.as_slice(), n as u64)).collect();
            let packed = pack_whole(Join::Stack, &stack, k, width);
            let kernel = GroupedProduct::new(problem(Grouped::Linear), &target);
            check(&kernel, &target, counts, &[&x, &starts, &packed], &want);
        }
    }
}
