//! From the files of a checkpoint to a typed, checked model, and its forward pass in verbs.
//!
//! Start at [`open`]. Modules in reading order.

pub mod error;
pub mod hf_config;
pub mod spec;
pub mod tensor;

pub mod checkpoint;
mod index;
pub mod random;
mod shard;
pub mod weights;

mod byte_tokenizer;
mod layout;
pub mod sail_vl2;
pub mod synth;

#[cfg(test)]
mod testing;

use std::path::Path;

pub use checkpoint::Checkpoint;
pub use error::ModelError;
pub use hf_config::RawConfig;
pub use spec::ModelSpec;
pub use tensor::Tensor;
pub use weights::{WeightSource, Weights};

use error::quoted;
use spec::Head;

/// A family of models: what its files look like, and what they mean.
#[derive(Debug)]
pub struct Family {
    /// As in [`ModelSpec::family`].
    pub name: &'static str,
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// Check the files.
    pub spec: fn(&RawConfig) -> Result<ModelSpec, ModelError>,
    /// The tensors a model of this family reads, in the order of the published modules.
    pub tensors: fn(&ModelSpec) -> Vec<Tensor>,
    /// The tensors that may be one: the embedding table and the head.
    pub tied: [&'static str; 2],
}

/// One row per family.
pub const MODELS: &[Family] = &[sail_vl2::FAMILY];

/// A checkpoint that was read, checked and found to be of a known family.
#[derive(Debug)]
pub struct Model {
    pub spec: ModelSpec,
    pub weights: Weights,
    /// The text of `tokenizer.json`.
    pub tokenizer: String,
    /// The text of `chat_template.jinja`, which may be absent.
    pub chat_template: Option<String>,
}

impl Model {
    /// The embedding table and the head, where that one has no tensor of its own.
    #[must_use]
    pub fn tied(&self) -> Option<[&'static str; 2]> {
        let family = MODELS.iter().find(|family| family.name == self.spec.family);
        family.map(|family| family.tied).filter(|_| self.spec.decoder.head == Head::Embedding)
    }
}

/// Read and check the checkpoint in `dir`.
///
/// The head rule: a stored head counts even where the config says that it is tied, since the
/// published loader never ties it again; one that is not stored, or has the embedding's bytes, is
/// the embedding table. With random weights the head is a tensor of its own.
///
/// Refuses all that [`RawConfig::read`], [`Family::spec`] and [`Checkpoint`] refuse.
pub fn open(dir: &Path, source: WeightSource) -> Result<Model, ModelError> {
    let raw = RawConfig::read(dir)?;
    if source == WeightSource::Checkpoint {
        RawConfig::needs_preprocessor(dir)?;
    }
    let family = family(&raw)?;
    let mut spec = (family.spec)(&raw)?;
    let weights = match source {
        WeightSource::Random { seed } => Weights::of_seed(seed, (family.tensors)(&spec)),
        WeightSource::Checkpoint => {
            let [embedding, head] = family.tied;
            let checkpoint = Checkpoint::open(dir)?;
            if spec.decoder.tied && !checkpoint.has(head) {
                spec.decoder.head = Head::Embedding;
            }
            let weights = Weights::of_checkpoint(checkpoint, (family.tensors)(&spec))?;
            if weights.equal(embedding, head)? {
                spec.decoder.head = Head::Embedding;
                weights.without(head)
            } else {
                weights
            }
        }
    };
    let RawConfig { tokenizer_text: tokenizer, chat_template, .. } = raw;
    Ok(Model { spec, weights, tokenizer, chat_template })
}

/// The row of [`MODELS`] that the files name.
pub fn family(raw: &RawConfig) -> Result<&'static Family, ModelError> {
    let found = raw.config.text("model_type")?;
    MODELS.iter().find(|family| family.model_type == found).ok_or_else(|| {
        let known: Vec<String> =
            MODELS.iter().map(|family| format!("`{}`", family.model_type)).collect();
        ModelError::UnknownModel {
            key: "model_type",
            found: format!("type {}", quoted(&found)),
            known: known.join(", "),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Checkpoints outside the repository; `None`, said loudly, where there are none.
    fn shared(path: &str) -> Option<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(path);
        if folder.exists() {
            return Some(folder);
        }
        eprintln!("skipped: no `../shared/{path}`");
        None
    }

    #[test]
    fn fixtures_of_an_independent_writer_open() {
        for name in ["random-dense", "random-moe", "random-long"] {
            let Some(dir) = shared(&format!("fixtures/{name}")) else { return };
            let model =
                open(&dir, WeightSource::Checkpoint).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(model.spec.tokens.image_context, 743, "{name}");
            assert_eq!(model.spec.decoder.head, Head::Stored, "{name}");
        }
    }

    #[test]
    fn the_tile_limit_of_a_fixture_is_its_picture_processors() {
        let Some(dir) = shared("fixtures/random-long") else { return };
        let spec = open(&dir, WeightSource::Checkpoint).unwrap().spec;
        assert_eq!((spec.tiling.max_tiles, spec.tiles_per_picture()), (5, 6));
    }

    #[test]
    fn the_published_index_names_the_tensors_that_are_expected() {
        let Some(dir) = shared("checkpoints/SAIL-VL2-2B") else { return };
        let model = open(&dir, WeightSource::Random { seed: 1 }).unwrap();
        let text = std::fs::read_to_string(dir.join("model.safetensors.index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut ours: Vec<&str> =
            model.weights.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
        ours.sort_unstable();
        let theirs: Vec<&String> = index["weight_map"].as_object().unwrap().keys().collect();
        assert_eq!(ours, theirs);
        assert_eq!(index["metadata"]["total_size"], model.weights.bytes());
        let tokens = &model.spec.tokens;
        assert_eq!(tokens.eos, [151_645]);
        assert_eq!(tokens.pad, Some(151_643));
        let image = [tokens.image_start, tokens.image_end, tokens.image_context];
        assert_eq!(image, [151_669, 151_670, 151_671]);
    }
}
