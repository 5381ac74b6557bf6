//! The driver, the GPU, its context, and what codes mean.

use std::ffi::{c_char, c_void};

use super::driver;
use crate::answer::{INVALID_DEVICE, INVALID_VALUE, NO_DEVICE, name, sentence};
use crate::faults::Call;
use crate::pointer::{Bytes, Out};
use crate::state::{pointer, state};

const NAME: &[u8] = b"Simulated GPU\0";

/// Numbers of `CUdevice_attribute`.
const CLOCK: u32 = 13;
const MULTIPROCESSORS: u32 = 16;
const CAPABILITY_MAJOR: u32 = 75;
const CAPABILITY_MINOR: u32 = 76;

driver! {
    fn cuInit(_flags: u32) {
        let mut state = state();
        if let Some(code) = state.faults.strike(Call::Init) {
            return Err(code);
        }
        if state.faults.count == 0 {
            return Err(NO_DEVICE);
        }
        state.ready = true;
        Ok(())
    }

    fn cuDriverGetVersion(version: Out<i32>) {
        version.set(state().faults.version);
        Ok(())
    }

    fn cuDeviceGetCount(count: Out<i32>) {
        let state = state();
        state.alive()?;
        count.set(state.faults.count);
        Ok(())
    }

    fn cuDeviceGet(device: Out<i32>, ordinal: i32) {
        let state = state();
        state.alive()?;
        if !(0..state.faults.count).contains(&ordinal) {
            return Err(INVALID_DEVICE);
        }
        device.set(ordinal);
        Ok(())
    }

    fn cuDeviceGetName(text: Bytes, length: i32, _device: i32) {
        if (length as usize) < NAME.len() {
            return Err(INVALID_VALUE);
        }
        text.write(NAME);
        Ok(())
    }

    fn cuDeviceGetAttribute(value: Out<i32>, attribute: u32, _device: i32) {
        let state = state();
        state.alive()?;
        value.set(match attribute {
            CLOCK => 1_000_000,
            MULTIPROCESSORS => 4,
            CAPABILITY_MAJOR => state.faults.capability / 10,
            CAPABILITY_MINOR => state.faults.capability % 10,
            _ => return Err(INVALID_VALUE),
        });
        Ok(())
    }

    fn cuDevicePrimaryCtxRetain(context: Out<*mut c_void>, _device: i32) {
        state().alive()?;
        context.set(pointer(1));
        Ok(())
    }

    fn cuDevicePrimaryCtxRelease_v2(_device: i32) {
        Ok(())
    }

    /// Also after a fault: a driver takes the context, and refuses what is then asked of it.
    fn cuCtxSetCurrent(_context: *mut c_void) {
        Ok(())
    }

    fn cuGetErrorName(code: u32, text: Out<*const c_char>) {
        text.set(name(code).ok_or(INVALID_VALUE)?.as_ptr());
        Ok(())
    }

    fn cuGetErrorString(code: u32, text: Out<*const c_char>) {
        text.set(sentence(code).ok_or(INVALID_VALUE)?.as_ptr());
        Ok(())
    }
}
