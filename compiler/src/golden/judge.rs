//! How far our values lie from the golden ones, and how far they may.
//!
//! The reference was also run in bf16. Our distance from its f32 run may be [`FACTOR`] times what
//! that second run's is, plus [`SLACK`]: two right implementations in bf16 lie that far apart.
//!
//! With experts, a near-tie in the router may fall either way under any rounding; a token that takes
//! another expert is far away everywhere behind it, and those that look at it are a little. There the
//! median token must meet the bound, and a change of expert must be explained by a near-tie. When our
//! run took the golden's experts ([`Rule::Forced`]), all tokens must, together and each, against
//! those tokens of the bf16 run that took them too.

use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::SQRT_2;

use serde::Serialize;

use super::tokens::{self, Decoded, Greedy, Swap};
use super::{Case, GoldenError, Tensor};

pub const FACTOR: f64 = 1.5;
pub const SLACK: f64 = 0.004;

/// A lead below this many times the RMS difference of the two reference runs may fall either way.
pub const NEAR_TIE: f64 = 4.0;

/// What our implementation gave for a case, by the golden's names.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    pub stages: BTreeMap<String, Vec<f32>>,
    /// Up to [`tokens::GREEDY_TOKENS`], the end of text left out; `None` when nothing was generated.
    pub greedy: Option<Vec<u32>>,
    /// Why the first token that differs does, where a router tells.
    pub swap: Option<Swap>,
    /// Rows that were decoded in one call.
    pub decoded: Option<Decoded>,
}

/// How decoder stages are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// No experts: the distance over all tokens.
    Dense,
    /// Our router chose `top_k` experts: the median token, and near-ties only.
    Routed { top_k: usize },
    /// The golden's router chose: the distance over all tokens, and every single one.
    Forced { top_k: usize },
}

/// What was found for one case.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    pub case: String,
    pub tokens: usize,
    pub stages: Vec<Stage>,
    pub flips: Vec<Flip>,
    pub greedy: Option<Greedy>,
}

/// One stage's distance against its bound.
#[derive(Debug, Clone, Serialize)]
pub struct Stage {
    pub name: String,
    /// Relative L2 distance, or the median token's.
    pub distance: f64,
    /// Relative L2 distance of the reference's own bf16 run.
    pub reference: f64,
    pub bound: f64,
    pub worst: Option<Worst>,
    pub within: bool,
    /// Why it is not within, when the distance does not show it.
    pub note: Option<String>,
}

/// The element that differs most.
#[derive(Debug, Clone, Serialize)]
pub struct Worst {
    pub at: Vec<usize>,
    pub ours: f32,
    pub golden: f32,
}

/// A token that took other experts than the golden's.
#[derive(Debug, Clone, Serialize)]
pub struct Flip {
    pub layer: usize,
    pub token: usize,
    /// Lead of the golden's last chosen expert over the first not chosen.
    pub gap: f64,
    /// Below this the lead may fall either way; `None` behind an earlier flip, where routers read
    /// other values.
    pub near: Option<f64>,
}

impl Flip {
    #[must_use]
    pub fn is_explained(&self) -> bool {
        self.near.is_none_or(|near| self.gap < near)
    }
}

impl Verdict {
    #[must_use]
    pub fn is_green(&self) -> bool {
        self.stages.iter().all(|stage| stage.within)
            && self.flips.iter().all(Flip::is_explained)
            && self.greedy.as_ref().is_none_or(|greedy| greedy.within)
    }

    /// The first stage beyond its bound, in the order of computing.
    #[must_use]
    pub fn first_beyond(&self) -> Option<&Stage> {
        self.stages.iter().find(|stage| !stage.within)
    }
}

/// Compare every recorded stage of `case` with what was `observed`.
///
/// Refuses a golden without the stages it should have; a stage that was not observed is not within.
pub fn judge(case: &Case<'_>, observed: &Observed, rule: Rule) -> Result<Verdict, GoldenError> {
    let routing = Routing::of(case, rule)?;
    let mut stages = Vec::new();
    for name in case.stages() {
        let triple = Triple {
            golden: case.tensor(name)?,
            reference: case.in_bf16(name)?,
            ours: observed.stages.get(name).map(Vec::as_slice),
        };
        stages.push(stage(name, &triple, rule, &routing));
    }
    if let Some(rows) = &observed.decoded {
        stages.push(tokens::decoded(case, rows, rule)?);
    }
    let flips = match rule {
        Rule::Routed { top_k } => flips(case, observed, &routing, top_k)?,
        Rule::Dense | Rule::Forced { .. } => Vec::new(),
    };
    let greedy = observed.greedy.as_ref().map(|ours| tokens::greedy(case, ours, observed.swap));
    let greedy = greedy.transpose()?;
    let tokens = case.ids()?.len();
    Ok(Verdict { case: case.name.to_owned(), tokens, stages, flips, greedy })
}

