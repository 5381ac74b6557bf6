//! Modules, kernels and launches.

use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use sail_ptxsim::{Module, Swizzle, TensorMap};

use super::driver;
use crate::answer::{
    INVALID_HANDLE, INVALID_PTX, INVALID_VALUE, NO_BINARY_FOR_GPU, NOT_FOUND, NOT_SUPPORTED,
};
use crate::faults::Call;
use crate::pointer::{Bytes, In, Out, Text};
use crate::state::{Function, Work, pointer, say, state};

/// Numbers of `CUjit_option`, `CUfunction_attribute`, `CUlaunchAttributeID`, `CUtensorMapDataType`.
const ERROR_LOG: u32 = 5;
const ERROR_LOG_BYTES: u32 = 6;
const DYNAMIC_SHARED: u32 = 8;
const CLUSTER: u32 = 4;
const PROGRAMMATIC_STREAM: u32 = 6;
const UINT8: u32 = 0;
const BFLOAT16: u32 = 9;

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Config {
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: *mut c_void,
    attributes: *const Attribute,
    count: u32,
}

/// `CUlaunchAttribute`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Attribute {
    id: u32,
    pad: u32,
    value: [u32; 16],
}

driver! {
    fn cuModuleLoadDataEx(
        module: Out<*mut c_void>,
        image: *const c_char,
        count: u32,
        options: In<u32>,
        values: In<Bytes>,
    ) {
        let mut state = state();
        let (mut log, mut room) = (None, 0);
        for index in 0..count as usize {
            match options.get(index) {
                ERROR_LOG => log = Some(values.get(index)),
                ERROR_LOG_BYTES => room = values.get(index).0.addr(),
                _ => return Err(INVALID_VALUE),
            }
        }
        let say = |text: &str| {
            if let Some(log) = log && room > 0 {
                let end = text.len().min(room - 1);
                log.write(&text.as_bytes()[..end]);
                log.further(end).write(&[0]);
            }
        };
        if let Err(code) = state.begin(Call::Load) {
            say("fakecuda was asked not to take this");
            return Err(code);
        }
        // SAFETY: an image is a text that ends with a zero, or begins with the four bytes of ELF and
        // has zeros soon after.
        let text = unsafe { CStr::from_ptr(image) };
        if text.to_bytes().starts_with(b"\x7fELF") {
            return Err(NO_BINARY_FOR_GPU);
        }
        match Module::parse(&text.to_string_lossy()) {
            Ok(parsed) => {
                let handle = state.handle();
                state.modules.insert(handle, Arc::new(parsed));
                module.set(pointer(handle));
                Ok(())
            }
            Err(fault) => {
                say(&fault.to_string());
                Err(INVALID_PTX)
            }
        }
    }

    fn cuModuleUnload(module: *mut c_void) {
        let removed = state().modules.remove(&module.addr());
        removed.map(|_| ()).ok_or(INVALID_HANDLE)
    }

    fn cuModuleGetFunction(function: Out<*mut c_void>, module: *mut c_void, name: Text) {
        let mut state = state();
        state.alive()?;
        let module = Arc::clone(state.modules.get(&module.addr()).ok_or(INVALID_HANDLE)?);
        let name = name.read();
        if !module.kernels().any(|kernel| kernel == name) {
            return Err(NOT_FOUND);
        }
        let handle = state.handle();
        state.functions.insert(handle, Function { module, name, shared: 0 });
        function.set(pointer(handle));
        Ok(())
    }

    fn cuFuncSetAttribute(function: *mut c_void, attribute: u32, value: i32) {
        let mut state = state();
        state.alive()?;
        let most = match state.faults.capability {
            80 => 163 << 10,
            90 => 227 << 10,
            _ => 99 << 10,
        };
        let found = state.functions.get_mut(&function.addr()).ok_or(INVALID_HANDLE)?;
        if attribute != DYNAMIC_SHARED || value > most {
            return Err(INVALID_VALUE);
        }
        found.shared = value.unsigned_abs();
        Ok(())
    }

    fn cuLaunchKernelEx(
        config: In<Config>,
        function: *mut c_void,
        parameters: In<Bytes>,
        _extra: *mut c_void,
    ) {
        let mut state = state();
        let config = config.get(0);
        let (mut cluster, mut early) = ([1; 3], false);
        for index in 0..config.count as usize {
            // SAFETY: the configuration says how many there are.
            let attribute = unsafe { config.attributes.add(index).read() };
            if attribute.id == CLUSTER {
                cluster.copy_from_slice(&attribute.value[..3]);
            }
            early |= attribute.id == PROGRAMMATIC_STREAM && attribute.value[0] != 0;
        }
        let found = state.functions.get(&function.addr()).ok_or(INVALID_HANDLE)?;
        let places = found.module.params(&found.name).ok_or(NOT_FOUND)?;
        let bytes = places.last().map_or(0, |(offset, bytes)| offset + bytes);
        let mut params = vec![0; bytes as usize];
        for (index, (offset, bytes)) in places.iter().enumerate() {
            let value = parameters.get(index).read(*bytes as usize);
            params[*offset as usize..][..value.len()].copy_from_slice(&value);
        }
        let (module, name) = (Arc::clone(&found.module), found.name.clone());
        let allowed = found.shared;
        let Config { grid, block, shared, .. } = config;
        state.launch(Work { module, name, grid, block, cluster, shared, params, early }, allowed)
    }

    /// Interleaving, promotion and fill of what is outside are those that the runtime asks for.
    fn cuTensorMapEncodeTiled(
        map: Bytes,
        kind: u32,
        rank: u32,
        address: u64,
        sizes: In<u64>,
        pitches: In<u64>,
        boxes: In<u32>,
        _steps: In<u32>,
        _interleave: u32,
        swizzle: u32,
        _promotion: u32,
        _fill: u32,
    ) {
        state().alive()?;
        let rank = rank as usize;
        let matrix = TensorMap {
            base: address,
            element: match kind {
                UINT8 => 1,
                BFLOAT16 => 2,
                _ => return Err(NOT_SUPPORTED),
            },
            dims: (0..rank).map(|at| sizes.get(at)).collect(),
            strides: (1..rank).map(|at| pitches.get(at - 1)).collect(),
            box_dims: (0..rank).map(|at| boxes.get(at)).collect(),
            swizzle: match swizzle {
                0 => Swizzle::None,
                1 => Swizzle::Bytes32,
                2 => Swizzle::Bytes64,
                3 => Swizzle::Bytes128,
                _ => return Err(NOT_SUPPORTED),
            },
        };
        match matrix.encode() {
            Ok(bytes) => {
                map.write(&bytes);
                Ok(())
            }
            Err(fault) => {
                say(&fault);
                Err(INVALID_VALUE)
            }
        }
    }
}
