//! What paired times say: how much faster one config is than another, and whether that is more than
//! the machine's own unrest.

use std::time::Duration;

/// Of the rounds at one number of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// Median of the candidate's time by that of the rule's choice in the same round.
    pub median: f64,
    /// Half of the distance between the quarters of these ratios.
    pub spread: f64,
}

impl Ratio {
    /// Of rounds of (rule's choice, candidate).
    ///
    /// # Panics
    ///
    /// When there are no rounds.
    #[must_use]
    pub fn of(rounds: &[[Duration; 2]]) -> Self {
        let nanos = |time: Duration| time.as_nanos().max(1) as f64;
        let mut ratios: Vec<f64> =
            rounds.iter().map(|[own, other]| nanos(*other) / nanos(*own)).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let at = |quarters: usize| ratios[(ratios.len() - 1) * quarters / 4];
        Self { median: at(2), spread: (at(3) - at(1)) / 2.0 }
    }
}

/// Of a candidate, over all numbers of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Geometric mean of the ratios: below 1 is faster.
    pub ratio: f64,
    /// Mean spread of the ratios, or of the rule's choice against itself where that is more.
    pub spread: f64,
    /// Whether it is slower somewhere, beyond the spread.
    slower: bool,
}

impl Score {
    /// Of the ratios at each number of rows; `noise` has those of the rule's choice against itself.
    ///
    /// # Panics
    ///
    /// When there are none, or not as many of both.
    #[must_use]
    pub fn of(ratios: &[Ratio], noise: &[Ratio]) -> Self {
        assert_eq!(ratios.len(), noise.len(), "one measurement of the rule's choice for each");
        let spreads: Vec<f64> =
            ratios.iter().zip(noise).map(|(one, own)| one.spread.max(own.spread)).collect();
        let count = ratios.len() as f64;
        Self {
            ratio: (ratios.iter().map(|ratio| libm::log(ratio.median)).sum::<f64>() / count).exp(),
            spread: spreads.iter().sum::<f64>() / count,
            slower: ratios.iter().zip(spreads).any(|(ratio, spread)| ratio.median - spread > 1.0),
        }
    }

    /// Is it faster beyond the spread, and nowhere slower?
    #[must_use]
    pub fn wins(&self) -> bool {
        !self.slower && self.ratio + self.spread < 1.0
    }
}

/// The middle one of the times of one of the two.
#[must_use]
pub fn median(rounds: &[[Duration; 2]], which: usize) -> Duration {
    let mut times: Vec<Duration> = rounds.iter().map(|round| round[which]).collect();
    times.sort_unstable();
    times[(times.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(own: &[u64], other: &[u64]) -> Vec<[Duration; 2]> {
        own.iter().zip(other).map(|(a, b)| [*a, *b].map(Duration::from_nanos)).collect()
    }

    #[test]
    fn rounds_are_compared_pair_by_pair() {
        // The machine slows down to a third; each pair still says the same.
        let ratio = Ratio::of(&rounds(&[100, 200, 300, 100, 300], &[90, 180, 270, 90, 270]));
        assert_eq!((ratio.median, ratio.spread), (0.9, 0.0));
        let ratio = Ratio::of(&rounds(&[100; 5], &[80, 90, 100, 110, 500]));
        assert_eq!(ratio.median, 1.0);
        assert!((ratio.spread - 0.1).abs() < 1e-12);
        assert_eq!(median(&rounds(&[3, 1, 2], &[9, 9, 7]), 0), Duration::from_nanos(2));
    }

    #[test]
    fn a_gain_within_the_spread_is_none_and_one_loss_undoes_gains() {
        let ratio = |median, spread| Ratio { median, spread };
        let quiet = [ratio(1.0, 0.0); 2];
        assert!(Score::of(&[ratio(0.9, 0.02), ratio(1.0, 0.02)], &quiet).wins());
        assert!(!Score::of(&[ratio(0.9, 0.2), ratio(1.0, 0.02)], &quiet).wins());
        assert!(!Score::of(&[ratio(0.9, 0.02); 2], &[ratio(1.0, 0.2); 2]).wins());
        assert!(!Score::of(&[ratio(0.5, 0.02), ratio(1.1, 0.02)], &quiet).wins());
        assert!(!Score::of(&quiet, &quiet).wins());
    }
}
