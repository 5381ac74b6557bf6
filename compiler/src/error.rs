//! Why a compile stops, in words the person who asked can act on.

use std::fmt;
use std::io;

use sail_ir::{Help, Scheme};
use sail_kernels::ptxas::{self, PtxasError};

use crate::lock::LockError;

/// Any error that has a code, a hint and an exit status.
pub type Failure = Box<dyn Help>;

/// For `map_err`.
pub fn boxed(error: impl Help + 'static) -> Failure {
    Box::new(error)
}

/// The system's words without their number.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Everything that can go wrong after the checkpoint was accepted.
#[derive(Debug)]
pub enum CompileError {
    /// An op has no kernel on the target; all such ops at once.
    NoTemplate { target: String, ops: Vec<String> },
    /// A size does not fit what the format can hold.
    TooLarge { what: String, size: u64 },
    /// `--target host` on a CPU that no target of ours fits.
    OldHost,
    /// `--quant` names no scheme.
    Scheme { because: String },
    /// A scheme that the recipe asks for is none of the target.
    MissingScheme { scheme: Scheme, target: String, because: &'static str },
    /// `--kv` names no scheme of the cache.
    Cache { because: String },
    /// `--explain` of a pass that records nothing.
    NoExplanation { pass: String },
    /// `--context` is zero or more than the model was made for.
    Context { asked: u32, most: u64 },
    /// `verify` found a stage or tokens too far from the reference.
    Beyond { case: String, stage: Option<String>, file: String },
    /// `verify --rows` is more than the artifact decodes in one call.
    Rows { asked: u32, most: u32 },
    /// Somebody asked for the compile to stop.
    Interrupted,
    /// `--emit ptx` for a target that has none.
    NoPtx { target: String },
    /// NVIDIA's assembler cannot be run or refuses our PTX.
    Ptxas { error: PtxasError },
    /// A plan of ours breaks its own rules.
    Plan { because: String },
    /// A tensor holds a value that is infinite or no number; `moved`: it was one before `--smooth`.
    NotFinite { path: String, place: Vec<u64>, value: f32, moved: bool },
    /// A config of the lock does not fit.
    Lock(LockError),
    /// A file the artifact carries cannot be read.
    Read { path: String, because: String },
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTemplate { target, ops } => write!(
                f,
                "no kernel on `{target}` for {}",
                ops.iter().map(|op| format!("`{op}`")).collect::<Vec<_>>().join(", ")
            ),
            Self::TooLarge { what, size } => {
                write!(f, "`{what}` is {size}, more than the file format can hold")
            }
            Self::OldHost => write!(
                f,
                "there is no target for this machine\n  because its CPU lacks features of `x86-64-v3`"
            ),
            Self::Scheme { because } => {
                write!(f, "`--quant` is not understood\n  because {because}")
            }
            Self::MissingScheme { scheme, target, because } => {
                write!(f, "`{target}` has no products of `{scheme}` weights\n  because {because}")
            }
            Self::Cache { because } => {
                write!(f, "`--kv` is not understood\n  because {because}")
            }
            Self::NoExplanation { pass } => {
                write!(f, "pass `{pass}` has nothing to explain")
            }
            Self::Context { asked, most } => write!(
                f,
                "a context of {asked} positions is not possible\n  because the model was made for 1 to {most}"
            ),
            Self::Beyond { case, stage, file } => {
                let what = stage.as_ref().map_or("its tokens or routes".to_owned(), |stage| {
                    format!("stage `{stage}` first")
                });
                write!(f, "case {case} lies beyond its bound: {what}\n  in `{file}`")
            }
            Self::Rows { asked, most } => write!(
                f,
                "{asked} rows cannot be decoded in one call\n  because the artifact has room for {most}"
            ),
            Self::Interrupted => {
                write!(f, "interrupted\n  because a signal came; no artifact was written")
            }
            Self::NoPtx { target } => {
                write!(f, "there is no PTX\n  because `{target}` is no CUDA target")
            }
            Self::Ptxas { error } => error.fmt(f),
            Self::Plan { because } => {
                write!(f, "the plan is not sound\n  because {because}")
            }
            Self::NotFinite { path, place, value, moved } => {
                let value = if value.is_nan() { "not a number (NaN)" } else { "infinite" };
                let because = match moved {
                    false => format!("that is {value}, and so would be what is computed with it"),
                    true => format!("that is {value} once outliers are moved into it"),
                };
                write!(
                    f,
                    "tensor `{path}` cannot be used\n  in its element {place:?}\n  because {because}"
                )
            }
            Self::Lock(error) => error.fmt(f),
            Self::Read { path, because } => {
                write!(f, "cannot read `{path}`\n  because {because}")
            }
        }
    }
}

impl std::error::Error for CompileError {}

impl Help for CompileError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoTemplate { .. } => "SC0310",
            Self::TooLarge { .. } => "SC0311",
            Self::OldHost => "SC0302",
            Self::Scheme { .. } | Self::Cache { .. } => "SC0303",
            Self::MissingScheme { .. } => "SC0307",
            Self::NoExplanation { .. } => "SC0304",
            Self::Context { .. } => "SC0305",
            Self::Lock(error) => error.code(),
            Self::Read { .. } => "SC0308",
            Self::Interrupted => "SC0309",
            Self::Plan { .. } => "SC0312",
            Self::NotFinite { .. } => "SC0315",
            Self::NoPtx { .. } => "SC0306",
            Self::Ptxas { .. } => "SC0322",
            Self::Beyond { .. } => "SC0702",
            Self::Rows { .. } => "SC0709",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Lock(error) => error.hint(),
            Self::OldHost => {
                Some("name a target with `--target`; `x86-64-v3` is the lowest".to_owned())
            }
            Self::MissingScheme { .. } => Some(
                "`int8` is as small and goes everywhere; `fp8` goes from `sm_90` on".to_owned(),
            ),
            Self::NoExplanation { .. } => {
                Some("`--explain fuse` says which rules fired, `--explain quantize` what each weight is stored as, `--explain smooth` which outliers are moved where, `--explain kernels` how each kernel is shaped".to_owned())
            }
            Self::NotFinite { moved: false, .. } => Some(
                "the checkpoint is damaged, and no scheme mends it: fetch it again, or save it again where it was trained".to_owned(),
            ),
            Self::NotFinite { moved: true, .. } => {
                Some("ask for a smaller share with `--smooth`, or leave it out".to_owned())
            }
            Self::Ptxas { .. } => Some(ptxas::HINT.to_owned()),
            Self::Plan { .. } => {
                Some("this is a defect of the compiler; please report it".to_owned())
            }
            _ => None,
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NoTemplate { .. }
            | Self::TooLarge { .. }
            | Self::NotFinite { .. }
            | Self::Ptxas { .. }
            | Self::Read { .. } => 3,
            Self::Lock(error) => error.exit_code(),
            Self::OldHost => 4,
            Self::Interrupted => 130,
            Self::Plan { .. } => 101,
            Self::Beyond { .. } => 5,
            _ => 2,
        }
    }
}
