//! The driver, one GPU of it, and what its answers mean.
//!
//! The driver's library is opened when the first GPU is asked for, so that the same program runs on
//! machines that have none. Everything that belongs to a GPU keeps its [`Context`] alive.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUresult};

use super::error::{CudaError, Pair};

/// The first version that has all we call: launches with attributes, graphs, tensor maps.
const OLDEST: Pair = Pair(12, 0);

/// One GPU, made ready for this process.
pub(super) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
    pub about: About,
}

// SAFETY: a context may be used by any thread that made it current; the handle itself is a number.
unsafe impl Send for Context {}
// SAFETY: as above; the driver's calls are thread-safe.
unsafe impl Sync for Context {}

/// What the driver says of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct About {
    pub ordinal: u32,
    pub name: String,
    /// Compute capability.
    pub capability: Pair,
    pub multiprocessors: u32,
    /// Highest clock of the multiprocessors, in kHz.
    pub clock_khz: u32,
    /// Version of CUDA that the driver is of.
    pub driver: Pair,
}

impl Context {
    /// Start the driver and make GPU number `ordinal` ready.
    ///
    /// Refuses when there is no driver, an old one, or no such GPU.
    pub fn open(ordinal: u32) -> Result<Arc<Self>, CudaError> {
        // SAFETY: opening the driver's library runs its initialisers, as every program that uses a
        // GPU does. After this, a call can not fail to find the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        let mut version: c_int = 0;
        // SAFETY: writes one integer; needs no initialisation.
        let answer = unsafe { sys::cuDriverGetVersion(&raw mut version) };
        start(answer)?;
        let version = version.unsigned_abs();
        let driver = Pair(version / 1000, version % 1000 / 10);
        if driver < OLDEST {
            return Err(CudaError::OldDriver { found: driver, needed: OLDEST.to_string() });
        }
        // SAFETY: 0 is the only flag there is.
        match unsafe { sys::cuInit(0) } {
            CUresult::CUDA_ERROR_NO_DEVICE => {
                return Err(CudaError::NoDevice { ordinal, count: 0 });
            }
            answer => start(answer)?,
        }
        let mut count: c_int = 0;
        // SAFETY: writes one integer.
        check("count GPUs", unsafe { sys::cuDeviceGetCount(&raw mut count) })?;
        let count = count.unsigned_abs();
        if ordinal >= count {
            return Err(CudaError::NoDevice { ordinal, count });
        }
        Self::retain(ordinal, driver).map(Arc::new)
    }

    fn retain(ordinal: u32, driver: Pair) -> Result<Self, CudaError> {
        let mut device: sys::CUdevice = 0;
        let number = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        // SAFETY: writes one handle.
        check("find the GPU", unsafe { sys::cuDeviceGet(&raw mut device, number) })?;
        let about = About {
            ordinal,
            name: name(device)?,
            capability: Pair(
                attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            multiprocessors: attribute(
                device,
                Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
            )?,
            clock_khz: attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?,
            driver,
        };
        let mut handle: sys::CUcontext = ptr::null_mut();
        // SAFETY: writes one handle, of a device that was found above; given back when dropped.
        let answer = unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut handle, device) };
        check("begin work on the GPU", answer)?;
        let context = Self { device, handle, about };
        context.make_current()?;
        Ok(context)
    }

    /// Have the calls of this thread mean this GPU.
    pub fn make_current(&self) -> Result<(), CudaError> {
        // SAFETY: the handle was given by the driver and is kept until the drop.
        check("turn to the GPU", unsafe { sys::cuCtxSetCurrent(self.handle) })
    }

    /// Bytes of the GPU's memory that are free, and all of them.
    pub fn memory(&self) -> Result<(u64, u64), CudaError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two sizes.
        let answer = unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) };
        check("say how much memory is free", answer)?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once; everything that belongs to it has been given back, as it keeps
        // this alive. After a fault the driver refuses, and nothing is left to do.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

fn name(device: sys::CUdevice) -> Result<String, CudaError> {
    let mut text = [0 as c_char; 128];
    // SAFETY: writes at most 127 bytes and a zero to an array of 128.
    let answer = unsafe { sys::cuDeviceGetName(text.as_mut_ptr(), 127, device) };
    check("name the GPU", answer)?;
    let bytes = text.iter().map(|byte| byte.cast_unsigned()).take_while(|byte| *byte != 0);
    Ok(String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned())
}

fn attribute(device: sys::CUdevice, which: Attribute) -> Result<u32, CudaError> {
    let mut value: c_int = 0;
    // SAFETY: writes one integer.
    let answer = unsafe { sys::cuDeviceGetAttribute(&raw mut value, which, device) };
    check("describe the GPU", answer)?;
    Ok(value.unsigned_abs())
}

fn start(answer: CUresult) -> Result<(), CudaError> {
    match answer {
        CUresult::CUDA_SUCCESS => Ok(()),
        _ => Err(CudaError::Start { because: words(answer) }),
    }
}

/// The driver's answer to a wish to do something.
pub(super) fn check(doing: impl Into<String>, answer: CUresult) -> Result<(), CudaError> {
    match answer {
        CUresult::CUDA_SUCCESS => Ok(()),
        _ => Err(refused(doing, answer)),
    }
}

/// An answer that is not success, as an error.
pub(super) fn refused(doing: impl Into<String>, answer: CUresult) -> CudaError {
    let (doing, because) = (doing.into(), words(answer));
    match answer {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => CudaError::Memory { doing, because },
        _ if is_sticky(answer) => {
            CudaError::Lost { doing: format!("an attempt to {doing}"), because }
        }
        _ => CudaError::Failed { doing, because },
    }
}

/// After these the driver answers every call of the process with the same.
///
/// Source: CUDA driver API, `CUresult`: "this leaves the process in an inconsistent state".
fn is_sticky(answer: CUresult) -> bool {
    matches!(
        answer,
        CUresult::CUDA_ERROR_DEINITIALIZED
            | CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE
            | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
            | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
            | CUresult::CUDA_ERROR_EXTERNAL_DEVICE
            | CUresult::CUDA_ERROR_UNKNOWN
    )
}

/// The driver's words for an answer: `out of memory (CUDA_ERROR_OUT_OF_MEMORY)`.
pub(super) fn words(answer: CUresult) -> String {
    // SAFETY: what both of the driver's functions need is a place for one pointer.
    type Ask = unsafe fn(CUresult, *mut *const c_char) -> CUresult;
    let ask = |ask: Ask| {
        let mut text: *const c_char = ptr::null();
        // SAFETY: writes a pointer to a text that lives as long as the driver, or null.
        let known = unsafe { ask(answer, &raw mut text) } == CUresult::CUDA_SUCCESS;
        // SAFETY: as the driver says, a text that ends with a zero.
        (known && !text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy())
    };
    let sentence = ask(sys::cuGetErrorString).unwrap_or("no words".into());
    let name = ask(sys::cuGetErrorName).unwrap_or("no name".into());
    format!("{sentence} ({name})")
}
