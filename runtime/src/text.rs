//! Turns a conversation into token ids, and token ids back into text as they come.
//!
//! ```text
//! prompt         questions, answers, picture sizes → ids and where each picture's places are
//! Detokenizer    one id after the other → text that is whole characters, up to a stop
//! ```
//!
//! What a user writes cannot become a control token: text is encoded with special tokens switched
//! off, and the control tokens are put between the pieces by their ids, which are looked up by
//! their text. For text without control tokens this gives the ids of encoding the whole prompt at
//! once, because a tokenizer cuts at special tokens before it does anything else.

mod detokenizer;
mod error;
mod file;
mod form;
mod prompt;
mod vocabulary;

use std::sync::Arc;

use sail_ir::artifact::PromptSpec;
use tokenizers::Tokenizer;

pub use detokenizer::{Detokenizer, End, Fragment, Stop};
pub use error::TextError;
pub use prompt::{Chat, IMAGE_MARK, Prompt, Question, Turn};

use form::Form;
use vocabulary::Vocabulary;

/// The tokenizer of a checkpoint and the form of its conversations.
pub struct Text {
    tokenizer: Tokenizer,
    vocabulary: Arc<Vocabulary>,
    form: Form,
}

impl Text {
    /// Take the contents of a `tokenizer.json` and the texts around a conversation.
    ///
    /// Refuses what is no tokenizer, and a form whose control tokens it does not have.
    pub fn new(tokenizer_json: &[u8], spec: &PromptSpec) -> Result<Self, TextError> {
        let (mut tokenizer, learned) = file::read(tokenizer_json).ok_or(TextError::Tokenizer)?;
        tokenizer.with_truncation(None).map_err(|_| TextError::Tokenizer)?;
        tokenizer.with_padding(None);
        tokenizer.set_encode_special_tokens(true);
        let form = Form::new(spec, &tokenizer)?;
        let vocabulary = Arc::new(Vocabulary::new(&tokenizer, &learned)?);
        Ok(Self { tokenizer, vocabulary, form })
    }

    /// Ids of plain text; special tokens in it are letters like all others.
    ///
    /// Refuses text that this tokenizer cannot write without a special token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let encoding =
            self.tokenizer.encode_fast(text, false).map_err(|_| TextError::Unencodable)?;
        let ids = encoding.get_ids().to_vec();
        match ids.iter().find(|&&id| self.vocabulary.is_special(id)) {
            Some(&id) => Err(TextError::ControlToken { id }),
            None => Ok(ids),
        }
    }

    /// The text of `ids` without special tokens; bytes that are no UTF-8 become `U+FFFD`.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> =
            ids.iter().flat_map(|&id| self.vocabulary.visible(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests;
