//! Which experts the tokens of a model went through: counted while it runs, read when it is
//! compiled.
//!
//! ```text
//! {"schema": "sail.experts/1", "model": {…}, "tokens": {"image": 9, "prompt": 20, "generated": 5},
//!  "layers": [{"layer": 0, "counts": {"image": […], "prompt": […], "generated": […]}}, …]}
//! ```
//!
//! A list has one count for each expert; each token counts once for each expert it was sent to.

use serde::{Deserialize, Serialize};

use crate::artifact::ModelCard;

/// The form of the document; another number is another form.
pub const SCHEMA: &str = "sail.experts/1";

/// The whole document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertProfile {
    /// [`SCHEMA`]
    pub schema: String,
    /// The model that ran, as its artifact describes it.
    pub model: ModelCard,
    /// Tokens that ran.
    pub tokens: ByKind<u64>,
    /// Layers with experts, ascending.
    pub layers: Vec<LayerProfile>,
}

/// The counts of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerProfile {
    pub layer: u32,
    pub counts: ByKind<Vec<u64>>,
}

/// One of each kind of token.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByKind<T> {
    /// Places of a prompt that stand for a part of a picture.
    pub image: T,
    /// All others of a prompt.
    pub prompt: T,
    /// Tokens of answers.
    pub generated: T,
}

/// Kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    Image,
    Prompt,
    Generated,
}

impl TokenKind {
    pub const ALL: [Self; 3] = [Self::Image, Self::Prompt, Self::Generated];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Image => "image tokens",
            Self::Prompt => "text of prompts",
            Self::Generated => "generated tokens",
        }
    }
}

impl<T> ByKind<T> {
    #[must_use]
    pub fn of(&self, kind: TokenKind) -> &T {
        match kind {
            TokenKind::Image => &self.image,
            TokenKind::Prompt => &self.prompt,
            TokenKind::Generated => &self.generated,
        }
    }

    pub fn of_mut(&mut self, kind: TokenKind) -> &mut T {
        match kind {
            TokenKind::Image => &mut self.image,
            TokenKind::Prompt => &mut self.prompt,
            TokenKind::Generated => &mut self.generated,
        }
    }
}

impl ExpertProfile {
    /// Nothing counted yet, for layers with so many experts.
    #[must_use]
    pub fn new(model: ModelCard, layers: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let layers = layers.into_iter().map(|(layer, experts)| {
            let none = vec![0; experts as usize];
            let counts = ByKind { image: none.clone(), prompt: none.clone(), generated: none };
            LayerProfile { layer, counts }
        });
        Self {
            schema: SCHEMA.to_owned(),
            model,
            tokens: ByKind::default(),
            layers: layers.collect(),
        }
    }

    /// Read a document; says why not when it is none, or contradicts itself.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let document: serde_json::Value =
            serde_json::from_slice(text).map_err(|error| format!("it is not JSON: {error}"))?;
        match document.get("schema").and_then(|schema| schema.as_str()) {
            Some(SCHEMA) => {}
            found => {
                let found = found.map_or("none".to_owned(), |found| format!("`{found}`"));
                return Err(format!("its schema is {found}, not `{SCHEMA}`"));
            }
        }
        let profile: Self =
            serde_json::from_value(document).map_err(|error| format!("of this: {error}"))?;
        let experts = profile.model.decoder.experts.map_or(0, |experts| experts.count);
        for layer in &profile.layers {
            for kind in TokenKind::ALL {
                let counts = layer.counts.of(kind).len() as u64;
                if counts != experts {
                    let layer = layer.layer;
                    return Err(format!("layer {layer} has {counts} counts for {experts} experts"));
                }
            }
        }
        Ok(profile)
    }
}

impl LayerProfile {
    /// Counts of each expert, all kinds of tokens together.
    #[must_use]
    pub fn totals(&self) -> Vec<u64> {
        let ByKind { image, prompt, generated } = &self.counts;
        let all = image.iter().zip(prompt).zip(generated);
        all.map(|((a, b), c)| a.saturating_add(*b).saturating_add(*c)).collect()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::artifact::{DecoderCard, ExpertsCard, VisionCard};

    fn model() -> ModelCard {
        ModelCard {
            family: "sail-vl2".to_owned(),
            parameters: 1,
            vision: VisionCard {
                layers: 1,
                width: 8,
                heads: 1,
                ff_width: 8,
                patch_size: 2,
                patches: 4,
            },
            decoder: DecoderCard {
                layers: 2,
                width: 8,
                heads: 1,
                kv_heads: 1,
                head_dim: 8,
                ff_width: 0,
                experts: Some(ExpertsCard { count: 3, top_k: 2, width: 4 }),
                vocabulary: 9,
            },
        }
    }

    fn profile() -> ExpertProfile {
        ExpertProfile::new(model(), [(0, 3), (1, 3)])
    }

    #[test]
    fn what_is_written_is_read() {
        let mut profile = profile();
        profile.layers[1].counts.of_mut(TokenKind::Image)[2] = 7;
        profile.layers[1].counts.of_mut(TokenKind::Generated)[2] = 1;
        let text = serde_json::to_vec(&profile).unwrap();
        let read = ExpertProfile::parse(&text).unwrap();
        assert_eq!(read, profile);
        assert_eq!(read.layers[1].totals(), [0, 0, 8]);
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let text = serde_json::to_string(&profile()).unwrap();
        let refused = |text: &str| ExpertProfile::parse(text.as_bytes()).unwrap_err();
        expect!["it is not JSON: EOF while parsing a value at line 1 column 0"]
            .assert_eq(&refused(""));
        expect!["its schema is none, not `sail.experts/1`"].assert_eq(&refused("[]"));
        expect!["its schema is `sail.experts/2`, not `sail.experts/1`"]
            .assert_eq(&refused(&text.replace("experts/1", "experts/2")));
        expect!["layer 0 has 2 counts for 3 experts"]
            .assert_eq(&refused(&text.replacen("[0,0,0]", "[0,0]", 1)));
        expect![
            "of this: unknown field `layer`, expected one of `schema`, `model`, `tokens`, `layers`"
        ]
        .assert_eq(&refused(&text.replace("\"layers\":[", "\"layer\":[")));
    }
}
