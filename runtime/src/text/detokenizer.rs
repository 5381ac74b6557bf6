//! Text as it is generated: whole characters only, nothing that may belong to a stop string.

use std::sync::Arc;

use super::vocabulary::Vocabulary;
use super::{Text, TextError};

/// When an answer ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stop {
    /// Any of these tokens ends it (`eos_token_id`).
    pub ids: Vec<u32>,
    /// Any of these ends it, wherever the tokens' borders are, and is not part of it.
    pub strings: Vec<String>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By this token.
    Token(u32),
    /// By the stop string of this number.
    String(usize),
}

/// What one token added to the answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// May be empty, and may hold characters of earlier tokens.
    pub text: &'a str,
    pub end: Option<End>,
}

/// Turns the tokens of one answer into text, one at a time.
///
/// All fragments joined, with [`Detokenizer::finish`], are [`Text::decode`] of the ids up to the
/// stop. Nothing is trimmed; the reference strips white space around a whole answer.
pub struct Detokenizer {
    vocabulary: Arc<Vocabulary>,
    stop: Stop,
    /// Start of a character whose other bytes are still to come; at most three.
    pending: Vec<u8>,
    /// Characters given out by the last call (`..given`) and those held back (`given..`).
    text: String,
    given: usize,
    end: Option<End>,
}

impl Detokenizer {
    /// Refuses an empty stop string.
    pub fn new(text: &Text, stop: Stop) -> Result<Self, TextError> {
        if stop.strings.iter().any(String::is_empty) {
            return Err(TextError::EmptyStop);
        }
        Ok(Self {
            vocabulary: Arc::clone(&text.vocabulary),
            stop,
            pending: Vec::with_capacity(256),
            text: String::with_capacity(1024),
            given: 0,
            end: None,
        })
    }

    /// Take the next token. After the end nothing is added any more.
    pub fn push(&mut self, id: u32) -> Fragment<'_> {
        self.forget_given();
        if self.end.is_none() && self.stop.ids.contains(&id) {
            self.end_with(End::Token(id));
        } else if self.end.is_none() {
            self.pending.extend_from_slice(self.vocabulary.visible(id));
            self.take_characters();
            self.look_for_stop();
        }
        Fragment { text: &self.text[..self.given], end: self.end }
    }

    /// Give out what is held back, because no token follows.
    ///
    /// Bytes of an unfinished character become one `U+FFFD`.
    pub fn finish(&mut self) -> &str {
        self.forget_given();
        if self.end.is_none() {
            self.flush();
        }
        &self.text[..self.given]
    }

    fn forget_given(&mut self) {
        self.text.drain(..self.given);
        self.given = 0;
    }

    fn end_with(&mut self, end: End) {
        self.end = Some(end);
        self.flush();
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            self.pending.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        self.given = self.text.len();
    }

    /// Move whole characters from `pending` to `text`.
    fn take_characters(&mut self) {
        loop {
            let (valid, wrong) = match std::str::from_utf8(&self.pending) {
                Ok(text) => (text.len(), Some(0)),
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            let text = std::str::from_utf8(&self.pending[..valid]);
            self.text.push_str(text.expect("broken invariant `detokenizer.valid`"));
            self.pending.drain(..valid + wrong.unwrap_or(0));
            match wrong {
                Some(0) | None => return,
                Some(_) => self.text.push(char::REPLACEMENT_CHARACTER),
            }
        }
    }

    /// End at the stop string that is complete first; else hold back what may become one.
    ///
    /// Which one is complete first (of several, the longest) does not depend on how the text
    /// came in pieces.
    fn look_for_stop(&mut self) {
        let found = self.stop.strings.iter().enumerate().filter_map(|(index, string)| {
            let start = self.text.find(string)?;
            Some((start + string.len(), start, index))
        });
        if let Some((_, start, index)) = found.min() {
            self.text.truncate(start);
            self.given = start;
            self.pending.clear();
            self.end = Some(End::String(index));
            return;
        }
        let held = self.stop.strings.iter().map(|string| overlap(&self.text, string)).max();
        self.given = self.text.len() - held.unwrap_or(0);
    }
}

/// Bytes of the longest end of `text` that `string` begins with, less than all of `string`.
fn overlap(text: &str, string: &str) -> usize {
    let starts = string.char_indices().map(|(index, _)| index).rev();
    starts.into_iter().find(|&length| text.ends_with(&string[..length])).unwrap_or(0)
}
