//! Why a `.sail` file cannot be read or written.

use std::fmt;
use std::io;

use super::FORMAT;
use crate::help::Help;
use crate::plan::PlanError;

/// The caller knows the file's name and adds it.
#[derive(Debug)]
pub enum ArtifactError {
    /// The file system refuses.
    Io { doing: &'static str, path: String, error: io::Error },
    /// Something that is no file stands where one is to be written.
    NoFile { path: String },
    /// No bytes at all.
    Empty,
    /// Another kind of file.
    Foreign,
    /// Ours, of a format this program does not read.
    Format { found: u32 },
    /// Shorter than its header says; `None` when not even the header is whole.
    Truncated { found: u64, expected: Option<u64> },
    /// Longer than its header says.
    TooLong { found: u64, expected: u64 },
    /// Bytes are not those that were written.
    Damaged { part: String },
    /// The hashes hold but what they cover makes no sense: another program wrote it.
    Malformed { part: String, because: String },
    /// The plan breaks a rule that keeps memory safe.
    Plan(PlanError),
    /// The checking of the weights was given up.
    Cancelled,
}

impl ArtifactError {
    pub(super) fn malformed(part: &str, because: impl Into<String>) -> Self {
        Self::Malformed { part: part.to_owned(), because: because.into() }
    }
}

impl fmt::Display for ArtifactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, path, error } => {
                write!(f, "cannot {doing} `{path}`\n  because of: {}", plain(error))
            }
            Self::NoFile { path } => write!(
                f,
                "cannot write `{path}`\n  because a device, a pipe or a socket is there, which a file would replace"
            ),
            Self::Empty => write!(f, "the artifact is empty\n  because the file has 0 bytes"),
            Self::Foreign => {
                write!(f, "this is not an artifact\n  because its first bytes are not `SAILFILE`")
            }
            Self::Format { found } => {
                let age = if *found < FORMAT { "older" } else { "newer" };
                write!(
                    f,
                    "the artifact has the {age} format {found}\n  because this program reads format {FORMAT}"
                )
            }
            Self::Truncated { found, expected: Some(expected) } => write!(
                f,
                "the artifact is cut short\n  because the file has {found} bytes, its header says {expected} bytes"
            ),
            Self::Truncated { found, expected: None } => write!(
                f,
                "the artifact is cut short\n  because the file has {found} bytes, less than its header"
            ),
            Self::TooLong { found, expected } => write!(
                f,
                "the artifact has bytes after its end\n  because the file has {found} bytes, its header says {expected}"
            ),
            Self::Damaged { part } => write!(
                f,
                "the artifact is damaged in its {part}\n  because the bytes are not those that were written"
            ),
            Self::Malformed { part, because } => {
                write!(f, "the artifact's {part} makes no sense\n  because {because}")
            }
            Self::Plan(error) => {
                write!(f, "the artifact's plan makes no sense\n  because {error}")
            }
            Self::Cancelled => write!(f, "the weights were not checked to the end"),
        }
    }
}

/// The system's words without their number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

impl std::error::Error for ArtifactError {}

impl Help for ArtifactError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "SC0401",
            Self::Empty | Self::Truncated { .. } => "SC0402",
            Self::Foreign => "SC0403",
            Self::Format { .. } => "SC0404",
            Self::TooLong { .. } => "SC0405",
            Self::Damaged { .. } => "SC0406",
            Self::Malformed { .. } | Self::Plan(_) => "SC0407",
            Self::Cancelled => "SC0408",
            Self::NoFile { .. } => "SC0409",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { error, .. } if out_of_space(error) => {
                "free some space, or write to another disk with `-o`"
            }
            Self::Io { .. } | Self::Cancelled => return None,
            Self::NoFile { .. } => "name a file with `-o`",
            Self::Foreign => "an artifact is what `sailc compile` writes",
            Self::Format { found } if *found > FORMAT => "use a newer `sail`, or compile again",
            Self::Format { .. } => "compile the checkpoint again",
            Self::Malformed { .. } | Self::Plan(_) => {
                "compile the checkpoint again with the `sailc` of this version"
            }
            Self::Empty | Self::Truncated { .. } | Self::TooLong { .. } | Self::Damaged { .. } => {
                "copy the file again from where it came, or compile again"
            }
        };
        Some(hint.to_owned())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Io { error, .. } if out_of_space(error) => 7,
            Self::Io { .. } | Self::NoFile { .. } => 1,
            Self::Foreign | Self::Format { .. } | Self::Malformed { .. } | Self::Plan(_) => 4,
            Self::Empty | Self::Truncated { .. } | Self::TooLong { .. } | Self::Damaged { .. } => 6,
            Self::Cancelled => 130,
        }
    }
}

fn out_of_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
