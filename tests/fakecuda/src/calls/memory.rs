//! Memory of the GPU and of this machine, and copies between them.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;

use super::driver;
use crate::answer::{INVALID_VALUE, OUT_OF_MEMORY, STREAM_CAPTURE_UNSUPPORTED};
use crate::faults::Call;
use crate::pointer::{Bytes, In, Out};
use crate::state::{State, state};

/// `CUDA_MEMCPY2D`, of which only rows from the GPU to this machine are known here.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Rows {
    from_x: usize,
    from_y: usize,
    from_kind: u32,
    from_host: *const c_void,
    from_device: u64,
    from_array: *mut c_void,
    from_pitch: usize,
    to_x: usize,
    to_y: usize,
    to_kind: u32,
    to_host: Bytes,
    to_device: u64,
    to_array: *mut c_void,
    to_pitch: usize,
    width: usize,
    height: usize,
}

/// `CUmemorytype` of this machine and of the GPU.
const HOST: u32 = 1;
const DEVICE: u32 = 2;

driver! {
    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let state = state();
        state.alive()?;
        free.set(state.left() as usize);
        total.set(state.faults.memory as usize);
        Ok(())
    }

    fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) {
        address.set(state().alloc(bytes as u64)?);
        Ok(())
    }

    fn cuMemFree_v2(address: u64) {
        let mut state = state();
        state.alive()?;
        state.free(address)
    }

    fn cuMemHostAlloc(place: Out<*mut c_void>, bytes: usize, _flags: u32) {
        let mut state = state();
        state.begin(Call::Alloc)?;
        let layout = Layout::from_size_align(bytes, 4096).map_err(|_| INVALID_VALUE)?;
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the size is not 0.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            return Err(OUT_OF_MEMORY);
        }
        state.pinned.insert(memory.addr(), layout);
        place.set(memory.cast());
        Ok(())
    }

    fn cuMemFreeHost(place: *mut c_void) {
        let layout = state().pinned.remove(&place.addr()).ok_or(INVALID_VALUE)?;
        // SAFETY: given out above with this layout, and taken from the list now.
        unsafe { dealloc(place.cast(), layout) };
        Ok(())
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: Bytes, bytes: usize, _stream: *mut c_void) {
        let mut state = state();
        copying(&mut state)?;
        let written = state.gpu.write(to, &from.read(bytes));
        written.map_err(|fault| state.lose(&fault))
    }

    fn cuMemcpyDtoHAsync_v2(to: Bytes, from: u64, bytes: usize, _stream: *mut c_void) {
        let mut state = state();
        copying(&mut state)?;
        let read = state.gpu.read(from, bytes as u64);
        to.write(&read.map_err(|fault| state.lose(&fault))?);
        Ok(())
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, _stream: *mut c_void) {
        let mut state = state();
        copying(&mut state)?;
        let copied = state.gpu.read(from, bytes as u64);
        let copied = copied.and_then(|bytes| state.gpu.write(to, &bytes));
        copied.map_err(|fault| state.lose(&fault))
    }

    fn cuMemcpy2DAsync_v2(copy: In<Rows>, _stream: *mut c_void) {
        let mut state = state();
        copying(&mut state)?;
        let rows = copy.get(0);
        if rows.from_kind != DEVICE || rows.to_kind != HOST || rows.width > rows.from_pitch {
            return Err(INVALID_VALUE);
        }
        for row in 0..rows.height {
            let from = rows.from_device + (row * rows.from_pitch) as u64;
            let bytes = state.gpu.read(from, rows.width as u64);
            let bytes = bytes.map_err(|fault| state.lose(&fault))?;
            rows.to_host.further(row * rows.to_pitch).write(&bytes);
        }
        Ok(())
    }

    fn cuMemsetD8Async(to: u64, value: u8, bytes: usize, _stream: *mut c_void) {
        let mut state = state();
        copying(&mut state)?;
        let written = state.gpu.write(to, &vec![value; bytes]);
        written.map_err(|fault| state.lose(&fault))
    }
}

/// Nothing is copied while a stream records: the runtime has no such graphs.
fn copying(state: &mut State) -> Result<(), u32> {
    if state.recording.is_some() {
        return Err(STREAM_CAPTURE_UNSUPPORTED);
    }
    state.begin(Call::Copy)?;
    // A copy comes after all kernels before it, and all kernels after it come after the copy.
    state.gpu.settle();
    Ok(())
}
