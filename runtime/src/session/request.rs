//! What can be asked, and what comes back.

use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::Program;
use crate::image::Rgb;
use crate::sample::Sampling;

/// Nobody sets it.
static NEVER: AtomicBool = AtomicBool::new(false);

/// A question and how to answer it.
#[derive(Clone)]
pub struct Request<'a> {
    pub input: Input<'a>,
    pub pictures: &'a [Picture<'a>],
    /// Most cells of a picture's grid; the artifact's number when `None`.
    pub max_tiles: Option<u32>,
    /// Ask the model to think first.
    pub think: bool,
    pub sampling: Sampling,
    /// Longest answer.
    pub max_tokens: u32,
    /// Tokens that end the answer.
    pub eos: &'a [u32],
    /// Texts that end the answer and are not part of it.
    pub stop: &'a [String],
    /// Set it from anywhere to have the answer given up.
    pub interrupt: &'a AtomicBool,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A question; the texts of the conversation's form are put around it.
    Text(&'a str),
    /// Token ids as they are, with one place for each row of image features.
    Ids(&'a [u32]),
}

/// A picture and what to call it in messages.
#[derive(Clone, Copy)]
pub struct Picture<'a> {
    pub name: &'a str,
    pub content: Content<'a>,
}

/// A picture's bytes.
#[derive(Clone, Copy)]
pub enum Content<'a> {
    /// A JPEG, PNG or WebP file.
    Encoded(&'a [u8]),
    Pixels(&'a Rgb),
}

impl<'a> Picture<'a> {
    #[must_use]
    pub fn encoded(name: &'a str, bytes: &'a [u8]) -> Self {
        Self { name, content: Content::Encoded(bytes) }
    }

    #[must_use]
    pub fn pixels(name: &'a str, pixels: &'a Rgb) -> Self {
        Self { name, content: Content::Pixels(pixels) }
    }
}

impl<'a> Request<'a> {
    /// `text`, answered as the artifact's own defaults say.
    #[must_use]
    pub fn new(program: &'a Program, text: &'a str) -> Self {
        let manifest = program.manifest();
        Self {
            input: Input::Text(text),
            pictures: &[],
            max_tiles: None,
            think: false,
            sampling: manifest.generation.into(),
            max_tokens: manifest.generation.max_tokens,
            eos: &manifest.tokens.eos,
            stop: &[],
            interrupt: &NEVER,
        }
    }

    #[must_use]
    pub fn with_pictures(mut self, pictures: &'a [Picture<'a>]) -> Self {
        self.pictures = pictures;
        self
    }
}

/// What happens on the way to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// Image tiles seen, of how many.
    Vision { done: u32, total: u32 },
    /// Tokens of the prompt read, of how many.
    Prefill { done: u32, total: u32 },
    /// More of the answer.
    Text(&'a str),
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Whole characters, without the text that ended it.
    pub text: String,
    /// Ids that were read for it.
    pub prompt: Vec<u32>,
    /// Ids that were chosen, the last of them included.
    pub ids: Vec<u32>,
    pub end: End,
    pub timings: Timings,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The model said so, with this token.
    Token(u32),
    /// The stop string of this number came.
    Stop(usize),
    /// As many tokens as were allowed.
    Length,
    /// No positions are left.
    Context,
}

impl End {
    /// One word for machines.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Token(_) => "end",
            Self::Stop(_) => "stop",
            Self::Length => "length",
            Self::Context => "context",
        }
    }
}

/// Where the time went, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Timings {
    pub tiles: u32,
    pub prompt_tokens: usize,
    pub generated: usize,
    /// Decoding and cutting pictures, encoding text.
    pub prepare: f64,
    pub vision: f64,
    pub prefill: f64,
    /// From the first token to the last.
    pub decode: f64,
    /// From the question to the first token.
    pub first_token: f64,
}

impl Timings {
    /// Tokens a second after the first.
    #[must_use]
    pub fn decode_rate(&self) -> f64 {
        if self.decode > 0.0 { (self.generated as f64 - 1.0).max(0.0) / self.decode } else { 0.0 }
    }

    /// Tokens of the prompt a second.
    #[must_use]
    pub fn prefill_rate(&self) -> f64 {
        if self.prefill > 0.0 { self.prompt_tokens as f64 / self.prefill } else { 0.0 }
    }
}
