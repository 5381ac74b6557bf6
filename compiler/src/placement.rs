//! Where the experts of a layer stand in the file, and what load to shape their products for: both
//! from a profile of a run (`--expert-profile`). No answer changes.
//!
//! The experts of a layer stand in the order of their counts, the most used first, so that what is
//! read often lies together. Equal counts, and a layer of which nothing was counted, keep the order of
//! the checkpoint.

mod error;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sail_ir::expert_profile::{ExpertProfile, LayerProfile};
use sail_kernels::experts::CALL_TOKENS;
use sail_models::ModelSpec;
use sail_models::spec::FeedForward;

use crate::error::plain;

pub use error::ProfileError;

/// The order of the experts of each layer, and their load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    layers: BTreeMap<u32, Vec<u32>>,
    busiest: u32,
    /// Of the profile's file, in hexadecimal digits.
    blake3: String,
}

impl Placement {
    /// Read the profile at `path`, which must be of this model.
    ///
    /// Refuses a file that is no profile, and one of another number of layers, experts or choices.
    pub fn open(path: &Path, spec: &ModelSpec) -> Result<Self, ProfileError> {
        let name = || path.display().to_string();
        let refuse = |because| ProfileError::File { path: name(), because };
        let text = fs::read(path)
            .map_err(|error| refuse(format!("it cannot be read: {}", plain(&error))))?;
        let profile = ExpertProfile::parse(&text).map_err(refuse)?;
        fits(&profile, spec)
            .map_err(|because| ProfileError::OtherModel { path: name(), because })?;
        Ok(Self::of(&profile, blake3::hash(&text).to_hex().to_string()))
    }

    fn of(profile: &ExpertProfile, blake3: String) -> Self {
        let top_k = profile.model.decoder.experts.map_or(0, |experts| experts.top_k);
        let order = |row: &LayerProfile| (row.layer, by_count(&row.totals()));
        let busiest = profile.layers.iter().map(|row| busiest_rows(row, top_k)).max();
        let layers = profile.layers.iter().map(order).collect();
        Self { layers, busiest: busiest.unwrap_or(0), blake3 }
    }

    /// The experts of a layer as they stand in the file.
    ///
    /// # Panics
    ///
    /// When the layer has no experts.
    #[must_use]
    pub fn of_layer(&self, layer: u32) -> &[u32] {
        let order = self.layers.get(&layer);
        order.unwrap_or_else(|| panic!("broken invariant `placement.layers`: no layer {layer}"))
    }

    /// Rows that the busiest expert of any layer is expected to have in the largest call.
    #[must_use]
    pub fn busiest(&self) -> u32 {
        self.busiest
    }

    /// The option that brought it, for the artifact: its hash, as a path says nothing elsewhere.
    #[must_use]
    pub fn echo(&self) -> String {
        format!("--expert-profile=blake3:{}", self.blake3)
    }
}

/// Experts by falling count; of equal ones the lower number first.
fn by_count(counts: &[u64]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..).take(counts.len()).collect();
    order.sort_by_key(|expert| std::cmp::Reverse(counts[*expert as usize]));
    order
}

/// Rows of the busiest expert of a layer when a call has [`CALL_TOKENS`] tokens of a prompt: no
/// expert meets a token twice.
fn busiest_rows(row: &LayerProfile, top_k: u64) -> u32 {
    let prompt = row.counts.image.iter().zip(&row.counts.prompt);
    let mut counts: Vec<u64> = prompt.map(|(image, text)| image.saturating_add(*text)).collect();
    if counts.iter().all(|count| *count == 0) {
        counts = row.totals();
    }
    let all: u128 = counts.iter().map(|count| u128::from(*count)).sum();
    let most = counts.into_iter().max().unwrap_or(0);
    let rows = u128::from(CALL_TOKENS) * u128::from(top_k) * u128::from(most);
    let rows = rows.checked_div(all).unwrap_or(0).min(u128::from(CALL_TOKENS));
    u32::try_from(rows).expect("a few hundred")
}

/// Why the profile is of another model, if it is.
fn fits(profile: &ExpertProfile, spec: &ModelSpec) -> Result<(), String> {
    let decoder = &spec.decoder.feed_forward;
    let sizes = decoder.iter().find_map(|layer| match layer {
        FeedForward::Experts { count, top_k, .. } => Some((*count, *top_k)),
        FeedForward::Dense { .. } => None,
    });
    let Some(sizes) = sizes else {
        return Err("no layer of this model has experts".to_owned());
    };
    let theirs = &profile.model.decoder;
    let their_sizes = theirs.experts.map_or((0, 0), |experts| (experts.count, experts.top_k));
    if (theirs.layers, their_sizes) != (spec.decoder.layers(), sizes) {
        let words = |layers: u64, (count, top_k): (u64, u64)| {
            format!("{layers} layers and chooses {top_k} of {count} experts")
        };
        return Err(format!(
            "that model has {}, this one has {}",
            words(theirs.layers, their_sizes),
            words(spec.decoder.layers(), sizes)
        ));
    }
    let with_experts = |layer: &(u32, &FeedForward)| matches!(layer.1, FeedForward::Experts { .. });
    let layers = (0..).zip(decoder).filter(with_experts).map(|(layer, _)| layer);
    let (layers, counted): (Vec<u32>, Vec<u32>) =
        (layers.collect(), profile.layers.iter().map(|row| row.layer).collect());
    if layers != counted {
        return Err(format!("layers {counted:?} were counted, those with experts are {layers:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sail_ir::expert_profile::ByKind;

    use super::*;

    fn row(image: &[u64], prompt: &[u64], generated: &[u64]) -> LayerProfile {
        let [image, prompt, generated] = [image, prompt, generated].map(<[u64]>::to_vec);
        LayerProfile { layer: 0, counts: ByKind { image, prompt, generated } }
    }

    #[test]
    fn the_most_used_stand_first_and_equal_ones_as_they_were() {
        assert_eq!(by_count(&[0, 5, 2, 5, 9]), [4, 1, 3, 2, 0]);
        assert_eq!(by_count(&[0, 0, 0]), [0, 1, 2]);
    }

    #[test]
    fn the_load_expected_is_that_of_prompts_and_of_no_more_than_all_tokens() {
        assert_eq!(busiest_rows(&row(&[1, 1], &[2, 4], &[90, 0]), 1), 512 * 5 / 8);
        assert_eq!(busiest_rows(&row(&[0, 0], &[0, 0], &[3, 1]), 1), 384);
        assert_eq!(busiest_rows(&row(&[0, 0], &[u64::MAX, 0], &[0, 0]), 2), 512);
        assert_eq!(busiest_rows(&row(&[0; 2], &[0; 2], &[0; 2]), 2), 0);
    }
}