/// One stage three times.
struct Triple<'a> {
    golden: Tensor,
    reference: Tensor,
    ours: Option<&'a [f32]>,
}

fn stage(name: &str, triple: &Triple<'_>, rule: Rule, routing: &Routing) -> Stage {
    let Triple { golden, reference, ours } = triple;
    let width = golden.width();
    let fitting = ours.filter(|ours| ours.len() == golden.values.len());
    let Some(ours) = fitting else {
        let found = ours.map_or("nothing".to_owned(), |ours| format!("{} values", ours.len()));
        let note = Some(format!("we have {found}, the golden has {}", golden.values.len()));
        let (distance, reference, bound) = (f64::INFINITY, 0.0, 0.0);
        let name = name.to_owned();
        return Stage { name, distance, reference, bound, worst: None, within: false, note };
    };
    let ours_by_token = by_token(ours, &golden.values, width);
    let reference_by_token = by_token(&reference.values, &golden.values, width);
    let decoder_layer = layer(name);
    let clean = routing.clean(decoder_layer, reference_by_token.len());
    let clean: Vec<Distance> = clean.into_iter().map(|token| reference_by_token[token]).collect();

    let (distance, reference) = match (rule, decoder_layer) {
        (Rule::Routed { .. }, Some(_)) => (median(&ours_by_token), overall(&reference_by_token)),
        (Rule::Forced { .. }, Some(_)) => (overall(&ours_by_token), overall(&clean)),
        _ => (overall(&ours_by_token), overall(&reference_by_token)),
    };
    let bound = FACTOR * reference + SLACK;
    let mut within = distance <= bound;
    let mut note = None;
    if let (Rule::Forced { .. }, Some(_)) = (rule, decoder_layer) {
        let most = FACTOR * largest(&clean) + SLACK;
        let beyond = |token: &Distance| {
            token.relative().partial_cmp(&most).is_none_or(|order| order.is_gt())
        };
        if let Some(token) = ours_by_token.iter().position(beyond) {
            within = false;
            let distance = ours_by_token[token].relative();
            note = Some(format!("token {token} is at {distance:.4}, a token may be at {most:.4}"));
        }
    }
    let worst = worst(golden, ours);
    Stage { name: name.to_owned(), distance, reference, bound, worst, within, note }
}

/// The layer whose routers a decoder stage lies behind: those before it.
fn layer(stage: &str) -> Option<usize> {
    match stage.split_once('.') {
        Some(("layers" | "router", index)) => index.parse().ok(),
        _ if stage == "logits" => Some(usize::MAX),
        _ => None,
    }
}

/// Squared distance and squared length of a token's values.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Distance {
    difference: f64,
    length: f64,
}

impl Distance {
    fn relative(self) -> f64 {
        if self.difference == 0.0 { 0.0 } else { (self.difference / self.length).sqrt() }
    }
}

pub(super) fn by_token(ours: &[f32], golden: &[f32], width: usize) -> Vec<Distance> {
    let token = |(ours, golden): (&[f32], &[f32])| {
        let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
        let difference = ours.iter().zip(golden).map(square).sum();
        let length = golden.iter().map(|value| f64::from(*value).powi(2)).sum();
        Distance { difference, length }
    };
    ours.chunks(width).zip(golden.chunks(width)).map(token).collect()
}

pub(super) fn overall(tokens: &[Distance]) -> f64 {
    let add = |sum: Distance, token: &Distance| Distance {
        difference: sum.difference + token.difference,
        length: sum.length + token.length,
    };
    tokens.iter().fold(Distance::default(), add).relative()
}

