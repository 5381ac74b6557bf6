//! Which configs of a kernel are tried: one parameter after the other, from the best so far.

use sail_kernels::{Config, Parameter};

use super::score::Score;

/// Passes over all parameters; the second finds what goes well with what the first one found.
const PASSES: usize = 2;

/// How well a config shall be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    Look,
    /// Again, by itself: the best of many looks is partly luck.
    Confirm,
}

/// What a search has found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The rule's choice unless something else won, and won again.
    pub best: Config,
    /// Of `best`, against the rule's choice.
    pub score: Option<Score>,
    /// Configs beside the rule's choice that were measured.
    pub tried: usize,
    /// Whether there was time for all.
    pub complete: bool,
}

/// Search around `own`, the rule's choice. `measure` gives nothing when time is up.
///
/// Refuses what `measure` does.
pub fn search<E>(
    own: &Config,
    space: &[Parameter],
    mut measure: impl FnMut(&Config, Effort) -> Result<Option<Score>, E>,
) -> Result<Found, E> {
    let mut found = Found { best: own.clone(), score: None, tried: 0, complete: true };
    let mut seen = vec![own.clone()];
    'search: for _ in 0..PASSES {
        let before = found.best.clone();
        for Parameter { name, values } in space {
            let around = found.best.clone();
            for config in values.iter().map(|value| around.with(name, *value)) {
                if seen.contains(&config) {
                    continue;
                }
                let Some(score) = measure(&config, Effort::Look)? else {
                    found.complete = false;
                    break 'search;
                };
                seen.push(config.clone());
                found.tried += 1;
                let best = found.score.map_or(1.0, |best| best.ratio);
                if score.wins() && score.ratio < best {
                    (found.best, found.score) = (config, Some(score));
                }
            }
        }
        if found.best == before {
            break;
        }
    }
    if found.best != *own {
        found.score = measure(&found.best, Effort::Confirm)?.filter(Score::wins);
        if found.score.is_none() {
            found.best = own.clone();
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tune::score::Ratio;

    fn space() -> Vec<Parameter> {
        vec![
            Parameter { name: "rows", values: vec![4, 6, 8] },
            Parameter { name: "block", values: vec![64, 128, 256] },
        ]
    }

    fn own() -> Config {
        Config::new(&[("rows", 8), ("block", 256)])
    }

    /// The score of a config that takes `nanos` where the rule's choice takes 1000.
    fn score(nanos: u64) -> Score {
        let quiet = Ratio { median: 1.0, spread: 0.01 };
        let rounds = [[1000, nanos].map(Duration::from_nanos); 3];
        Score::of(&[Ratio::of(&rounds)], &[quiet])
    }

    #[test]
    fn the_fastest_is_found_one_parameter_at_a_time() {
        // Fastest at 6 and 64; 64 is worth it with 6 only.
        let cost = |config: &Config| match (config.get("rows"), config.get("block")) {
            (6, 64) => 800,
            (6, 128) => 880,
            (6, _) => 900,
            _ => 1010,
        };
        let mut confirmed = 0;
        let found = search(&own(), &space(), |config, effort| {
            confirmed += usize::from(effort == Effort::Confirm);
            Ok::<_, ()>(Some(score(cost(config))))
        });
        let found = found.unwrap();
        assert_eq!(found.best, Config::new(&[("rows", 6), ("block", 64)]));
        assert_eq!((found.tried, found.complete, confirmed), (6, true, 1));
    }

    #[test]
    fn what_does_not_win_again_is_dropped() {
        let found = search(&own(), &space(), |_, effort| {
            Ok::<_, ()>(Some(score(if effort == Effort::Look { 900 } else { 1000 })))
        });
        let found = found.unwrap();
        assert_eq!((found.best, found.score), (own(), None));
    }

    #[test]
    fn a_search_without_time_keeps_the_rules_choice() {
        let found = search(&own(), &space(), |_, _| Ok::<_, ()>(None)).unwrap();
        let want = Found { best: own(), score: None, tried: 0, complete: false };
        assert_eq!(found, want);
    }
}
