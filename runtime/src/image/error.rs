//! Why a picture cannot be used, in words its owner can act on.

use std::fmt;

use sail_ir::Help;

use super::decode::{MAX_PIXELS, MAX_SIDE};

/// Every variant is about the picture, except [`ImageError::Tiling`], which is about the artifact.
/// The caller knows the file's name and adds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageError {
    /// No bytes at all.
    Empty,
    /// Neither JPEG nor PNG nor WebP; the format's name when it has one we recognise.
    Format { name: Option<&'static str> },
    /// Several frames: which one is meant?
    Animated { format: &'static str },
    /// The header announces no pixels, or more than are accepted.
    Size { width: u32, height: u32 },
    /// The file is not what its header promises.
    Damaged { format: &'static str },
    /// The file ends before the picture does.
    Truncated { format: &'static str },
    /// A variety of the format that is not read (a bit depth, a colour space, a coding).
    Variety { format: &'static str },
    /// The artifact's numbers about pictures contradict each other.
    Tiling { what: String },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the picture is empty\n  because the file has 0 bytes"),
            Self::Format { name: Some(name) } => {
                write!(f, "pictures in the format {name} are not read")
            }
            Self::Format { name: None } => write!(
                f,
                "this is not a picture\n  because its first bytes are not those of a picture format"
            ),
            Self::Animated { format } => write!(f, "an animated {format} is not read"),
            Self::Size { width, height } if *width == 0 || *height == 0 => {
                write!(f, "the picture has no pixels\n  because its size is {width} by {height}")
            }
            Self::Size { width, height } => write!(
                f,
                "a picture of {} by {} pixels is too large\n  \
                 because at most {} pixels on a side and {} in all are read",
                grouped((*width).into()),
                grouped((*height).into()),
                grouped(MAX_SIDE.into()),
                grouped(MAX_PIXELS)
            ),
            Self::Damaged { format } => {
                write!(
                    f,
                    "the picture is damaged\n  because its {format} data contradict themselves"
                )
            }
            Self::Truncated { format } => {
                write!(f, "the picture is cut short\n  because its {format} data end too early")
            }
            Self::Variety { format } => {
                write!(f, "this variety of {format} is not read")
            }
            Self::Tiling { what } => {
                write!(f, "the artifact's image tiles make no sense\n  because of {what}")
            }
        }
    }
}

impl std::error::Error for ImageError {}

impl Help for ImageError {
    fn code(&self) -> &'static str {
        match self {
            Self::Empty => "SC0501",
            Self::Format { .. } => "SC0502",
            Self::Animated { .. } => "SC0503",
            Self::Size { .. } => "SC0504",
            Self::Damaged { .. } => "SC0505",
            Self::Truncated { .. } => "SC0506",
            Self::Variety { .. } => "SC0507",
            Self::Tiling { .. } => "SC0508",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Format { .. } => "give a JPEG, PNG or WebP file",
            Self::Animated { .. } => "save the frame you mean as a PNG",
            Self::Size { width: 0, .. } | Self::Size { height: 0, .. } => {
                "save the picture again in the program that made it"
            }
            Self::Size { .. } => "scale the picture down or cut out the part you mean",
            Self::Empty | Self::Damaged { .. } | Self::Truncated { .. } => {
                "fetch or copy the file again; does another program open it?"
            }
            Self::Variety { .. } => "save the picture as a PNG with 8 bits a channel",
            Self::Tiling { .. } => "compile the checkpoint again",
        };
        Some(hint.to_owned())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Tiling { .. } => 4,
            _ => 3,
        }
    }
}

/// `30000` as `30,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
