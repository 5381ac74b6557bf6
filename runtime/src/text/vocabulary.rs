//! The bytes that each token stands for, and which tokens are not for people's eyes.

use tokenizers::Tokenizer;

use super::TextError;
use super::file::{Learned, MAX_ID};

/// Shown although they are added tokens: they fence off the model's reasoning.
const SHOWN: [&str; 2] = ["<think>", "</think>"];

/// One flat table: the bytes of all tokens, and where those of each id end.
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    kinds: Vec<Kind>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Not shown, and never made from a user's text.
    Special,
}

impl Vocabulary {
    /// Ids without a token (the head is wider than the vocabulary) stand for no bytes.
    ///
    /// Refuses ids beyond [`MAX_ID`].
    pub fn new(tokenizer: &Tokenizer, learned: &Learned) -> Result<Self, TextError> {
        let added = tokenizer.get_added_tokens_decoder();
        let last = added.keys().copied().max().unwrap_or(0);
        if last > MAX_ID {
            return Err(TextError::Tokenizer);
        }

        let mut tokens = learned.words();
        tokens.resize(tokens.len().max(last as usize + 1), "");
        let mut kinds = vec![Kind::Plain; tokens.len()];
        for (&id, token) in &added {
            tokens[id as usize] = &token.content;
            if token.special && !SHOWN.contains(&token.content.as_str()) {
                kinds[id as usize] = Kind::Special;
            }
        }

        let alphabet = Alphabet::new();
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(tokens.len()));
        for token in tokens {
            alphabet.append_bytes(token, &mut bytes);
            ends.push(u32::try_from(bytes.len()).map_err(|_| TextError::Tokenizer)?);
        }
        Ok(Self { bytes, ends, kinds })
    }

    /// Bytes of a token as a person sees it: none for special tokens and unknown ids.
    pub fn visible(&self, id: u32) -> &[u8] {
        let id = id as usize;
        match self.kinds.get(id) {
            Some(Kind::Plain) => {
                let start = if id == 0 { 0 } else { self.ends[id - 1] };
                &self.bytes[start as usize..self.ends[id] as usize]
            }
            _ => &[],
        }
    }

    /// Whether a user's text must never come out as this token.
    pub fn is_special(&self, id: u32) -> bool {
        self.kinds.get(id as usize) == Some(&Kind::Special)
    }
}

/// Byte-level BPE writes each byte as one printable character: those of Latin-1 that print stand
/// for themselves, the other 68 for `U+0100` and up, in order. Source: GPT-2.
struct Alphabet {
    /// For characters below `U+0144`.
    bytes: [Option<u8>; 0x144],
}

impl Alphabet {
    fn new() -> Self {
        let mut bytes = [None; 0x144];
        let mut next = 0x100;
        for byte in 0..=255u8 {
            if matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
                bytes[usize::from(byte)] = Some(byte);
            } else {
                bytes[next] = Some(byte);
                next += 1;
            }
        }
        Self { bytes }
    }

    /// A token with any other character (an added one can have it) stands for itself.
    fn append_bytes(&self, token: &str, out: &mut Vec<u8>) {
        let start = out.len();
        for character in token.chars() {
            match self.bytes.get(character as usize).copied().flatten() {
                Some(byte) => out.push(byte),
                None => {
                    out.truncate(start);
                    out.extend_from_slice(token.as_bytes());
                    return;
                }
            }
        }
    }
}
