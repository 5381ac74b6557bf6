//! Chooses the next token from a row of logits.
//!
//! In this order, each step seeing what the ones before it left:
//!
//! ```text
//! 1 repetition penalty   logits of tokens in the history: above 0 divided, else multiplied
//! 2 temperature          0 ends here: the largest logit, of equal ones the lowest id
//! 3 top-k                the k most probable, of equal ones the lower ids
//! 4 top-p                of these the fewest most probable with a share of at least p
//! 5 min-p                of these the ones at least p times as probable as the most probable
//! 6 draw                 by probability, with one random number of (seed, position)
//! ```
//!
//! That is the order of the reference library. Its top-k keeps all tokens equal to the k-th; this
//! keeps exactly k. A draw depends on the logits, the history, the parameters, the seed and the
//! position, on nothing else: not on other rows of a batch, not on the machine. Probabilities are whole
//! numbers of 2^-30 of the most probable token's ([`sail_ir::draw`] says it to the bit), so that a
//! device draws the same token.

use std::cmp::Ordering;
use std::fmt;

use sail_ir::Help;
use sail_ir::artifact::Generation;
use sail_ir::draw::{self, Draw};

/// How tokens are chosen. [`Sampling::default`] takes the most probable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most probable token and ignores what follows.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// In `0..=1`; 1 keeps all. The most probable token is always kept.
    pub top_p: f32,
    /// In `0..=1`; 0 keeps all.
    pub min_p: f32,
    /// Above 0; 1 changes nothing, more makes repetition rarer.
    pub repetition_penalty: f32,
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Generation::default().into()
    }
}

impl From<Generation> for Sampling {
    /// The artifact's own parameters, with seed 0.
    fn from(generation: Generation) -> Self {
        let Generation { temperature, top_k, top_p, repetition_penalty, max_tokens: _ } =
            generation;
        Self { temperature, top_k, top_p, min_p: 0.0, repetition_penalty, seed: 0 }
    }
}

/// Chooses tokens of one conversation; holds the memory that a choice needs.
pub struct Sampler {
    draw: Draw,
    /// Probability of each token.
    weights: Vec<u32>,
    /// Ids, the more probable the nearer to the start, as far as they had to be sorted.
    order: Vec<u32>,
    /// Tokens whose logit has been changed in this step.
    changed: Vec<bool>,
}

impl Sampler {
    /// For rows of `width` logits.
    ///
    /// Refuses parameters out of the ranges that [`Sampling`] names.
    pub fn new(sampling: Sampling, width: usize) -> Result<Self, SampleError> {
        check(&sampling)?;
        Ok(Self {
            draw: draw_of(&sampling),
            weights: vec![0; width],
            order: Vec::with_capacity(width),
            changed: vec![false; width],
        })
    }

    /// What a device needs to choose as this does.
    #[must_use]
    pub fn draw(&self) -> Draw {
        self.draw
    }

    /// The token to put at `position`.
    ///
    /// `history` are the tokens the repetition penalty looks at: the reference gives the answer's
    /// so far, not the prompt's. `logits` are changed by the penalty. Allocates nothing.
    ///
    /// Refuses logits that are not numbers, positively infinite, or all negatively infinite.
    ///
    /// # Panics
    ///
    /// When there are more logits than the sampler was made for.
    pub fn next(
        &mut self,
        logits: &mut [f32],
        history: &[u32],
        position: u64,
    ) -> Result<u32, SampleError> {
        assert!(
            logits.len() <= self.weights.len(),
            "broken invariant `sampler.width`: {} logits, made for {}",
            logits.len(),
            self.weights.len()
        );
        self.penalise(logits, history);
        let best = largest(logits, position)?;
        let Draw { rate, top_k, share, least, seed, .. } = self.draw;
        if top_k == 1 {
            return Ok(best);
        }

        let top = logits[best as usize];
        for (weight, &logit) in self.weights.iter_mut().zip(&*logits) {
            *weight = draw::weight(logit, top, rate);
        }
        let mut last = (f32::NEG_INFINITY, u32::MAX);
        self.order.clear();
        if (top_k as usize) < logits.len() || share < u64::MAX {
            last = self.last(logits);
        }
        let mut total = 0;
        for ((weight, &logit), id) in self.weights.iter_mut().zip(&*logits).zip(0..) {
            let kept = more_probable((logit, id), last) != Ordering::Greater;
            if !kept || *weight < least {
                *weight = 0;
            }
            total += u64::from(*weight);
        }
        Ok(at_place(&self.weights[..logits.len()], draw::place(seed, position, total)))
    }