pub(super) fn median(tokens: &[Distance]) -> f64 {
    let mut sorted: Vec<f64> = tokens.iter().map(|token| token.relative()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn largest(tokens: &[Distance]) -> f64 {
    tokens.iter().map(|token| token.relative()).fold(0.0, f64::max)
}

pub(super) fn worst(golden: &Tensor, ours: &[f32]) -> Option<Worst> {
    let difference = |index: &usize| {
        let difference = (ours[*index] - golden.values[*index]).abs();
        if difference.is_nan() { f32::INFINITY } else { difference }
    };
    let index = (0..ours.len()).max_by(|a, b| difference(a).total_cmp(&difference(b)))?;
    let mut at = vec![0; golden.dims.len()];
    let mut rest = index;
    for (place, size) in at.iter_mut().zip(&golden.dims).rev() {
        (*place, rest) = (rest % size, rest / size);
    }
    Some(Worst { at, ours: ours[index], golden: golden.values[index] })
}

/// Where the reference's own two runs chose different experts.
struct Routing {
    /// By layer: tokens.
    flipped: BTreeMap<usize, BTreeSet<usize>>,
}

impl Routing {
    fn of(case: &Case<'_>, rule: Rule) -> Result<Self, GoldenError> {
        let mut flipped = BTreeMap::new();
        if let Rule::Routed { top_k } | Rule::Forced { top_k } = rule {
            for (layer, name) in case.routers() {
                let (golden, reference) = (case.tensor(name)?, case.in_bf16(name)?);
                let experts = golden.width();
                flipped.insert(layer, differing(&golden.values, &reference.values, experts, top_k));
            }
        }
        Ok(Self { flipped })
    }

    /// Tokens that no flip before `layer` touched; all of them when that would be none.
    fn clean(&self, layer: Option<usize>, tokens: usize) -> Vec<usize> {
        let before = layer.unwrap_or(0);
        let touched =
            |token: &usize| self.flipped.range(..before).any(|(_, set)| set.contains(token));
        let clean: Vec<usize> = (0..tokens).filter(|token| !touched(token)).collect();
        if clean.is_empty() { (0..tokens).collect() } else { clean }
    }
}

/// Rows of logits whose best `top_k` are other sets.
fn differing(a: &[f32], b: &[f32], experts: usize, top_k: usize) -> BTreeSet<usize> {
    let rows = a.chunks(experts).zip(b.chunks(experts)).enumerate();
    rows.filter(|(_, (a, b))| chosen(a, top_k) != chosen(b, top_k)).map(|(row, _)| row).collect()
}

/// Indices of the best `top_k`, as a set; of equal logits the lower index.
fn chosen(logits: &[f32], top_k: usize) -> BTreeSet<usize> {
    ranked(logits).into_iter().take(top_k).collect()
}

/// Indices from the largest value down; of equal ones the lower index first.
#[must_use]
pub fn ranked(logits: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    order
}

/// Tokens where our router chose other experts than the golden's.
fn flips(
    case: &Case<'_>,
    observed: &Observed,
    routing: &Routing,
    top_k: usize,
) -> Result<Vec<Flip>, GoldenError> {
    let mut flips: Vec<Flip> = Vec::new();
    for (layer, name) in case.routers() {
        let (golden, reference) = (case.tensor(name)?, case.in_bf16(name)?);
        let experts = golden.width();
        let Some(ours) = observed.stages.get(name).filter(|ours| ours.len() == golden.values.len())
        else {
            continue; // its stage says so
        };
        let rows = routing.clean(Some(layer), ours.len() / experts);
        // A lead is the difference of two logits, which scatters √2 as far as one of them.
        let near = SQRT_2 * near_tie(&golden, &reference, &rows);
        // A token sees those before it: behind the first flip of an earlier layer all is open.
        let open = flips.iter().map(|flip| flip.token).min().unwrap_or(usize::MAX);
        for token in differing(&golden.values, ours, experts, top_k) {
            let row = &golden.values[token * experts..][..experts];
            let order = ranked(row);
            let gap = f64::from(row[order[top_k - 1]]) - f64::from(row[order[top_k]]);
            flips.push(Flip { layer, token, gap, near: (token < open).then_some(near) });
        }
    }
    Ok(flips)
}

/// What the two reference runs' values leave open, over some rows.
pub(super) fn near_tie(golden: &Tensor, reference: &Tensor, rows: &[usize]) -> f64 {
    let width = golden.width();
    let distances = by_token(&reference.values, &golden.values, width);
    let squares: f64 = rows.iter().map(|row| distances[*row].difference).sum();
    NEAR_TIE * (squares / (rows.len() * width).max(1) as f64).sqrt()
}

/// Below this lead another choice of a router may be right.
pub(super) fn near_of_router(
    case: &Case<'_>,
    (layer, name): (usize, &str),
    top_k: usize,
) -> Result<f64, GoldenError> {
    let (golden, reference) = (case.tensor(name)?, case.in_bf16(name)?);
    let rows = golden.values.len() / golden.width();
    let rows = Routing::of(case, Rule::Routed { top_k })?.clean(Some(layer), rows);
    Ok(SQRT_2 * near_tie(&golden, &reference, &rows))
}

#[cfg(test)]
mod tests {
    use super::super::testing::golden;
    use super::*;

    /// Three tokens of four values, with a bf16 run at a relative distance of about 0.01.
    fn stages(name: &str) -> (String, String, Vec<f32>, Vec<f32>) {
        let values: Vec<f32> = (1..=12).map(|v| v as f32).collect();
        let reference = values.iter().map(|v| v * 1.01).collect();
        (format!("0.{name}"), format!("0.{name}_bf16"), values, reference)
    }

    fn observe(pairs: &[(&str, Vec<f32>)]) -> Observed {
        let stages = pairs.iter().map(|(name, values)| ((*name).to_owned(), values.clone()));
        Observed { stages: stages.collect(), ..Observed::default() }
    }

    #[test]
    fn a_stage_may_lie_as_far_as_one_and_a_half_times_the_bf16_run_and_not_farther() {
        let (name, in_bf16, values, reference) = stages("layers.1");
        let golden = golden(
            &[(&name, &[3, 4], values.clone()), (&in_bf16, &[3, 4], reference)],
            &[("0.ids", vec![1; 3])],
        );
        for (factor, green) in [(1.018, true), (1.020, false), (f32::NAN, false)] {
            let ours = values.iter().map(|v| v * factor).collect();
            let verdict =
                judge(&golden.cases()[0], &observe(&[("layers.1", ours)]), Rule::Dense).unwrap();
            assert_eq!(verdict.is_green(), green, "{factor}: {verdict:?}");
        }
    }

    #[test]
    fn a_stage_that_is_missing_or_has_another_size_is_beyond() {
        let (name, in_bf16, values, reference) = stages("vision");
        let golden = golden(
            &[(&name, &[3, 4], values.clone()), (&in_bf16, &[3, 4], reference)],
            &[("0.ids", vec![1; 3])],
        );
        for observed in [observe(&[]), observe(&[("vision", values[1..].to_vec())])] {
            let verdict = judge(&golden.cases()[0], &observed, Rule::Dense).unwrap();
            assert_eq!(verdict.first_beyond().unwrap().name, "vision");
        }
    }

    /// Three tokens choosing one of two experts; the last by a lead of `gap`, or as `ours` says.
    fn routed(gap: f32, ours: [f32; 2]) -> Verdict {
        let logits = vec![2.0, 0.0, 2.0, 0.0, 1.0, 1.0 - gap];
        let reference: Vec<f32> = logits.iter().map(|v| v + 0.01).collect();
        let golden = golden(
            &[("0.router.0", &[3, 2], logits), ("0.router.0_bf16", &[3, 2], reference)],
            &[("0.ids", vec![1; 3])],
        );
        let observed = observe(&[("router.0", [&[2.0, 0.0, 2.0, 0.0], &ours[..]].concat())]);
        judge(&golden.cases()[0], &observed, Rule::Routed { top_k: 1 }).unwrap()
    }

    #[test]
    fn another_expert_is_explained_by_a_near_tie_only() {
        let verdict = routed(0.02, [0.985, 1.0]);
        assert_eq!((verdict.flips.len(), verdict.flips[0].token), (1, 2));
        assert!(verdict.is_green(), "{verdict:?}");
        assert!(!routed(0.2, [0.8, 1.0]).is_green());
    }

    #[test]
    fn with_the_goldens_experts_a_single_token_counts() {
        let (name, in_bf16, values, reference) = stages("layers.0");
        let golden = golden(
            &[(&name, &[3, 4], values.clone()), (&in_bf16, &[3, 4], reference)],
            &[("0.ids", vec![1; 3])],
        );
        let mut ours = values;
        ours[0] = 1.2; // token 0 is short: the distance over all tokens hides it
        let observed = observe(&[("layers.0", ours)]);
        let judged = |rule| judge(&golden.cases()[0], &observed, rule).unwrap().is_green();
        assert!(judged(Rule::Dense) && !judged(Rule::Forced { top_k: 1 }));
    }
}
