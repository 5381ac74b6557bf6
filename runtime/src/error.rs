//! Everything that can go wrong between a file and an answer.

use std::fmt;

use sail_ir::Help;
use sail_ir::artifact::{ArtifactError, Incompatible};

use crate::cache::Full;
use crate::device::DeviceError;
use crate::image::ImageError;
use crate::sample::SampleError;
use crate::text::TextError;

/// Wraps the errors of the parts and says which file or picture they are about.
#[derive(Debug)]
pub enum RunError {
    /// The artifact in this file cannot be read.
    Artifact { file: String, error: ArtifactError },
    /// The artifact in this file is for other machines.
    Incompatible { file: String, error: Incompatible },
    /// The artifact lacks a function or a size that the request needs.
    Unfit { file: String, what: String, hint: Option<String> },
    /// The device cannot be had, or was interrupted.
    Device(DeviceError),
    /// The device does not take the code of this file.
    Code { file: String, error: DeviceError },
    /// More positions than there are.
    Context(ContextError),
    /// This picture cannot be used.
    Picture { name: String, error: ImageError },
    /// The text cannot become a prompt.
    Text(TextError),
    /// No token can be chosen.
    Sample(SampleError),
    /// All conversations that were made room for are going on.
    Busy,
    /// Other conversations hold the pages that this one needs.
    Full(Full),
    /// A prompt of ids has none.
    NoIds,
    /// The model has no such token.
    UnknownId { id: u32, vocabulary: u64 },
    /// A prompt of ids and its pictures do not belong together.
    Places { found: u32, expected: u32 },
    /// Values from the inside are there for one first question only.
    Taps,
}

/// A conversation that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextError {
    /// Positions the conversation has taken so far.
    pub used: u32,
    /// Image tiles of the new question, and the positions they take.
    pub tiles: u32,
    pub image_positions: u32,
    /// Positions of everything else in the new question.
    pub text_positions: u32,
    /// Positions of the session, and the most it could have had.
    pub context: u32,
    pub max_context: u32,
}

impl ContextError {
    /// Positions that are asked for.
    #[must_use]
    pub fn needed(&self) -> u64 {
        u64::from(self.used) + u64::from(self.image_positions) + u64::from(self.text_positions)
    }
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { used, tiles, image_positions, text_positions, context, .. } = self;
        write!(
            f,
            "the prompt needs {} positions, there are {}\n  because ",
            grouped(self.needed()),
            grouped(u64::from(*context)),
        )?;
        if *used > 0 {
            write!(f, "the conversation has taken {}, ", grouped(u64::from(*used)))?;
        }
        if *tiles > 0 {
            let name = if *tiles == 1 { "image tile takes" } else { "image tiles take" };
            write!(f, "{tiles} {name} {} and ", grouped(u64::from(*image_positions)))?;
        }
        write!(f, "the text takes {}", grouped(u64::from(*text_positions)))
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Artifact { file, error: error @ ArtifactError::Io { .. } } => {
                debug_assert!(!file.is_empty());
                error.fmt(f)
            }
            Self::Artifact { file, error } => f.write_str(&located(error, file)),
            Self::Incompatible { file, error } => f.write_str(&located(error, file)),
            Self::Unfit { file, what, .. } => f.write_str(&located(what, file)),
            Self::Device(error) => error.fmt(f),
            Self::Code { file, error } => f.write_str(&located(error, file)),
            Self::Context(error) => error.fmt(f),
            Self::Picture { name, error } => f.write_str(&located(error, name)),
            Self::Text(error) => error.fmt(f),
            Self::Sample(error) => error.fmt(f),
            Self::Busy => write!(f, "no conversation can begin\n  because all slots are taken"),
            Self::Full(Full { needed, free }) => write!(
                f,
                "the conversation cannot go on\n  because it needs {needed} pages of the cache and {free} are free"
            ),
            Self::NoIds => write!(f, "the prompt has no token ids"),
            Self::UnknownId { id, vocabulary } => write!(
                f,
                "token {id} is not known\n  because the model has {vocabulary} tokens, counted from 0"
            ),
            Self::Places { found, expected } => write!(
                f,
                "the prompt has {found} places for pictures, the pictures take {expected}"
            ),
            Self::Taps => write!(
                f,
                "values from the inside are not to be had here\n  because the program was opened without taps, or the conversation has begun"
            ),
        }
    }
}

impl std::error::Error for RunError {}