    fn penalise(&mut self, logits: &mut [f32], history: &[u32]) {
        let penalty = self.draw.penalty;
        if penalty == 1.0 {
            return;
        }
        for &id in history {
            let Some(logit) = logits.get_mut(id as usize) else { continue };
            if !std::mem::replace(&mut self.changed[id as usize], true) {
                *logit = draw::penalised(*logit, penalty);
            }
        }
        for &id in history {
            if let Some(changed) = self.changed.get_mut(id as usize) {
                *changed = false;
            }
        }
    }

    /// The least probable token that top-k and top-p keep.
    fn last(&mut self, logits: &[f32]) -> (f32, u32) {
        let by_probability =
            |&a: &u32, &b: &u32| more_probable((logits[a as usize], a), (logits[b as usize], b));
        self.order.extend(0..logits.len() as u32);
        let top_k = self.draw.top_k as usize;
        if top_k < logits.len() {
            self.order.select_nth_unstable_by(top_k - 1, by_probability);
            self.order.truncate(top_k);
        }
        let last = match self.draw.share < u64::MAX {
            true => self.nucleus(by_probability),
            false => self.order.iter().copied().max_by(by_probability),
        };
        let id = last.expect("broken invariant `sampler.kept`: no token is kept");
        (logits[id as usize], id)
    }

    /// The last of the fewest tokens in `order` that together have the share top-p.
    ///
    /// Sorts in growing pieces: the share is usually reached among a few hundred tokens of many
    /// thousand.
    fn nucleus(&mut self, by_probability: impl Fn(&u32, &u32) -> Ordering) -> Option<u32> {
        let weight = |id: &u32| u64::from(self.weights[*id as usize]);
        let share = draw::share_of(self.order.iter().map(weight).sum(), self.draw.share);
        let mut rest = &mut self.order[..];
        let mut piece = 128;
        let mut sum = 0;
        loop {
            if piece < rest.len() {
                rest.select_nth_unstable_by(piece - 1, &by_probability);
            }
            let (sorted, others) = rest.split_at_mut(piece.min(rest.len()));
            sorted.sort_unstable_by(&by_probability);
            for id in &*sorted {
                sum += weight(id);
                if sum >= share {
                    return Some(*id);
                }
            }
            if others.is_empty() {
                return sorted.last().copied();
            }
            rest = others;
            piece *= 4;
        }
    }
}

/// Larger logits first, of equal ones the lower id: a total order, as no logit is NaN.
fn more_probable(a: (f32, u32), b: (f32, u32)) -> Ordering {
    b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1))
}

/// The lowest id of the largest logit.
fn largest(logits: &[f32], position: u64) -> Result<u32, SampleError> {
    let mut best = None;
    let mut most = f32::NEG_INFINITY;
    for (id, &logit) in (0..).zip(logits) {
        if logit.is_nan() || logit == f32::INFINITY {
            return Err(SampleError::NotFinite { id, logit: logit.to_string(), position });
        }
        if logit > most {
            most = logit;
            best = Some(id);
        }
    }
    best.ok_or(SampleError::NoToken { position })
}

/// The token in whose part of the sum of all `place` falls, ids in ascending order.
fn at_place(weights: &[u32], place: u64) -> u32 {
    let mut left = place;
    for (id, weight) in (0..).zip(weights) {
        match left.checked_sub(u64::from(*weight)) {
            Some(rest) => left = rest,
            None => return id,
        }
    }
    panic!("broken invariant `draw.place`: beyond the sum of all weights")
}

