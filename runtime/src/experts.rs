//! Counts which experts tokens go through, call by call, for `--profile-experts`.
//!
//! The plan says where the choice of each layer stands after a call ([`Place::Choice`]); reading it
//! is all there is to do, so nobody pays who does not ask.

mod heat_map;

use std::collections::BTreeMap;

use sail_ir::artifact::Manifest;
use sail_ir::expert_profile::{ExpertProfile, LayerProfile, TokenKind};
use sail_ir::plan::{Buffer, Count, Place};

use crate::execute::Done;

pub use heat_map::heat_map;

/// A profile that grows with every call it hears of.
pub struct ExpertCounts {
    profile: ExpertProfile,
}

impl ExpertCounts {
    /// Nothing counted yet; `None` when the model has no experts.
    #[must_use]
    pub fn new(manifest: &Manifest) -> Option<Self> {
        let buffers = manifest.plan.functions.iter().flat_map(|function| function.buffers.iter());
        let layers: BTreeMap<u32, u32> = buffers
            .filter_map(|(_, buffer)| match buffer.place {
                Place::Choice { layer, of } => Some((layer, of)),
                _ => None,
            })
            .collect();
        let profile = ExpertProfile::new(manifest.model.clone(), layers.clone());
        (!layers.is_empty()).then_some(Self { profile })
    }

    /// Count the choices that a call has left.
    pub fn add(&mut self, done: &Done) {
        for token in 0..done.call.tokens {
            *self.profile.tokens.of_mut(kind(done, token)) += 1;
        }
        for (_, buffer) in done.function.buffers.iter() {
            let Place::Choice { layer, .. } = buffer.place else { continue };
            let row = self.profile.layers.iter_mut().find(|row| row.layer == layer);
            let row = row.expect("broken invariant `choices.known`: a layer is missing");
            count(row, buffer, done, layer);
        }
    }

    #[must_use]
    pub fn profile(&self) -> &ExpertProfile {
        &self.profile
    }
}

fn count(row: &mut LayerProfile, buffer: &Buffer, done: &Done, layer: u32) {
    let index = done.layout.choice(layer).expect("broken invariant `layout.choices`: none");
    let chosen = done.device.choice(index);
    let each = buffer.row_dims.iter().product::<u64>() as usize;
    let tokens = match buffer.count {
        Some(Count::Outputs) => done.outputs.clone(),
        _ => 0..done.call.tokens,
    };
    for (token, experts) in tokens.zip(chosen.chunks_exact(each.max(1))) {
        let counts = row.counts.of_mut(kind(done, token));
        for expert in experts {
            if let Some(count) = counts.get_mut(*expert as usize) {
                *count += 1;
            }
        }
    }
}

fn kind(done: &Done, token: u32) -> TokenKind {
    match done.image_rows.get(token as usize) {
        None => TokenKind::Generated,
        Some(row) if *row >= 0 => TokenKind::Image,
        Some(_) => TokenKind::Prompt,
    }
}
