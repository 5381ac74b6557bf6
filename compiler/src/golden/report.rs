//! Prints a verdict as a table a person can read down to the first stage that is wrong.

use std::fmt;

use super::judge::{Flip, Stage, Verdict};
use super::tokens::{At, Greedy, Swap};

/// Flips that are listed; more are counted.
const LISTED: usize = 12;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "case {}: {} tokens", self.case, self.tokens)?;
        writeln!(
            f,
            "  stage             distance    bf16's     bound  worst element: ours, golden"
        )?;
        let first = self.first_beyond().map(|stage| stage.name.as_str());
        for stage in &self.stages {
            line(f, stage, first == Some(&stage.name))?;
        }
        for flip in self.flips.iter().take(LISTED) {
            other_experts(f, flip)?;
        }
        if self.flips.len() > LISTED {
            writeln!(f, "  … {} more tokens took other experts", self.flips.len() - LISTED)?;
        }
        if let Some(greedy) = &self.greedy {
            tokens(f, greedy)?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, stage: &Stage, first_beyond: bool) -> fmt::Result {
    let Stage { name, distance, reference, bound, worst, within, note } = stage;
    write!(f, "  {name:16} {distance:9.5} {reference:9.5} {bound:9.5}")?;
    if let Some(worst) = worst {
        write!(f, "  {:?}: {}, {}", worst.at, worst.ours, worst.golden)?;
    }
    if !within {
        write!(f, "  {}", if first_beyond { "<- first beyond its bound" } else { "<- beyond" })?;
    }
    if let Some(note) = note {
        write!(f, " ({note})")?;
    }
    writeln!(f)
}

fn other_experts(f: &mut fmt::Formatter<'_>, flip: &Flip) -> fmt::Result {
    let Flip { layer, token, gap, near } = flip;
    write!(f, "  layer {layer}, token {token}: other experts, the golden's lead was {gap:.5}")?;
    match near {
        None => writeln!(f, " (behind an earlier change)"),
        Some(near) if flip.is_explained() => writeln!(f, " (a near-tie is below {near:.5})"),
        Some(near) => writeln!(f, "  <- no near-tie, which is below {near:.5}"),
    }
}

fn tokens(f: &mut fmt::Formatter<'_>, greedy: &Greedy) -> fmt::Result {
    let Greedy { equal, golden, near_tie, swap, within } = greedy;
    write!(f, "  greedy tokens: {equal} of {golden} equal")?;
    if let Some(step) = near_tie {
        write!(f, ", step {step} is the first near-tie")?;
    }
    if let Some(Swap { step, at }) = swap {
        match at {
            None => write!(f, ", step {step} is equal with the golden's experts for the prompt")?,
            Some(At { layer, token, gap, near }) => write!(
                f,
                ", step {step} is equal with the other expert of layer {layer}, token {token}: our lead \
                 was {gap:.5} (a near-tie is below {near:.5})"
            )?,
        }
    }
    writeln!(f, "{}", if *within { "" } else { "  <- beyond" })
}
