//! Why a lock cannot be used.

use std::fmt;

use sail_ir::Help;

/// See the variants.
#[derive(Debug)]
pub enum LockError {
    /// The file cannot be read or written.
    File { path: String, because: String },
    /// A line is not understood.
    Line { path: String, line: usize, because: String },
    /// It was measured with another compiler's choices.
    Stale { path: String, found: String },
    /// A config does not fit its kernel.
    Config { path: String, line: usize, kernel: String, because: String },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, because } => {
                write!(f, "cannot use lock `{path}`\n  because {because}")
            }
            Self::Line { path, line, because } => {
                write!(f, "cannot use lock `{path}`\n  in line {line}\n  because {because}")
            }
            Self::Stale { path, found } => write!(
                f,
                "this lock is stale\n  in `{path}`\n  because it was measured among configs `{found}`, and this compiler has others"
            ),
            Self::Config { path, line, kernel, because } => write!(
                f,
                "cannot use lock `{path}`\n  in line {line}, kernel `{kernel}`\n  because {because}"
            ),
        }
    }
}

impl std::error::Error for LockError {}

impl Help for LockError {
    fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "SC0340",
            Self::Line { .. } => "SC0341",
            Self::Stale { .. } => "SC0342",
            Self::Config { .. } => "SC0343",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::File { .. } | Self::Line { .. } => "`sailc tune` writes such a file",
            Self::Stale { .. } | Self::Config { .. } => {
                "run `sailc tune` again, or compile without `--lock`: answers are the same"
            }
        };
        Some(hint.to_owned())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::File { .. } => 1,
            _ => 3,
        }
    }
}
