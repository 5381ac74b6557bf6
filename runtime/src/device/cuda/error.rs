//! Why a GPU cannot be had, or stopped.

use std::fmt;

use sail_ir::Help;

/// Two numbers of a version or a compute capability: `12.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair(pub u32, pub u32);

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// What the driver says is kept in its own words: they are what can be searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CudaError {
    /// There is no driver's library on this machine.
    NoDriver,
    /// The driver does not start.
    Start { because: String },
    /// The driver knows less than the code needs; versions of CUDA.
    OldDriver { found: Pair, needed: String },
    /// The driver finds no GPU, or not as many.
    NoDevice { ordinal: u32, count: u32 },
    /// The GPU does not run code for the artifact's target.
    WrongGpu { gpu: String, target: String, found: Pair },
    /// A block of this kernel takes more shared memory than the GPU gives to one.
    Shared { entry: String, bytes: u32, because: String },
    /// The driver takes neither the machine code nor the text; `log` is what it says of the text.
    Refused { because: String, log: String },
    /// The GPU's memory is used up.
    Memory { doing: String, because: String },
    /// The driver refused something that is none of the above.
    Failed { doing: String, because: String },
    /// The same, and from here on it refuses everything.
    Lost { doing: String, because: String },
}

impl CudaError {
    /// Whether the GPU is of no more use to this process.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Whether this is about the artifact's code, so that its file should be named.
    #[must_use]
    pub fn is_about_code(&self) -> bool {
        matches!(self, Self::WrongGpu { .. } | Self::Shared { .. } | Self::Refused { .. })
    }
}

impl fmt::Display for CudaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => {
                write!(
                    f,
                    "no CUDA driver found\n  because `libcuda.so.1` is not on the library path"
                )
            }
            Self::Start { because } => {
                write!(f, "the CUDA driver does not start\n  because of: {because}")
            }
            Self::OldDriver { found, needed } => write!(
                f,
                "the CUDA driver is too old\n  because it is of CUDA {found}, the code needs {needed}"
            ),
            Self::NoDevice { count: 0, .. } => {
                write!(f, "there is no GPU\n  because the CUDA driver finds none")
            }
            Self::NoDevice { ordinal, count } => write!(
                f,
                "there is no GPU number {ordinal}\n  because the CUDA driver finds {count}, counted from 0"
            ),
            Self::WrongGpu { gpu, target, found } => write!(
                f,
                "this artifact is for `{target}`, which the GPU does not run\n  because `{gpu}` has compute capability {found}"
            ),
            Self::Shared { entry, bytes, because } => write!(
                f,
                "a kernel does not fit the GPU\n  because a block of `{entry}` takes {bytes} bytes of shared memory: {because}"
            ),
            Self::Refused { because, log } => {
                write!(
                    f,
                    "the CUDA driver does not take the artifact's code\n  because of: {because}"
                )?;
                log.lines().try_for_each(|line| write!(f, "\n    {line}"))
            }
            Self::Memory { doing, because } => {
                write!(f, "the GPU has no memory left to {doing}\n  because of: {because}")
            }
            Self::Failed { doing, because } => {
                write!(f, "the CUDA driver refuses to {doing}\n  because of: {because}")
            }
            Self::Lost { doing, because } => {
                write!(
                    f,
                    "the GPU failed and is lost to this run\n  in {doing}\n  because of: {because}"
                )
            }
        }
    }
}

impl std::error::Error for CudaError {}

impl Help for CudaError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoDriver => "SC0611",
            Self::Start { .. } => "SC0612",
            Self::OldDriver { .. } => "SC0613",
            Self::NoDevice { .. } => "SC0614",
            Self::WrongGpu { .. } => "SC0615",
            Self::Shared { .. } => "SC0616",
            Self::Refused { .. } => "SC0617",
            Self::Failed { .. } => "SC0618",
            Self::Lost { .. } => "SC0619",
            Self::Memory { .. } => "SC0620",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoDriver => {
                "install NVIDIA's driver, or compile the checkpoint for this machine with `--target host`"
            }
            Self::OldDriver { .. } => "install a newer driver; nothing else of CUDA is needed",
            Self::Start { .. } | Self::NoDevice { count: 0, .. } => {
                "`nvidia-smi` says what the driver sees; `CUDA_VISIBLE_DEVICES` may hide GPUs"
            }
            Self::NoDevice { .. } => "the first one is `--device cuda:0`",
            Self::WrongGpu { .. } => {
                "choose another GPU with `--device cuda:N`, or compile again with another `--target`"
            }
            Self::Shared { .. } => {
                "kernels are shaped for A100, H100 and H200; `--device cuda:N` chooses another GPU"
            }
            Self::Memory { .. } => {
                "`nvidia-smi` says which programs have its memory; a smaller `--context` needs less"
            }
            Self::Refused { .. } | Self::Failed { .. } => return None,
            Self::Lost { .. } => {
                "run again; if it happens again, `dmesg` and `nvidia-smi -q` say whether the hardware is at fault"
            }
        };
        Some(hint.to_owned())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::WrongGpu { .. } | Self::Shared { .. } => 4,
            Self::Memory { .. } => 7,
            _ => 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use sail_ir::help::report;

    use super::*;

    #[test]
    fn every_way_to_have_no_gpu_says_what_to_do() {
        expect![[r#"
            error[SC0611]: no CUDA driver found
              because `libcuda.so.1` is not on the library path

            hint: install NVIDIA's driver, or compile the checkpoint for this machine with `--target host`"#]]
        .assert_eq(&report(&CudaError::NoDriver));
        let error = CudaError::OldDriver { found: Pair(11, 8), needed: "12.0".to_owned() };
        expect![[r#"
            error[SC0613]: the CUDA driver is too old
              because it is of CUDA 11.8, the code needs 12.0

            hint: install a newer driver; nothing else of CUDA is needed"#]]
        .assert_eq(&report(&error));
        expect![[r#"
            error[SC0614]: there is no GPU number 2
              because the CUDA driver finds 1, counted from 0

            hint: the first one is `--device cuda:0`"#]]
        .assert_eq(&report(&CudaError::NoDevice { ordinal: 2, count: 1 }));
    }

    #[test]
    fn the_log_of_the_driver_stands_below_its_refusal() {
        let error = CudaError::Refused {
            because: "a PTX JIT compilation failed (CUDA_ERROR_INVALID_PTX)".to_owned(),
            log: "ptxas application ptx input, line 7; fatal\nptxas fatal".to_owned(),
        };
        expect![[r#"
            error[SC0617]: the CUDA driver does not take the artifact's code
              because of: a PTX JIT compilation failed (CUDA_ERROR_INVALID_PTX)
                ptxas application ptx input, line 7; fatal
                ptxas fatal"#]]
        .assert_eq(&report(&error));
    }
}
