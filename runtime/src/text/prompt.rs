//! A conversation as token ids, in the form the artifact carries (`univl-chat`).
//!
//! ```text
//! <|im_start|>system⏎{system}<|im_end|>
//! <|im_start|>user⏎{question}<|im_end|><|im_start|>assistant⏎{answer}<|im_end|>   (each past turn)
//! <|im_start|>user⏎{question}<|im_end|><|im_start|>assistant⏎
//! ```
//!
//! (Line breaks only at ⏎: none follows `<|im_end|>`.) A picture is `<img>`, its places, `</img>`.
//! Source: `conversation.py`; the checkpoint's `chat_template.jinja` gives the same for one turn
//! and is wrong for several (it writes `<|im_assistant|>`, which is no token).

use std::ops::Range;

use super::form::Part;
use super::{Text, TextError};

/// Stands for a picture in a question's text.
pub const IMAGE_MARK: &str = "<image>";

/// A conversation that waits for its next answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chat<'a> {
    /// What the model is told about itself; the artifact's own words when `None`.
    pub system: Option<&'a str>,
    /// Oldest first.
    pub past: &'a [Turn<'a>],
    pub question: Question<'a>,
}

/// A question that has been answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turn<'a> {
    pub question: Question<'a>,
    pub answer: &'a str,
}

/// What a user says in one turn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Question<'a> {
    /// Each [`IMAGE_MARK`] is replaced by a picture; without any, the pictures come first, one a
    /// line.
    pub text: &'a str,
    /// Places that each picture fills: [`tokens_for`](crate::image::tokens_for).
    pub pictures: &'a [u32],
    /// Append the words that make the thinking checkpoints think.
    pub think: bool,
}

/// Token ids, and which of them are places for pictures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    pub ids: Vec<u32>,
    /// Positions of each picture's places, in the order of the pictures over all turns.
    pub image_spans: Vec<Range<usize>>,
}

impl Text {
    /// The whole conversation, from an empty cache on.
    ///
    /// Refuses a question whose text has marks for pictures, but not one for each.
    pub fn prompt(&self, chat: &Chat) -> Result<Prompt, TextError> {
        let mut writer = Writer::new(self);
        writer.parts(&self.form.system_start)?;
        writer.text(chat.system.unwrap_or(&self.form.system));
        writer.parts(&self.form.turn_end)?;
        for turn in chat.past {
            writer.question(&turn.question)?;
            writer.text(turn.answer);
            writer.parts(&self.form.turn_end)?;
        }
        writer.question(&chat.question)?;
        writer.finish()
    }

    /// What follows an answer that is in the cache: its `<|im_end|>` and the next question.
    ///
    /// Joined to the first prompt and the generated ids it is [`Text::prompt`] of the whole
    /// conversation, unless the model wrote its answer in other tokens than the tokenizer would.
    pub fn follow_up(&self, question: &Question) -> Result<Prompt, TextError> {
        let mut writer = Writer::new(self);
        writer.parts(&self.form.turn_end)?;
        writer.question(question)?;
        writer.finish()
    }
}

/// Collects text until the next control token: both sides of a border between two texts may
/// share a token, so only whole runs are encoded.
struct Writer<'a> {
    text: &'a Text,
    run: String,
    prompt: Prompt,
}

impl<'a> Writer<'a> {
    fn new(text: &'a Text) -> Self {
        Self { text, run: String::new(), prompt: Prompt::default() }
    }

    fn text(&mut self, text: &str) {
        self.run.push_str(text);
    }

    fn token(&mut self, id: u32) -> Result<(), TextError> {
        self.flush()?;
        self.prompt.ids.push(id);
        Ok(())
    }

    fn parts(&mut self, parts: &[Part]) -> Result<(), TextError> {
        for part in parts {
            match part {
                Part::Control(id) => self.token(*id)?,
                Part::Text(text) => self.text(text),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TextError> {
        if !self.run.is_empty() {
            self.prompt.ids.extend(self.text.encode(&self.run)?);
            self.run.clear();
        }
        Ok(())
    }

    /// From `<|im_start|>user` up to where the answer begins.
    fn question(&mut self, question: &Question) -> Result<(), TextError> {
        let form = &self.text.form;
        self.parts(&form.user_start)?;
        self.content(question)?;
        if question.think {
            self.text(&form.thinking);
        }
        self.parts(&form.turn_end)?;
        self.parts(&form.assistant_start)
    }

    fn content(&mut self, question: &Question) -> Result<(), TextError> {
        let marks = question.text.matches(IMAGE_MARK).count();
        let pictures = question.pictures.len();
        if marks == 0 {
            let [before, after] = &self.text.form.image_line;
            for &places in question.pictures {
                self.text(before);
                self.picture(places)?;
                self.text(after);
            }
            self.text(question.text);
            return Ok(());
        }
        if marks != pictures {
            return Err(TextError::Marks { marks, pictures });
        }
        let mut places = question.pictures.iter();
        for (index, text) in question.text.split(IMAGE_MARK).enumerate() {
            if index > 0 {
                let &places = places.next().expect("broken invariant `prompt.marks`");
                self.picture(places)?;
            }
            self.text(text);
        }
        Ok(())
    }

    fn picture(&mut self, places: u32) -> Result<(), TextError> {
        let form = &self.text.form;
        self.token(form.image_start)?;
        let start = self.prompt.ids.len();
        let end = start + places as usize;
        self.prompt.ids.resize(end, form.image_context);
        self.prompt.image_spans.push(start..end);
        self.token(form.image_end)
    }

    fn finish(mut self) -> Result<Prompt, TextError> {
        self.flush()?;
        Ok(self.prompt)
    }
}
