//! Why a device cannot be had, or stopped.

use std::fmt;

use sail_ir::Help;

use super::cuda::CudaError;

/// What the weights are called where memory for them is refused.
pub(super) const WEIGHTS: &str = "the weights";

/// The caller knows which artifact it was about and adds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceError {
    /// The system gives no more memory.
    Memory { what: &'static str, bytes: u64, because: String },
    /// The system does not let us make code executable.
    Executable { because: String },
    /// The system starts no more threads.
    Threads { wanted: usize, because: String },
    /// The weights cannot be mapped.
    Map { because: String },
    /// The null device found a call that a real one could not carry out.
    Unsound { what: String },
    /// A GPU cannot be had, or stopped.
    Cuda(CudaError),
    /// Told to stop.
    Interrupted,
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { what, bytes, because } => {
                let megabytes = bytes.div_ceil(1_000_000);
                write!(
                    f,
                    "there is no memory for {what} of {megabytes} MB\n  because of: {because}"
                )
            }
            Self::Executable { because } => {
                write!(
                    f,
                    "the system does not let code of an artifact run\n  because of: {because}"
                )
            }
            Self::Threads { wanted, because } => {
                write!(f, "the system does not start {wanted} threads\n  because of: {because}")
            }
            Self::Map { because } => {
                write!(f, "the weights cannot be mapped\n  because of: {because}")
            }
            Self::Unsound { what } => write!(f, "the call is unsound\n  because {what}"),
            Self::Cuda(error) => error.fmt(f),
            Self::Interrupted => write!(f, "interrupted"),
        }
    }
}

impl std::error::Error for DeviceError {}

impl From<CudaError> for DeviceError {
    fn from(error: CudaError) -> Self {
        Self::Cuda(error)
    }
}

impl Help for DeviceError {
    fn code(&self) -> &'static str {
        match self {
            Self::Memory { .. } => "SC0601",
            Self::Executable { .. } => "SC0602",
            Self::Threads { .. } => "SC0603",
            Self::Map { .. } => "SC0604",
            Self::Unsound { .. } => "SC0605",
            Self::Interrupted => "SC0606",
            Self::Cuda(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Memory { what: WEIGHTS, .. } => {
                "weights of fewer bits need less: `sailc compile --quant int8` or `int4`"
            }
            Self::Memory { .. } => "a smaller `--context` needs less",
            Self::Threads { .. } => "ask for fewer with `--threads`",
            Self::Executable { .. } => {
                "a security policy may forbid memory that was written to become executable"
            }
            Self::Cuda(error) => return error.hint(),
            Self::Map { .. } | Self::Unsound { .. } | Self::Interrupted => return None,
        };
        Some(hint.to_owned())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Memory { .. } => 7,
            Self::Executable { .. } | Self::Threads { .. } | Self::Map { .. } => 8,
            Self::Unsound { .. } => 101,
            Self::Cuda(error) => error.exit_code(),
            Self::Interrupted => 130,
        }
    }
}