impl Help for RunError {
    fn code(&self) -> &'static str {
        match self {
            Self::Artifact { error, .. } => error.code(),
            Self::Incompatible { error, .. } => error.code(),
            Self::Unfit { .. } => "SC0411",
            Self::Device(error) | Self::Code { error, .. } => error.code(),
            Self::Context(_) => "SC0531",
            Self::Picture { error, .. } => error.code(),
            Self::Text(error) => error.code(),
            Self::Sample(error) => error.code(),
            Self::Busy | Self::Full(_) => "SC0532",
            Self::NoIds | Self::UnknownId { .. } => "SC0533",
            Self::Places { .. } => "SC0534",
            Self::Taps => "SC0535",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Artifact { error, .. } => error.hint(),
            Self::Incompatible { error, .. } => error.hint(),
            Self::Unfit { hint, .. } => hint.clone(),
            Self::Device(error) | Self::Code { error, .. } => error.hint(),
            Self::Context(error) => Some(context_hint(error)),
            Self::Picture { error, .. } => error.hint(),
            Self::Text(error) => error.hint(),
            Self::Sample(error) => error.hint(),
            Self::Busy | Self::Full(_) => Some("end another conversation first".to_owned()),
            Self::NoIds | Self::UnknownId { .. } | Self::Taps => None,
            Self::Places { .. } => Some(
                "a picture's places are the ids of `<IMG_CONTEXT>`, one for each of its features"
                    .to_owned(),
            ),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Artifact { error, .. } => error.exit_code(),
            Self::Incompatible { error, .. } => error.exit_code(),
            Self::Unfit { .. } => 4,
            Self::Device(error) | Self::Code { error, .. } => error.exit_code(),
            Self::Context(_) => 3,
            Self::Picture { error, .. } => error.exit_code(),
            Self::Text(error) => error.exit_code(),
            Self::Sample(error) => error.exit_code(),
            Self::Busy | Self::Full(_) => 7,
            Self::NoIds | Self::UnknownId { .. } | Self::Places { .. } => 3,
            Self::Taps => 2,
        }
    }
}

impl RunError {
    /// `error`, and the artifact `file` where it is about its code.
    pub(crate) fn of_device(error: DeviceError, file: &str) -> Self {
        match error {
            DeviceError::Cuda(ref cuda) if cuda.is_about_code() => {
                Self::Code { file: file.to_owned(), error }
            }
            error => Self::Device(error),
        }
    }
}

impl From<DeviceError> for RunError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

fn context_hint(error: &ContextError) -> String {
    let ContextError { max_context, context, .. } = error;
    if error.needed() < u64::from(*max_context) && max_context > context {
        // Room for an answer as well.
        let enough = (error.needed() + 512).next_multiple_of(1024).min(u64::from(*max_context));
        return format!("`--context {enough}` makes room; this artifact can have {max_context}");
    }
    "ask in fewer words, with fewer or smaller pictures, or in a new conversation".to_owned()
}

/// `text` with `in PLACE` as its second line.
fn located(text: &impl fmt::Display, place: &str) -> String {
    let text = text.to_string();
    match text.split_once('\n') {
        Some((first, rest)) => format!("{first}\n  in `{place}`\n{rest}"),
        None => format!("{text}\n  in `{place}`"),
    }
}

/// Thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use sail_ir::help::report;

    use super::*;

    #[test]
    fn a_context_that_is_too_short_is_counted_out() {
        let mut error = ContextError {
            used: 0,
            tiles: 11,
            image_positions: 2816,
            text_positions: 6400,
            context: 8192,
            max_context: 40960,
        };
        expect![[r#"
            error[SC0531]: the prompt needs 9,216 positions, there are 8,192
              because 11 image tiles take 2,816 and the text takes 6,400

            hint: `--context 10240` makes room; this artifact can have 40960"#]]
        .assert_eq(&report(&RunError::Context(error.clone())));
        error.max_context = 8192;
        error.used = 100;
        expect![[r#"
            error[SC0531]: the prompt needs 9,316 positions, there are 8,192
              because the conversation has taken 100, 11 image tiles take 2,816 and the text takes 6,400

            hint: ask in fewer words, with fewer or smaller pictures, or in a new conversation"#]].assert_eq(&report(&RunError::Context(error)));
    }

    #[test]
    fn a_damaged_artifact_is_named() {
        let error = ArtifactError::Damaged { part: "manifest".to_owned() };
        let error = RunError::Artifact { file: "cat.sail".to_owned(), error };
        expect![[r#"
            error[SC0406]: the artifact is damaged in its manifest
              in `cat.sail`
              because the bytes are not those that were written

            hint: copy the file again from where it came, or compile again"#]]
        .assert_eq(&report(&error));
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
