//! The artifact's code on the GPU: machine code where the file has it and the GPU takes it, else the
//! PTX text, which the driver assembles.

use std::ffi::{CString, c_int, c_void};
use std::fmt;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};
use sail_ir::artifact::{Artifact, CudaCode};
use sail_ir::plan::Cuda;

use super::driver::{About, Context, check, refused, words};
use super::error::{CudaError, Pair};

/// Room for what the driver says of text it does not take.
const LOG_BYTES: usize = 8 << 10;

/// Shared memory that a block has without asking for more.
const FREE_SHARED_BYTES: u32 = 48 << 10;

/// What was given to the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Machine,
    Text {
        /// The driver's words to the machine code that it declined before, where the file has some.
        declined: Option<String>,
    },
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "machine code of the artifact",
            Self::Text { .. } => "PTX assembled by the driver",
        })
    }
}

/// All kernels of an artifact.
pub(super) struct Code {
    context: Arc<Context>,
    module: sys::CUmodule,
    pub form: Form,
    /// Whether every kernel waits by itself for the one before it, as code for `sm_90` does.
    pub waits: bool,
}

// SAFETY: a module may be used by any thread that made its context current.
unsafe impl Send for Code {}

/// One kernel.
#[derive(Clone, Copy)]
pub(super) struct Entry(pub sys::CUfunction);

// SAFETY: as for the code it is part of.
unsafe impl Send for Entry {}

impl Code {
    /// Hand the code to the driver.
    ///
    /// Refuses a GPU that does not run the architecture, and what the driver refuses; its log is in
    /// the error.
    pub fn new(context: &Arc<Context>, artifact: &Artifact) -> Result<Self, CudaError> {
        let cuda = artifact.manifest().cuda.as_ref();
        let cuda = cuda.expect("broken invariant `artifact.cuda`: opened for a GPU without it");
        if !fits(&cuda.architecture, context.about.capability) {
            return Err(CudaError::WrongGpu {
                gpu: context.about.name.clone(),
                target: artifact.manifest().target.to_string(),
                found: context.about.capability,
            });
        }
        let waits = number(&cuda.architecture) >= Pair(9, 0);
        let made = |module, form| Self { context: Arc::clone(context), module, form, waits };
        let mut declined = None;
        if let Some(cubin) = artifact.cubin() {
            match load(cubin.as_ptr().cast()) {
                Ok(module) => return Ok(made(module, Form::Machine)),
                // Machine code is for GPUs of one kind; the text may still be for this one.
                Err(answer) => match refused("take machine code", answer) {
                    CudaError::Failed { because, .. } => declined = Some(because),
                    error => return Err(error),
                },
            }
        }
        let text = CString::new(artifact.code())
            .map_err(|_| refusal("its text has a zero byte".to_owned(), String::new()))?;
        let module = assembled(&text, &context.about, cuda)?;
        Ok(made(module, Form::Text { declined }))
    }

    /// The kernel that `cuda` describes, allowed the shared memory it takes.
    ///
    /// Refuses when it is not there, or takes more than there is.
    pub fn entry(&self, cuda: &Cuda) -> Result<Entry, CudaError> {
        let name = CString::new(cuda.entry.as_str()).unwrap_or_default();
        let mut function: sys::CUfunction = ptr::null_mut();
        // SAFETY: the module lives; writes one handle; the name ends with a zero.
        let answer =
            unsafe { sys::cuModuleGetFunction(&raw mut function, self.module, name.as_ptr()) };
        check(format!("find the kernel `{}`", cuda.entry), answer)?;
        if cuda.shared_bytes > FREE_SHARED_BYTES {
            let which = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = c_int::try_from(cuda.shared_bytes).unwrap_or(c_int::MAX);
            // SAFETY: the handle was given above.
            let answer = unsafe { sys::cuFuncSetAttribute(function, which, bytes) };
            if answer != CUresult::CUDA_SUCCESS {
                let (entry, bytes) = (cuda.entry.clone(), cuda.shared_bytes);
                return Err(CudaError::Shared { entry, bytes, because: words(answer) });
            }
        }
        Ok(Entry(function))
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: loaded once; its owner waited for all kernels.
            let _ = unsafe { sys::cuModuleUnload(self.module) };
        }
    }
}

/// Code for `sm_80` runs on 8.0 and above, code for `sm_90a` on 9.0 alone.
fn fits(architecture: &str, found: Pair) -> bool {
    let exact = architecture.ends_with('a');
    let wanted = number(architecture);
    found == wanted || (!exact && found > wanted)
}

/// The compute capability in the name of an architecture; more than any GPU has in other names.
fn number(architecture: &str) -> Pair {
    let number = architecture.strip_prefix("sm_").unwrap_or_default().trim_end_matches('a');
    let number = number.parse().unwrap_or(u32::MAX);
    Pair(number / 10, number % 10)
}

fn load(image: *const c_void) -> Result<sys::CUmodule, CUresult> {
    let mut module: sys::CUmodule = ptr::null_mut();
    // SAFETY: the image is a whole cubin, as its section's hash says; writes one handle.
    let answer = unsafe {
        sys::cuModuleLoadDataEx(&raw mut module, image, 0, ptr::null_mut(), ptr::null_mut())
    };
    if answer == CUresult::CUDA_SUCCESS { Ok(module) } else { Err(answer) }
}

/// Have the driver assemble the text.
fn assembled(text: &CString, about: &About, cuda: &CudaCode) -> Result<sys::CUmodule, CudaError> {
    use sys::CUjit_option::{CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    let mut log = vec![0_u8; LOG_BYTES];
    let mut options = [CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    // The size is given as the pointer itself.
    let mut values: [*mut c_void; 2] =
        [log.as_mut_ptr().cast(), ptr::without_provenance_mut(LOG_BYTES)];
    let mut module: sys::CUmodule = ptr::null_mut();
    // SAFETY: the text ends with a zero; two options and their values; the log has the room that is
    // said; writes one handle.
    let answer = unsafe {
        sys::cuModuleLoadDataEx(
            &raw mut module,
            text.as_ptr().cast(),
            2,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    match answer {
        CUresult::CUDA_SUCCESS => Ok(module),
        CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => Err(CudaError::OldDriver {
            found: about.driver,
            needed: format!("one that reads PTX {}", cuda.ptx_version),
        }),
        _ => Err(match refused("take the kernels", answer) {
            CudaError::Failed { because, .. } => {
                let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
                refusal(because, String::from_utf8_lossy(&log[..end]).into_owned())
            }
            error => error,
        }),
    }
}

fn refusal(because: String, log: String) -> CudaError {
    CudaError::Refused { because, log }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_runs_on_its_generation_and_later_ones_unless_it_is_for_one_alone() {
        assert!(
            fits("sm_80", Pair(8, 0)) && fits("sm_80", Pair(8, 9)) && fits("sm_80", Pair(9, 0))
        );
        assert!(!fits("sm_80", Pair(7, 5)));
        assert!(fits("sm_90a", Pair(9, 0)));
        assert!(!fits("sm_90a", Pair(10, 0)) && !fits("sm_90a", Pair(8, 6)));
        assert!(!fits("nonsense", Pair(9, 0)));
    }
}
