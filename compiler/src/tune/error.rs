//! Why kernels cannot be tuned.

use std::fmt;

use sail_ir::Help;

/// See the variants.
#[derive(Debug)]
pub enum TuneError {
    /// No kernel of the model is of this family.
    NoFamily { family: String, known: Vec<String> },
    /// The file of measurements cannot be written.
    Database { path: String, because: String },
}

impl fmt::Display for TuneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFamily { family, .. } => {
                write!(f, "no kernel of this model is of family `{family}`, or it has no configs")
            }
            Self::Database { path, because } => {
                write!(f, "cannot write measurements to `{path}`\n  because {because}")
            }
        }
    }
}

impl std::error::Error for TuneError {}

impl Help for TuneError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoFamily { .. } => "SC0344",
            Self::Database { .. } => "SC0345",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoFamily { known, .. } => {
                let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
                Some(format!("there are {}", known.join(", ")))
            }
            Self::Database { .. } => None,
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NoFamily { .. } => 2,
            Self::Database { .. } => 1,
        }
    }
}