/// Parameters in their ranges as the numbers that a draw is made with.
fn draw_of(sampling: &Sampling) -> Draw {
    let Sampling { temperature, top_k, top_p, min_p, repetition_penalty: penalty, seed } =
        *sampling;
    if temperature == 0.0 {
        return Draw { penalty, ..Draw::GREEDY };
    }
    let rate = std::f64::consts::LOG2_E / f64::from(temperature);
    let whole = 2.0_f64.powi(64);
    Draw {
        rate: rate.min(f64::from(f32::MAX)) as f32,
        top_k: if top_k == 0 { Draw::ALL } else { top_k.min(Draw::ALL) },
        share: (f64::from(top_p) * whole) as u64, // 1 becomes all ones
        least: ((f64::from(min_p) * f64::from(draw::UNIT)).ceil() as u32).max(1),
        penalty,
        seed,
    }
}

fn check(sampling: &Sampling) -> Result<(), SampleError> {
    let Sampling { temperature, top_k: _, top_p, min_p, repetition_penalty, seed: _ } = *sampling;
    let finite = |value: f32| value.is_finite();
    let refuse = |name, value: f32, range| {
        Err(SampleError::Parameter { name, value: value.to_string(), range })
    };
    if !finite(temperature) || temperature < 0.0 {
        return refuse("temperature", temperature, "0 or more");
    }
    if !(0.0..=1.0).contains(&top_p) {
        return refuse("top-p", top_p, "from 0 to 1");
    }
    if !(0.0..=1.0).contains(&min_p) {
        return refuse("min-p", min_p, "from 0 to 1");
    }
    if !finite(repetition_penalty) || repetition_penalty <= 0.0 {
        return refuse("repetition penalty", repetition_penalty, "more than 0");
    }
    Ok(())
}

/// Why no token can be chosen. Numbers are kept as text, so that errors can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SampleError {
    /// Not a value this parameter can have.
    Parameter { name: &'static str, value: String, range: &'static str },
    /// The model's arithmetic went wrong, or the penalty made a number too large.
    NotFinite { id: u32, logit: String, position: u64 },
    /// Every token is ruled out.
    NoToken { position: u64 },
}

impl fmt::Display for SampleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parameter { name, value, range } => {
                write!(f, "{name} is `{value}`, but has to be {range}")
            }
            Self::NotFinite { id, logit, position } => write!(
                f,
                "the model's output is not finite\n  in position {position}\n  \
                 because the logit of token {id} is `{logit}`"
            ),
            Self::NoToken { position } => write!(
                f,
                "no next token is possible\n  in position {position}\n  \
                 because all logits are negatively infinite"
            ),
        }
    }
}

impl std::error::Error for SampleError {}

