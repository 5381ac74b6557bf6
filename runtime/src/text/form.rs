//! The texts around a conversation, cut once into control tokens and plain text.

use sail_ir::artifact::PromptSpec;
use tokenizers::Tokenizer;

use super::TextError;

/// Stands for the picture in [`PromptSpec::image_line`].
const IMAGE_SLOT: &str = "{image}";

/// A [`PromptSpec`] with its control tokens looked up.
pub(super) struct Form {
    pub system: String,
    pub system_start: Vec<Part>,
    pub user_start: Vec<Part>,
    pub assistant_start: Vec<Part>,
    pub turn_end: Vec<Part>,
    pub thinking: String,
    /// What stands before and after a picture of its own line.
    pub image_line: [String; 2],
    pub image_start: u32,
    pub image_context: u32,
    pub image_end: u32,
}

/// A piece of a form.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Control(u32),
    Text(String),
}

impl Form {
    /// Refuses a form whose turns do not begin with a special token, image tokens that are none,
    /// and an image line without a place for the picture.
    pub fn new(spec: &PromptSpec, tokenizer: &Tokenizer) -> Result<Self, TextError> {
        let special = Special::of(tokenizer);
        let turn = |text: &str| {
            let parts = special.cut(text);
            match parts.first() {
                Some(Part::Control(_)) => Ok(parts),
                _ => Err(TextError::NoControlToken { text: text.to_owned() }),
            }
        };
        let token = |text: &str| match special.cut(text)[..] {
            [Part::Control(id)] => Ok(id),
            _ => Err(TextError::NoControlToken { text: text.to_owned() }),
        };
        let (before, after) = spec
            .image_line
            .split_once(IMAGE_SLOT)
            .ok_or_else(|| TextError::NoImageSlot { text: spec.image_line.clone() })?;
        Ok(Self {
            system: spec.system.clone(),
            system_start: turn(&spec.system_start)?,
            user_start: turn(&spec.user_start)?,
            assistant_start: turn(&spec.assistant_start)?,
            turn_end: turn(&spec.turn_end)?,
            thinking: spec.thinking.clone(),
            image_line: [before.to_owned(), after.to_owned()],
            image_start: token(&spec.image_start)?,
            image_context: token(&spec.image_context)?,
            image_end: token(&spec.image_end)?,
        })
    }
}

/// The special tokens of a tokenizer, longest first.
struct Special(Vec<(String, u32)>);

impl Special {
    fn of(tokenizer: &Tokenizer) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let mut tokens: Vec<_> = added
            .into_iter()
            .filter(|(_, token)| token.special && !token.content.is_empty())
            .map(|(id, token)| (token.content, id))
            .collect();
        tokens.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        Self(tokens)
    }

    fn cut(&self, mut rest: &str) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut text = String::new();
        while let Some(next) = rest.chars().next() {
            let found = self.0.iter().find(|(token, _)| rest.starts_with(token.as_str()));
            if let Some((token, id)) = found {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Control(*id));
                rest = &rest[token.len()..];
            } else {
                text.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        parts
    }
}
