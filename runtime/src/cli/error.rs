//! What can go wrong on the command line itself.

use std::fmt;
use std::io;
use std::path::Path;

use sail_ir::Help;

/// A file, a stream or an option that cannot be used.
#[derive(Debug)]
pub enum CommandError {
    /// The file system refuses.
    Io { doing: &'static str, path: String, because: String },
    /// The ids of a prompt are not there.
    Ids { path: String, because: String },
    /// No value has such a name.
    NoTap { pattern: String },
    /// Questions with known answers are not there.
    Scenes { path: String, because: String },
    /// The artifact has no such function or class.
    Unknown { what: String, known: String },
    /// Experts are to be counted of a model that has none.
    NoExperts { file: String },
}

impl CommandError {
    pub fn io(doing: &'static str, path: &Path, error: &io::Error) -> Self {
        let because = error.to_string();
        let because = because.split(" (os error").next().unwrap_or_default().to_lowercase();
        Self::Io { doing, path: path.display().to_string(), because }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, path, because } => {
                write!(f, "cannot {doing} `{path}`\n  because of: {because}")
            }
            Self::Ids { path, because } => {
                write!(f, "there are no token ids\n  in `{path}`\n  because {because}")
            }
            Self::NoTap { pattern } => {
                write!(
                    f,
                    "there is no value `{pattern}`\n  because none of this prompt has such a name"
                )
            }
            Self::Scenes { path, because } => {
                write!(f, "there are no questions\n  in `{path}`\n  because {because}")
            }
            Self::Unknown { what, .. } => f.write_str(what),
            Self::NoExperts { file } => write!(
                f,
                "there are no experts to count\n  in `{file}`\n  because the model is dense: all its weights meet every token"
            ),
        }
    }
}

impl std::error::Error for CommandError {}

impl Help for CommandError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "SC0111",
            Self::Ids { .. } => "SC0112",
            Self::Unknown { .. } => "SC0113",
            Self::NoTap { .. } => "SC0115",
            Self::Scenes { .. } => "SC0116",
            Self::NoExperts { .. } => "SC0117",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { .. } => None,
            Self::NoExperts { .. } => Some("leave `--profile-experts` out".to_owned()),
            Self::Ids { .. } => Some("write `[1, 2, 3]`, or `{\"prompt\": [1, 2, 3]}`".to_owned()),
            Self::NoTap { .. } => Some(
                "names are `layers.N`, `router.N`, `logits` and, with a picture, `pixels`, `vit.N`, `vision`, `image_features`; `*` stands for all".to_owned(),
            ),
            Self::Scenes { .. } => Some(
                "a line is `{\"picture\": FILE or null, \"kind\": …, \"question\": …, \"answer\": …}`"
                    .to_owned(),
            ),
            Self::Unknown { known, .. } => Some(format!("the artifact has {known}")),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Io { .. } => 1,
            Self::Ids { .. } | Self::Scenes { .. } => 3,
            Self::Unknown { .. } | Self::NoTap { .. } | Self::NoExperts { .. } => 2,
        }
    }
}
