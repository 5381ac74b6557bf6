//! Whether a generated token differs from the golden's because a router was in a near-tie.
//!
//! The golden has the routers of the prompt, and none of the steps it generated. So ours are looked at, with
//! the golden's tokens so far: where our last chosen expert leads the first one that was not chosen by less
//! than a near-tie, the golden may have taken the other. That alone excuses nothing. It explains the token
//! only if, with the other expert in its place and all else as it was, ours is the golden's token.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use half::bf16;
use sail_runtime::execute::{Engine, Replace};
use sail_runtime::taps::{Inside, Pattern, Tensor, collect};

use super::Case;
use super::judge::{self, ranked};
use super::run::with_choice;
use super::tokens::{At, Swap};
use crate::error::{Failure, boxed};

/// Most near-ties that are tried, the nearest ones first.
const TRIED: usize = 16;

/// A case up to the token that differs.
pub struct Retrace<'a> {
    pub engine: &'a mut Engine,
    pub case: &'a Case<'a>,
    /// The prompt, with the golden's tokens up to there.
    pub ids: Vec<u32>,
    pub image_rows: Vec<i32>,
    /// Tokens of the prompt.
    pub prompt: usize,
    pub top_k: usize,
    pub stop: &'a AtomicBool,
}

/// Two experts of a row of a router's logits.
#[derive(Debug, Clone)]
struct Pair {
    router: String,
    row: usize,
    experts: [usize; 2],
}

impl Retrace<'_> {
    /// The near-tie with whose other expert our next token is `wanted`.
    pub fn swap(&mut self, wanted: u32) -> Result<Option<Swap>, Failure> {
        let step = self.ids.len() - self.prompt;
        let (token, routers) = self.run(None)?;
        if token == wanted {
            return Ok(Some(Swap { step, at: None }));
        }
        for (at, pair) in self.near_ties(&routers)? {
            if self.run(Some(pair))?.0 == wanted {
                return Ok(Some(Swap { step, at: Some(at) }));
            }
        }
        Ok(None)
    }

    /// Near-ties of rows after the prompt, the nearest first.
    fn near_ties(&self, routers: &[Tensor]) -> Result<Vec<(At, Pair)>, Failure> {
        let mut found = Vec::new();
        for (layer, name) in self.case.routers() {
            let near = judge::near_of_router(self.case, (layer, name), self.top_k);
            let near = near.map_err(boxed)?;
            let Some(router) = routers.iter().find(|tensor| tensor.name == name) else { continue };
            let rows = router.values.chunks(router.width()).enumerate();
            // The prompt's rows take the golden's experts.
            for (row, logits) in rows.skip(self.prompt) {
                let order = ranked(logits);
                let experts = [order[self.top_k - 1], order[self.top_k]];
                let gap = f64::from(logits[experts[0]]) - f64::from(logits[experts[1]]);
                if gap < near {
                    let at = At { layer, token: row, gap, near };
                    found.push((at, Pair { router: name.to_owned(), row, experts }));
                }
            }
        }
        found.sort_by(|(a, _), (b, _)| (a.gap / a.near).total_cmp(&(b.gap / b.near)));
        found.truncate(TRIED);
        Ok(found)
    }

    /// The most probable token after all of them, and our routers; the prompt takes the golden's experts,
    /// and `swapped` are exchanged.
    fn run(&mut self, swapped: Option<Pair>) -> Result<(u32, Vec<Tensor>), Failure> {
        let replace = replaced(self.case, self.top_k, swapped)?;
        self.engine.replace_tapped(Some(replace));
        // Features are those of the last call with pictures.
        let inside =
            Inside { tiles: 0, fill: &mut |_, _| (), ids: &self.ids, image_rows: &self.image_rows };
        let tensors = collect(self.engine, inside, &Pattern::new("router.*,logits"), self.stop);
        self.engine.replace_tapped(None);
        let mut tensors = tensors.map_err(boxed)?;
        let at = tensors.iter().position(|tensor| tensor.name == "logits");
        let logits =
            tensors.swap_remove(at.expect("broken invariant `taps.logits`: there are none"));
        let last = &logits.values[logits.values.len() - logits.width()..];
        Ok((ranked(last)[0] as u32, tensors))
    }
}

/// Puts the recorded logits in the place of ours for every token of the prompt, and exchanges two of a
/// later token.
fn replaced(case: &Case<'_>, top_k: usize, swapped: Option<Pair>) -> Result<Replace, Failure> {
    let mut recorded = BTreeMap::new();
    for (_, name) in case.routers() {
        let tensor = case.tensor(name).map_err(boxed)?;
        let rows = tensor.values.chunks(tensor.width());
        let rows: Vec<Vec<bf16>> = rows.map(|row| with_choice(row, top_k)).collect();
        recorded.insert(name.to_owned(), (rows, tensor.width(), 0));
    }
    Ok(Box::new(move |name, ours| {
        let Some((rows, width, taken)) = recorded.get_mut(name) else { return };
        for logits in ours.chunks_mut(*width) {
            match (rows.get(*taken), &swapped) {
                (Some(golden), _) => logits.copy_from_slice(golden),
                (None, Some(pair)) if pair.router == name && pair.row == *taken => {
                    logits.swap(pair.experts[0], pair.experts[1]);
                }
                _ => {}
            }
            *taken += 1;
        }
    }))
}
