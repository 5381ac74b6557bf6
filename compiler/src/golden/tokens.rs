//! Generated tokens against the golden's, and rows that were decoded beside each other.

use serde::Serialize;

use super::judge::{
    FACTOR, Rule, SLACK, Stage, by_token, median, near_tie, overall, ranked, worst,
};
use super::{Case, GoldenError, Tensor};

/// Tokens that the reference generates at most.
pub const GREEDY_TOKENS: usize = 24;

/// A choice of experts with which the token of a step is the golden's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Swap {
    pub step: usize,
    /// The near-tie in which the other expert was taken; `None`: the golden's experts for the prompt did.
    pub at: Option<At>,
}

/// A router in a near-tie after the prompt, where the golden has none to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct At {
    pub layer: usize,
    pub token: usize,
    /// Lead of our last chosen expert over the first not chosen, and below what it may fall either way.
    pub gap: f64,
    pub near: f64,
}

/// Logits of rows that were decoded in one call, each after other ones of the golden's tokens.
#[derive(Debug, Clone, Default)]
pub struct Decoded {
    /// The step of the golden that each row is.
    pub steps: Vec<usize>,
    pub logits: Vec<f32>,
}

/// Generated tokens against the golden's.
#[derive(Debug, Clone, Serialize)]
pub struct Greedy {
    /// Equal tokens from the start.
    pub equal: usize,
    pub golden: usize,
    /// The first step whose lead may fall either way; what follows is not judged.
    pub near_tie: Option<usize>,
    /// Why the first step that differs does, where a router tells; nor is what follows that.
    pub swap: Option<Swap>,
    pub within: bool,
}

/// Tokens must be equal up to the first step where the golden's lead is a near-tie, or that a near-tie of
/// a router explains.
pub(super) fn greedy(
    case: &Case<'_>,
    ours: &[u32],
    swap: Option<Swap>,
) -> Result<Greedy, GoldenError> {
    let golden = case.greedy()?;
    let (logits, reference) = (case.tensor("logits")?, case.in_bf16("logits")?);
    let rows: Vec<usize> = (0..logits.values.len() / logits.width()).collect();
    let near = near_tie(&logits, &reference, &rows);
    let steps = case.tensor("greedy_logits")?;
    let lead = |row: &[f32]| {
        let order = ranked(row);
        f64::from(row[order[0]]) - f64::from(row[order[1]])
    };
    let near_tie = steps.values.chunks(steps.width()).position(|row| lead(row) < near);
    let equal = golden.iter().zip(ours).take_while(|(a, b)| a == b).count();
    let all = equal == golden.len() && (ours.len() == equal || equal == GREEDY_TOKENS);
    let explained = swap.is_some_and(|swap| swap.step == equal);
    let within = all || explained || near_tie.is_some_and(|step| equal >= step);
    Ok(Greedy { equal, golden: golden.len(), near_tie, swap, within })
}

/// Rows of one call as a stage: each a step that the reference generated. Of these it has no run in bf16,
/// and no routers: its distance is that of the prompt's logits, and with experts the median row counts.
pub(super) fn decoded(case: &Case<'_>, rows: &Decoded, rule: Rule) -> Result<Stage, GoldenError> {
    let recorded = case.tensor("greedy_logits")?;
    let width = recorded.width();
    let step = |step: &usize| recorded.values[step * width..][..width].iter().copied();
    let values: Vec<f32> = rows.steps.iter().flat_map(step).collect();
    let golden = Tensor { dims: vec![rows.steps.len(), width], values };
    let tokens = by_token(&rows.logits, &golden.values, width);
    let (logits, reference) = (case.tensor("logits")?, case.in_bf16("logits")?);
    let reference = overall(&by_token(&reference.values, &logits.values, logits.width()));
    let distance = if rule == Rule::Dense { overall(&tokens) } else { median(&tokens) };
    let bound = FACTOR * reference + SLACK;
    let name = format!("decoded {}", rows.steps.len());
    let (worst, within) = (worst(&golden, &rows.logits), distance <= bound);
    Ok(Stage { name, distance, reference, bound, worst, within, note: None })
}

#[cfg(test)]
mod tests {
    use super::super::testing::golden;
    use super::*;

    #[test]
    fn a_row_that_was_decoded_beside_others_is_held_to_its_step() {
        let logits = vec![1.0, 2.0, 3.0, 4.0];
        let steps = vec![1.0, 2.0, 4.0, 3.0, 7.0, 5.0];
        let golden = golden(
            &[
                ("0.logits", &[2, 2], logits.clone()),
                ("0.logits_bf16", &[2, 2], logits.iter().map(|v| v * 1.01).collect()),
                ("0.greedy_logits", &[3, 2], steps),
            ],
            &[("0.ids", vec![1]), ("0.greedy", vec![1, 0, 0])],
        );
        let judged = |logits: [f32; 4]| {
            let rows = Decoded { steps: vec![2, 1], logits: logits.to_vec() };
            decoded(&golden.cases()[0], &rows, Rule::Dense).unwrap().within
        };
        assert!(judged([7.0, 5.0, 4.0, 3.0]) && judged([7.1, 5.05, 4.04, 3.0]));
        assert!(!judged([4.0, 3.0, 7.0, 5.0]), "rows in another order");
        assert!(!judged([7.0, 5.0, f32::NAN, 3.0]));
    }

    /// Golden tokens 1, 0; leads of 1 and of `lead`; the runs differ by an RMS of 0.01.
    fn generated(lead: f32, ours: &[u32]) -> Greedy {
        let logits = vec![0.0, 1.0];
        let golden = golden(
            &[
                ("0.logits", &[1, 2], logits.clone()),
                ("0.logits_bf16", &[1, 2], logits.iter().map(|v| v + 0.01).collect()),
                ("0.greedy_logits", &[2, 2], vec![0.0, 1.0, lead, 0.0]),
            ],
            &[("0.ids", vec![1]), ("0.greedy", vec![1, 0])],
        );
        greedy(&golden.cases()[0], ours, None).unwrap()
    }

    #[test]
    fn tokens_are_equal_up_to_the_first_near_tie() {
        assert!(generated(1.0, &[1, 0]).within);
        assert!(!generated(1.0, &[1, 1]).within, "no tie excuses the second token");
        assert!(!generated(1.0, &[1]).within, "ended too early");
        assert!(!generated(1.0, &[1, 0, 1]).within, "did not end");
        assert!(generated(0.03, &[1, 1, 1]).within, "the second step is a near-tie");
        assert!(!generated(0.03, &[0, 0]).within, "the first is not");
    }

    #[test]
    fn a_token_that_a_router_explains_is_the_first_that_differs() {
        let logits = vec![0.0, 1.0];
        let golden = golden(
            &[
                ("0.logits", &[1, 2], logits.clone()),
                ("0.logits_bf16", &[1, 2], logits),
                ("0.greedy_logits", &[2, 2], vec![0.0, 1.0, 1.0, 0.0]),
            ],
            &[("0.ids", vec![1]), ("0.greedy", vec![1, 0])],
        );
        let judged = |step| {
            let swap = Swap { step, at: None };
            greedy(&golden.cases()[0], &[1, 1], Some(swap)).unwrap().within
        };
        assert!(judged(1));
        assert!(!judged(0), "it is about another step");
    }
}
