//! Why there is no quality sheet, or none that is good enough.

use std::fmt;

use sail_ir::Help;

/// See the variants.
#[derive(Debug)]
pub enum QualityError {
    /// The prompt set is not what it should be.
    Prompts { path: String, because: String },
    /// `--goal` is not understood.
    Goal { text: String, because: String, known: String },
    /// The artifact cannot be run on this machine.
    Elsewhere { target: String, missing: Vec<String> },
    /// Logits are no numbers.
    NotFinite { prompt: String, position: usize },
    /// A goal is missed.
    Missed { asked: String, missed: Vec<String>, worst: Vec<String>, set: String },
    /// `inspect --quality` of a folder.
    NoSheet { path: String },
}

impl fmt::Display for QualityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prompts { path, because } => {
                write!(f, "cannot use prompt set `{path}`\n  because {because}")
            }
            Self::Goal { text, because, .. } => {
                write!(f, "goal `{text}` is not understood\n  because {because}")
            }
            Self::Elsewhere { target, missing } => write!(
                f,
                "an artifact for `{target}` cannot be measured here\n  because it must be run for that, and this CPU lacks {}",
                missing.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            ),
            Self::NotFinite { prompt, position } => write!(
                f,
                "there is no distribution to compare\n  in prompt `{prompt}`, position {position}\n  because logits are infinite or not numbers"
            ),
            Self::Missed { asked, missed, worst, set } => {
                write!(
                    f,
                    "the artifact misses its goal: {asked}\n  on the prompt set `{set}`\n  because {}",
                    missed.join(", ")
                )?;
                match worst.is_empty() {
                    true => Ok(()),
                    false => write!(f, ", and most noise comes in at {}", worst.join(", ")),
                }
            }
            Self::NoSheet { path } => {
                write!(f, "a checkpoint has no quality sheet\n  in `{path}`")
            }
        }
    }
}

impl std::error::Error for QualityError {}

impl Help for QualityError {
    fn code(&self) -> &'static str {
        match self {
            Self::Prompts { .. } => "SC0703",
            Self::Goal { .. } => "SC0704",
            Self::Elsewhere { .. } => "SC0705",
            Self::Missed { .. } => "SC0706",
            Self::NotFinite { .. } => "SC0707",
            Self::NoSheet { .. } => "SC0708",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Prompts { .. } => {
                "a set is `{\"name\": …, \"prompts\": [{\"prompt\": …, \"images\": [FILE, …]}, …]}`, files relative to it"
            }
            Self::Goal { known, .. } => return Some(format!("known: {known}")),
            Self::Elsewhere { .. } => {
                "compile on a machine that runs the target, or leave `--quality` out"
            }
            Self::NotFinite { .. } => return None,
            Self::Missed { .. } => {
                "nothing was written; ask for a scheme of more bits, or for a goal that this one can meet"
            }
            Self::NoSheet { .. } => "`sailc compile` writes one into the `.sail` file",
        };
        Some(hint.to_owned())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Prompts { .. } => 3,
            Self::Goal { .. } | Self::NoSheet { .. } => 2,
            Self::Elsewhere { .. } => 4,
            Self::NotFinite { .. } | Self::Missed { .. } => 5,
        }
    }
}
