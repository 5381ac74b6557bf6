//! Memory of the GPU, and memory of this machine that the GPU copies from and to by itself.

use std::ffi::c_void;
use std::ptr;
use std::slice;
use std::sync::Arc;

use cudarc::driver::sys;
use sail_ir::plan::ALIGNMENT;

use super::driver::{Context, check, refused, words};
use super::error::CudaError;
use super::stream::Stream;
use crate::device::DeviceError;
use crate::device::host::Plain;

/// A run of bytes of the GPU, given back when dropped. Not zeroed.
pub(super) struct DeviceMemory {
    context: Arc<Context>,
    start: sys::CUdeviceptr,
    bytes: u64,
}

impl DeviceMemory {
    /// `bytes` for `what`, at a multiple of 256.
    ///
    /// Refuses what the driver refuses.
    pub fn new(
        context: &Arc<Context>,
        what: &'static str,
        bytes: u64,
    ) -> Result<Self, DeviceError> {
        let refuse = |because| DeviceError::Memory { what, bytes, because };
        let wanted = usize::try_from(bytes.max(ALIGNMENT)).ok();
        let wanted = wanted.ok_or_else(|| refuse("no such size".to_owned()))?;
        let mut start = 0;
        // SAFETY: writes one address; the context is current.
        match unsafe { sys::cuMemAlloc_v2(&raw mut start, wanted) } {
            sys::CUresult::CUDA_SUCCESS => Ok(Self { context: Arc::clone(context), start, bytes }),
            answer @ sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(refuse(words(answer))),
            answer => Err(refused(format!("give memory for {what}"), answer).into()),
        }
    }

    /// Address of the byte at `offset`, as kernels see it.
    ///
    /// # Panics
    ///
    /// When that is beyond the end.
    pub fn at(&self, offset: u64) -> u64 {
        assert!(offset <= self.bytes, "broken invariant `memory.inside`: {offset} {}", self.bytes);
        self.start + offset
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Set all of it to zero, in the order of `stream`.
    pub fn zero(&self, stream: &Stream) -> Result<(), CudaError> {
        let bytes = self.bytes as usize; // it was allocated
        // SAFETY: exactly the bytes that were allocated.
        check("clear memory", unsafe { sys::cuMemsetD8Async(self.start, 0, bytes, stream.raw()) })
    }

    /// Bytes of `count` values, which lie inside of this memory from `offset` on, and of `values`.
    fn inside<T: Plain>(&self, offset: u64, values: &Pinned<T>, count: usize) -> usize {
        let bytes = count * size_of::<T>();
        assert!(
            count <= values.count && offset + bytes as u64 <= self.bytes,
            "broken invariant `copy.inside`"
        );
        bytes
    }

    /// Copy `values` to `offset`, in the order of `stream`; the caller leaves `values` alone until
    /// then.
    pub fn write<T: Plain>(
        &self,
        offset: u64,
        values: &Pinned<T>,
        count: usize,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let bytes = self.inside(offset, values, count);
        // SAFETY: both ranges are inside their memory by the assertion; the source is pinned and is
        // not written before the stream was waited for, as the caller promises.
        let answer = unsafe {
            sys::cuMemcpyHtoDAsync_v2(self.start + offset, values.start.cast(), bytes, stream.raw())
        };
        check("copy to the GPU", answer)
    }

    /// Copy `count` values from `offset` to the beginning of `values`, in the order of `stream`.
    pub fn read<T: Plain>(
        &self,
        offset: u64,
        values: &mut Pinned<T>,
        count: usize,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        self.read_to((values, 0), offset, count, stream)
    }

    /// The same to the place `first` of `values`.
    pub fn read_to<T: Plain>(
        &self,
        (values, first): (&mut Pinned<T>, usize),
        offset: u64,
        count: usize,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let bytes = count * size_of::<T>();
        assert!(
            first + count <= values.count && offset + bytes as u64 <= self.bytes,
            "broken invariant `copy.inside`"
        );
        // SAFETY: as in `write`, the other way round; nobody looks before the stream was waited for.
        let answer = unsafe {
            let to = values.start.add(first).cast();
            sys::cuMemcpyDtoHAsync_v2(to, self.start + offset, bytes, stream.raw())
        };
        check("copy from the GPU", answer)
    }

    /// The same for `rows` runs of `count` values that begin every `pitch` bytes, here and there.
    pub fn read_rows<T: Plain>(
        &self,
        pitch: u64,
        values: &mut Pinned<T>,
        (rows, count): (usize, usize),
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let (width, pitch) = (count * size_of::<T>(), pitch as usize);
        let inside = |bytes: usize| rows == 0 || (rows - 1) * pitch + width <= bytes;
        let fits = inside(self.bytes as usize) && inside(values.count * size_of::<T>());
        assert!(fits && width <= pitch, "broken invariant `copy.inside`");
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: ptr::null(),
            srcDevice: self.start,
            srcArray: ptr::null_mut(),
            srcPitch: pitch,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
            dstHost: values.start.cast(),
            dstDevice: 0,
            dstArray: ptr::null_mut(),
            dstPitch: pitch,
            WidthInBytes: width,
            Height: rows,
        };
        // SAFETY: all rows are inside both memories by the assertion; otherwise as in `read`.
        check("copy from the GPU", unsafe {
            sys::cuMemcpy2DAsync_v2(&raw const copy, stream.raw())
        })
    }