impl Help for SampleError {
    fn code(&self) -> &'static str {
        match self {
            Self::Parameter { .. } => "SC0541",
            Self::NotFinite { .. } => "SC0542",
            Self::NoToken { .. } => "SC0543",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Parameter { .. } => None,
            Self::NotFinite { .. } | Self::NoToken { .. } => {
                Some("`sailc verify` finds the first step whose values are wrong".to_owned())
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Parameter { .. } => 2,
            Self::NotFinite { .. } | Self::NoToken { .. } => 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use sail_ir::help::report;

    use super::*;

    const WARM: Sampling = Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        seed: 11,
    };

    fn choose(sampling: Sampling, logits: &[f32], position: u64) -> u32 {
        let mut sampler = Sampler::new(sampling, logits.len()).unwrap();
        sampler.next(&mut logits.to_vec(), &[], position).unwrap()
    }

    /// A number in `0..1`.
    fn uniform(seed: u64, position: u64) -> f32 {
        draw::place(seed, position, 1 << 24) as f32 / (1 << 24) as f32
    }

    /// Logits of no particular shape, with equal ones among them.
    fn drawn_logits(case: u64, width: usize) -> Vec<f32> {
        let number = |index: usize| uniform(case, index as u64);
        (0..width).map(|index| (number(index) * 40.0).round() / 4.0 - 5.0).collect()
    }

    /// Tokens and probabilities that the filters leave, the slow and plain way.
    fn kept(sampling: &Sampling, logits: &[f32]) -> Vec<(u32, f64)> {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let probability =
            |logit: f32| (f64::from(logit - top) / f64::from(sampling.temperature)).exp();
        let mut tokens: Vec<(u32, f64)> =
            (0..).zip(logits).map(|(id, &logit)| (id, probability(logit))).collect();
        tokens.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if sampling.top_k > 0 {
            tokens.truncate(sampling.top_k as usize);
        }
        let total: f64 = tokens.iter().map(|token| token.1).sum();
        let mut before = 0.0;
        tokens.retain(|token| {
            let keep = before == 0.0 || before < f64::from(sampling.top_p) * total;
            before += token.1;
            keep
        });
        tokens.retain(|token| token.1 >= f64::from(sampling.min_p));
        let total: f64 = tokens.iter().map(|token| token.1).sum();
        tokens.iter().map(|&(id, weight)| (id, weight / total)).collect()
    }

    const FILTERS: [Sampling; 8] = [
        WARM,
        Sampling { temperature: 0.6, ..WARM },
        Sampling { top_k: 3, ..WARM },
        Sampling { top_k: 5, temperature: 2.5, ..WARM },
        Sampling { top_p: 0.7, ..WARM },
        Sampling { min_p: 0.2, ..WARM },
        Sampling { top_k: 6, top_p: 0.9, min_p: 0.05, temperature: 1.7, ..WARM },
        Sampling { top_k: 1000, top_p: 0.05, ..WARM },
    ];

    #[test]
    fn greedy_takes_the_largest_logit_and_of_equal_ones_the_lowest_id() {
        let greedy = Sampling::default();
        assert_eq!(choose(greedy, &[0.5, 2.0, -1.0, 2.0], 0), 1);
        assert_eq!(choose(greedy, &[-0.0, 0.0], 0), 0);
        assert_eq!(choose(greedy, &[f32::NEG_INFINITY, -1e30], 0), 1);
    }

    #[test]
    fn filters_that_leave_one_token_are_greedy() {
        for case in 0..50 {
            let logits = drawn_logits(case, 500);
            let greedy = choose(Sampling::default(), &logits, case);
            for sampling in [
                Sampling { top_k: 1, ..WARM },
                Sampling { top_p: 0.0, ..WARM },
                Sampling { temperature: 1e-6, top_k: 1, top_p: 0.5, min_p: 1.0, ..WARM },
            ] {
                assert_eq!(choose(sampling, &logits, case), greedy, "{sampling:?}");
            }
        }
    }

    #[test]
    fn a_drawn_token_passes_every_filter_and_the_most_probable_always_does() {
        for case in 0..400u64 {
            let width = 1 + case as usize * 7 % 900;
            let logits = drawn_logits(case, width);
            let greedy = choose(Sampling::default(), &logits, 0);
            for sampling in FILTERS {
                let sampling = Sampling { seed: case, ..sampling };
                let kept = kept(&sampling, &logits);
                let drawn = choose(sampling, &logits, case);
                assert!(kept.iter().any(|token| token.0 == drawn), "{case} {sampling:?}");
                assert!(kept.iter().any(|token| token.0 == greedy), "{case} {sampling:?}");
            }
        }
    }

    #[test]
    fn tokens_come_as_often_as_they_are_probable() {
        const DRAWS: u64 = 20_000;
        let logits = [0.3, 2.0, -1.0, 2.0, 1.5, f32::NEG_INFINITY, 0.0, 0.9, -2.5, 1.1];
        for sampling in FILTERS {
            let mut sampler = Sampler::new(sampling, logits.len()).unwrap();
            let mut counts = [0u64; 10];
            for position in 0..DRAWS {
                let id = sampler.next(&mut logits.clone(), &[], position).unwrap();
                counts[id as usize] += 1;
            }
            let mut expected = [0.0; 10];
            for (id, probability) in kept(&sampling, &logits) {
                expected[id as usize] = probability;
            }
            for (id, (&count, p)) in counts.iter().zip(expected).enumerate() {
                let sigma = (DRAWS as f64 * p * (1.0 - p)).sqrt();
                let off = (count as f64 - DRAWS as f64 * p).abs();
                assert!(off <= 5.0 * sigma, "token {id}: {count} times, p {p}, {sampling:?}");
            }
        }
    }

    #[test]
    fn a_draw_depends_on_seed_and_position_only() {
        let logits = drawn_logits(3, 300);
        let draws = |seed| -> Vec<u32> {
            (0..40).map(|position| choose(Sampling { seed, ..WARM }, &logits, position)).collect()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        let mut backwards: Vec<u32> =
            (0..40).rev().map(|at| choose(Sampling { seed: 1, ..WARM }, &logits, at)).collect();
        backwards.reverse();
        assert_eq!(draws(1), backwards);
        // A sampler made for wider rows draws the same.
        let mut wide = Sampler::new(Sampling { seed: 1, ..WARM }, 1000).unwrap();
        wide.next(&mut drawn_logits(4, 1000), &[1, 2], 0).unwrap();
        assert_eq!(wide.next(&mut logits.clone(), &[], 17).unwrap(), draws(1)[17]);
    }

    #[test]
    fn the_penalty_changes_each_token_of_the_history_once() {
        let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling, 4).unwrap();
        for _ in 0..2 {
            let mut logits = [4.0, -1.0, 3.0, -0.5];
            let id = sampler.next(&mut logits, &[0, 1, 0, 0, 99], 0).unwrap();
            assert_eq!(logits, [2.0, -2.0, 3.0, -0.5]);
            assert_eq!(id, 2);
        }
    }

    #[test]
    fn choosing_keeps_the_memory_it_began_with() {
        let mut sampler = Sampler::new(Sampling { top_p: 0.99, ..WARM }, 5000).unwrap();
        let memory = |sampler: &Sampler| {
            let Sampler { weights, order, changed, draw: _ } = sampler;
            let starts = (weights.as_ptr(), order.as_ptr(), changed.as_ptr());
            (starts, weights.capacity(), order.capacity(), changed.capacity())
        };
        let before = memory(&sampler);
        for position in 0..20 {
            let mut logits = drawn_logits(position, 5000 - position as usize);
            sampler.next(&mut logits, &[3, 4], position).unwrap();
        }
        assert_eq!(memory(&sampler), before);
    }

    fn check_refusal<T>(result: Result<T, SampleError>, expected: Expect) {
        let refusal = result.err().expect("refused");
        expected.assert_eq(&format!("{}\nexit {}", report(&refusal), refusal.exit_code()));
    }

    #[test]
    fn logits_that_are_no_numbers_are_refused() {
        for sampling in [Sampling::default(), WARM] {
            let mut sampler = Sampler::new(sampling, 3).unwrap();
            let refusal = sampler.next(&mut [0.0, f32::NAN, 1.0], &[], 7).err();
            let logit = "NaN".to_owned();
            assert_eq!(refusal, Some(SampleError::NotFinite { id: 1, logit, position: 7 }));
        }
        let mut sampler = Sampler::new(WARM, 3).unwrap();
        check_refusal(
            sampler.next(&mut [0.0, 1.0, f32::INFINITY], &[], 7),
            expect![[r#"
            error[SC0542]: the model's output is not finite
              in position 7
              because the logit of token 2 is `inf`

            hint: `sailc verify` finds the first step whose values are wrong
            exit 5"#]],
        );
        check_refusal(
            sampler.next(&mut [f32::NEG_INFINITY; 3], &[], 7),
            expect![[r#"
            error[SC0543]: no next token is possible
              in position 7
              because all logits are negatively infinite

            hint: `sailc verify` finds the first step whose values are wrong
            exit 5"#]],
        );
        check_refusal(
            sampler.next(&mut [], &[], 0),
            expect![[r#"
            error[SC0543]: no next token is possible
              in position 0
              because all logits are negatively infinite

            hint: `sailc verify` finds the first step whose values are wrong
            exit 5"#]],
        );
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        let refuse = |sampling| Sampler::new(sampling, 1);
        check_refusal(
            refuse(Sampling { temperature: -0.5, ..WARM }),
            expect![[r#"
            error[SC0541]: temperature is `-0.5`, but has to be 0 or more
            exit 2"#]],
        );
        check_refusal(
            refuse(Sampling { top_p: 1.5, ..WARM }),
            expect![[r#"
            error[SC0541]: top-p is `1.5`, but has to be from 0 to 1
            exit 2"#]],
        );
        check_refusal(
            refuse(Sampling { min_p: f32::NAN, ..WARM }),
            expect![[r#"
            error[SC0541]: min-p is `NaN`, but has to be from 0 to 1
            exit 2"#]],
        );
        check_refusal(
            refuse(Sampling { repetition_penalty: 0.0, ..WARM }),
            expect![[r#"
            error[SC0541]: repetition penalty is `0`, but has to be more than 0
            exit 2"#]],
        );
    }
}
