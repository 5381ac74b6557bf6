//! Meaning of the choice of a token.

use std::cmp::Reverse;

use sail_ir::draw::{self, Draw};

/// The id of the largest of a row of logits, the lowest of equal ones, and the lowest id whose logit is
/// not a number or positively infinite; `i32::MAX` for either when there is none.
///
/// What is not a number is never the largest.
#[must_use]
pub fn choose_token(logits: &[f64]) -> [i32; 2] {
    let (mut best, mut most, mut bad) = (i32::MAX, f64::NEG_INFINITY, i32::MAX);
    for (id, &logit) in (0..).zip(logits) {
        if logit > most {
            (best, most) = (id, logit);
        }
        if (logit.is_nan() || logit == f64::INFINITY) && bad == i32::MAX {
            bad = id;
        }
    }
    [best, bad]
}

/// The token that `draw` gives for a row of logits at `position`, and what is no logit, as
/// [`choose_token`]; `seen` are the ids of the history. No token where something is no logit.
///
/// The slow way: every token in the order of its logit, then of its id. Weights, random number and share
/// are those of [`sail_ir::draw`], as they are what a draw means; nothing else of it is a kernel's.
#[must_use]
pub fn draw_token(logits: &[f32], draw: &Draw, seen: &[bool], position: u32) -> [i32; 2] {
    let after_penalty = |(logit, seen): (&f32, &bool)| match seen {
        true => draw::penalised(*logit, draw.penalty),
        false => *logit,
    };
    let logits: Vec<f32> = logits.iter().zip(seen).map(after_penalty).collect();
    let wide: Vec<f64> = logits.iter().map(|logit| f64::from(*logit)).collect();
    let [best, bad] = choose_token(&wide);
    if bad != i32::MAX || best == i32::MAX {
        return [i32::MAX, bad];
    }
    let top = logits[best as usize];
    let weight = |id: usize| u64::from(draw::weight(logits[id], top, draw.rate));
    let mut kept: Vec<usize> = (0..logits.len()).collect();
    // Stable, so that ids ascend among equal logits.
    kept.sort_by(|a, b| Reverse(logits[*a]).partial_cmp(&Reverse(logits[*b])).expect("numbers"));
    kept.truncate(draw.top_k as usize);
    let share = draw::share_of(kept.iter().map(|id| weight(*id)).sum(), draw.share);
    let mut before = 0;
    kept.retain(|id| {
        let keeps = before == 0 || before < share;
        before += weight(*id);
        keeps
    });
    kept.retain(|id| weight(*id) >= u64::from(draw.least));
    kept.sort_unstable();
    let total = kept.iter().map(|id| weight(*id)).sum();
    let mut left = draw::place(draw.seed, position.into(), total);
    for id in kept {
        if left < weight(id) {
            return [id as i32, bad];
        }
        left -= weight(id);
    }
    unreachable!("the place is below the sum")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_keeps_what_its_numbers_say() {
        let logits = [0.0, 3.0, 1.0, 3.0, 2.0];
        let all = Draw { rate: 1.0, top_k: Draw::ALL, ..Draw::GREEDY };
        let drawn = |draw: Draw, seen: [bool; 5]| -> Vec<i32> {
            let tokens = (0..200).map(|position| draw_token(&logits, &draw, &seen, position)[0]);
            let mut tokens: Vec<i32> = tokens.collect();
            tokens.sort_unstable();
            tokens.dedup();
            tokens
        };
        let none = [false; 5];
        assert_eq!(drawn(all, none), [0, 1, 2, 3, 4]);
        assert_eq!(drawn(Draw { top_k: 1, ..all }, none), [1]);
        assert_eq!(drawn(Draw { top_k: 3, ..all }, none), [1, 3, 4]);
        // Weights are 1/8, 1, 1/4, 1, 1/2 of the unit: together 23/8.
        assert_eq!(drawn(Draw { share: 0, ..all }, none), [1]);
        assert_eq!(drawn(Draw { share: u64::MAX / 23 * 15, ..all }, none), [1, 3]);
        assert_eq!(drawn(Draw { share: u64::MAX / 23 * 17, ..all }, none), [1, 3, 4]);
        assert_eq!(drawn(Draw { least: draw::UNIT / 4, ..all }, none), [1, 2, 3, 4]);
        let penalised = Draw { penalty: 3.0, ..Draw::GREEDY };
        assert_eq!(drawn(penalised, [false, true, false, true, false]), [4]);
    }

    #[test]
    fn what_is_no_logit_is_told_and_nothing_is_drawn() {
        let seen = [false, false];
        let none = i32::MAX;
        assert_eq!(draw_token(&[1.0, f32::NAN], &Draw::GREEDY, &seen, 0), [none, 1]);
        assert_eq!(draw_token(&[f32::NEG_INFINITY; 2], &Draw::GREEDY, &seen, 0), [none, none]);
    }
}