    /// Copy `bytes` of `other`, from its beginning, to `offset`, in the order of `stream`.
    pub fn take(
        &self,
        offset: u64,
        other: &Self,
        bytes: u64,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        assert!(
            bytes <= other.bytes && offset + bytes <= self.bytes,
            "broken invariant `copy.inside`"
        );
        // SAFETY: both ranges are inside their memory, and the memories are two.
        let answer = unsafe {
            sys::cuMemcpyDtoDAsync_v2(
                self.start + offset,
                other.start,
                bytes as usize,
                stream.raw(),
            )
        };
        check("copy on the GPU", answer)
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // After a fault the driver refuses both, and the memory is gone with the process.
        if self.context.make_current().is_ok() {
            // SAFETY: allocated once; its owner waited for all work that touches it.
            let _ = unsafe { sys::cuMemFree_v2(self.start) };
        }
    }
}

/// Zeroed values in pages that stay where they are, so that the GPU copies them by itself.
pub(super) struct Pinned<T> {
    context: Arc<Context>,
    start: *mut T,
    count: usize,
}

// SAFETY: plain values that belong to nobody else.
unsafe impl<T: Plain> Send for Pinned<T> {}

impl<T: Plain> Pinned<T> {
    /// `count` zeros for `what`.
    ///
    /// Refuses what the driver refuses.
    pub fn new(
        context: &Arc<Context>,
        what: &'static str,
        count: u64,
    ) -> Result<Self, DeviceError> {
        let bytes = count.saturating_mul(size_of::<T>() as u64);
        let refuse = |because| DeviceError::Memory { what, bytes, because };
        let wanted = usize::try_from(bytes.max(ALIGNMENT));
        let wanted = wanted.map_err(|_| refuse("no such size".to_owned()))?;
        let mut start: *mut c_void = ptr::null_mut();
        // SAFETY: writes one address; the context is current.
        let answer = unsafe { sys::cuMemHostAlloc(&raw mut start, wanted, 0) };
        match answer {
            sys::CUresult::CUDA_SUCCESS => {}
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => return Err(refuse(words(answer))),
            answer => return Err(refused(format!("give memory for {what}"), answer).into()),
        }
        // SAFETY: the driver gave that many bytes, aligned to a page, to nobody else.
        unsafe { ptr::write_bytes(start.cast::<u8>(), 0, wanted) };
        Ok(Self { context: Arc::clone(context), start: start.cast(), count: count as usize })
    }

    pub fn values(&self) -> &[T] {
        // SAFETY: allocated and initialised; copies of the GPU into it were waited for by the device
        // that owns it before it lends it to anybody.
        unsafe { slice::from_raw_parts(self.start, self.count) }
    }

    pub fn values_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.start, self.count) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: allocated once; its owner waited for all copies.
            let _ = unsafe { sys::cuMemFreeHost(self.start.cast()) };
        }
    }
}
