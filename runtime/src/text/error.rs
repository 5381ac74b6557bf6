//! Why a conversation cannot become a prompt, in words its author can act on.

use std::fmt;

use sail_ir::Help;

/// The first three are the artifact's fault, the others the request's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextError {
    /// Not a `tokenizer.json`, or not one that can be used.
    Tokenizer,
    /// A text of the form should be, or begin with, a special token, but the tokenizer has none.
    NoControlToken { text: String },
    /// The line of a picture has no place for it.
    NoImageSlot { text: String },
    /// Plain text came out as a control token, which would let a user forge turns.
    ControlToken { id: u32 },
    /// The tokenizer has no ids for this text.
    Unencodable,
    /// The text has places for pictures, but not as many as there are pictures.
    Marks { marks: usize, pictures: usize },
    /// A stop string without characters would stop before the first one.
    EmptyStop,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokenizer => {
                write!(f, "the tokenizer cannot be read\n  in `tokenizer.json`")
            }
            Self::NoControlToken { text } => write!(
                f,
                "the tokenizer has no special token for `{}`, of which a prompt is built\n  \
                 in `tokenizer.json`",
                text.escape_debug()
            ),
            Self::NoImageSlot { text } => write!(
                f,
                "the prompt's line for a picture is `{}`, without `{{image}}`",
                text.escape_debug()
            ),
            Self::ControlToken { id } => write!(
                f,
                "the text cannot be written without control tokens\n  \
                 because the tokenizer makes token {id} of a part of it"
            ),
            Self::Unencodable => write!(f, "the tokenizer has no tokens for this text"),
            Self::Marks { marks, pictures } => write!(
                f,
                "the question has {marks} `<image>`, the request has {pictures} {}",
                if *pictures == 1 { "picture" } else { "pictures" }
            ),
            Self::EmptyStop => write!(f, "a stop string is empty"),
        }
    }
}

impl std::error::Error for TextError {}

impl Help for TextError {
    fn code(&self) -> &'static str {
        match self {
            Self::Tokenizer => "SC0521",
            Self::NoControlToken { .. } => "SC0522",
            Self::NoImageSlot { .. } => "SC0523",
            Self::ControlToken { .. } => "SC0524",
            Self::Unencodable => "SC0525",
            Self::Marks { .. } => "SC0526",
            Self::EmptyStop => "SC0527",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Tokenizer | Self::NoControlToken { .. } => {
                "`tokenizer.json` must be the one published with the checkpoint"
            }
            Self::NoImageSlot { .. } => "compile the checkpoint again",
            Self::ControlToken { .. } | Self::Unencodable => "leave the unusual characters out",
            Self::Marks { .. } => {
                "write `<image>` once for each picture, or not at all to have the pictures first"
            }
            Self::EmptyStop => "leave the empty stop string out",
        };
        Some(hint.to_owned())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Tokenizer | Self::NoControlToken { .. } | Self::NoImageSlot { .. } => 3,
            Self::ControlToken { .. } | Self::Unencodable => 3,
            Self::Marks { .. } | Self::EmptyStop => 2,
        }
    }
}
