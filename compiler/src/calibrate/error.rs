//! Why there is no calibration, or none that can be used.

use std::fmt;

use sail_ir::Help;

/// See the variants.
#[derive(Debug)]
pub enum CalibrationError {
    /// The file is not what it should be.
    File { path: String, because: String },
    /// The file is of other weights.
    OtherModel { path: String },
    /// A value in a file is infinite or no number.
    Infinite { input: String, place: String },
    /// A value that was to be summed is, or the sum of squares; `place` is a prompt or a set of them.
    Overflow { input: String, place: String },
}

impl fmt::Display for CalibrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, because } => {
                write!(f, "cannot use calibration `{path}`\n  because {because}")
            }
            Self::OtherModel { path } => write!(
                f,
                "this calibration is of another model\n  in `{path}`\n  because it was made with other weights than those of the checkpoint"
            ),
            Self::Infinite { input, place } | Self::Overflow { input, place } => write!(
                f,
                "calibration holds what is no number\n  in `{place}`, input `{input}`\n  because a value is infinite or not a number"
            ),
        }
    }
}

impl std::error::Error for CalibrationError {}

impl Help for CalibrationError {
    fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "SC0316",
            Self::OtherModel { .. } => "SC0317",
            Self::Infinite { .. } | Self::Overflow { .. } => "SC0318",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::File { .. } | Self::Infinite { .. } => "`sailc calibrate` writes such a file",
            Self::Overflow { .. } => {
                "this model's activations are beyond what can be summed; compile it without `--calibration`"
            }
            Self::OtherModel { .. } => "run `sailc calibrate` on this checkpoint",
        };
        Some(hint.to_owned())
    }

    fn exit_code(&self) -> u8 {
        3
    }
}
