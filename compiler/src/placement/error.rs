//! Why a profile of experts cannot be used.

use std::fmt;

use sail_ir::Help;

/// See the variants.
#[derive(Debug)]
pub enum ProfileError {
    /// The file is not what it should be.
    File { path: String, because: String },
    /// It was counted with another model.
    OtherModel { path: String, because: String },
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, because } => {
                write!(f, "cannot use expert profile `{path}`\n  because {because}")
            }
            Self::OtherModel { path, because } => {
                write!(
                    f,
                    "this expert profile is of another model\n  in `{path}`\n  because {because}"
                )
            }
        }
    }
}

impl std::error::Error for ProfileError {}

impl Help for ProfileError {
    fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "SC0336",
            Self::OtherModel { .. } => "SC0337",
        }
    }

    fn hint(&self) -> Option<String> {
        Some("`sail run --profile-experts FILE` writes such a file".to_owned())
    }

    fn exit_code(&self) -> u8 {
        3
    }
}
