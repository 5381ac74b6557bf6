//! One launch through the CUDA driver: memory, module, kernel, and everything given back.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

use cudarc::driver::sys::{self, CUresult};
use sail_gpucheck::Case;
use sail_ir::plan::TensorMap;

/// Shared memory that a block has without asking for more.
const FREE_SHARED_BYTES: u32 = 48 << 10;

/// The first GPU, ready, and the modules that were loaded.
pub struct Gpu {
    modules: HashMap<String, sys::CUmodule>,
    /// The one order of copies and launches.
    stream: sys::CUstream,
    pub name: String,
    pub capability: (i32, i32),
}

/// A tensor map where the driver wants it.
#[repr(C, align(64))]
struct Map(sys::CUtensorMap);

/// Memory of the GPU, given back when dropped.
struct Memory(sys::CUdeviceptr);

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated once; the launch was waited for. A lost GPU refuses, and nothing is left to do.
        let _ = unsafe { sys::cuMemFree_v2(self.0) };
    }
}

impl Gpu {
    /// Refuses when there is no driver or no GPU.
    pub fn new() -> Result<Self, String> {
        // SAFETY: opens the driver's library, which every call below needs.
        if !unsafe { sys::is_culib_present() } {
            return Err("there is no `libcuda.so.1`".to_owned());
        }
        let mut device = 0;
        let mut context = ptr::null_mut();
        let mut name = [0 as c_char; 128];
        let mut capability = (0, 0);
        let mut stream = ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        use sys::CUdevice_attribute_enum as Which;
        // SAFETY: each call writes to the places given here, whose sizes are said; the context is
        // kept until the process ends.
        unsafe {
            check("start", sys::cuInit(0))?;
            check("find the GPU", sys::cuDeviceGet(&raw mut device, 0))?;
            check("name the GPU", sys::cuDeviceGetName(name.as_mut_ptr(), 127, device))?;
            let major = Which::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
            let minor = Which::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR;
            check("describe", sys::cuDeviceGetAttribute(&raw mut capability.0, major, device))?;
            check("describe", sys::cuDeviceGetAttribute(&raw mut capability.1, minor, device))?;
            check("begin", sys::cuDevicePrimaryCtxRetain(&raw mut context, device))?;
            check("begin", sys::cuCtxSetCurrent(context))?;
            check("begin", sys::cuStreamCreate(&raw mut stream, flags))?;
        }
        let name = name.iter().map(|byte| byte.cast_unsigned()).take_while(|byte| *byte != 0);
        let name = String::from_utf8_lossy(&name.collect::<Vec<u8>>()).into_owned();
        Ok(Self { modules: HashMap::new(), stream, name, capability })
    }

    /// Whether code for `target` runs here: `sm_90` code is for 9.0 alone.
    pub fn runs(&self, target: &str) -> bool {
        match target {
            "sm_90" => self.capability == (9, 0),
            _ => self.capability >= (8, 0),
        }
    }

    /// The buffers of `case` after its launch; `text` is its PTX.
    ///
    /// Refuses what the driver refuses.
    pub fn run(&mut self, case: &Case, text: &str) -> Result<Vec<Vec<u8>>, String> {
        let head = &case.head;
        let function = self.function(&head.ptx, text, &head.cuda.entry)?;
        if head.cuda.shared_bytes > FREE_SHARED_BYTES {
            let which = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = head.cuda.shared_bytes.cast_signed();
            // SAFETY: the function was found in a module that stays loaded.
            check("take shared memory", unsafe {
                sys::cuFuncSetAttribute(function, which, bytes)
            })?;
        }
        let control: Vec<u8> = head.control.iter().flat_map(|word| word.to_le_bytes()).collect();
        let all = case.before.iter().chain([&control]);
        let memory: Vec<Memory> = all.map(|bytes| self.placed(bytes)).collect::<Result<_, _>>()?;
        let pointers: Vec<u64> = memory.iter().map(|memory| memory.0).collect();
        let maps = head.cuda.tensor_maps.iter().zip(&head.map_rows);
        let maps: Vec<Map> = maps
            .map(|(map, rows)| encoded(map, pointers[map.argument as usize], *rows))
            .collect::<Result<_, _>>()?;
        let first = pointers.iter().map(|pointer| ptr::from_ref(pointer).cast_mut().cast());
        let maps = maps.iter().map(|map| ptr::from_ref(map).cast_mut().cast::<c_void>());
        let mut parameters: Vec<*mut c_void> = first.chain(maps).collect();
        if head.blocks > 0 {
            launch(case, (function, self.stream), &mut parameters)?;
        }
        self.wait("wait for the kernel")?;
        case.before
            .iter()
            .zip(&memory)
            .map(|(bytes, memory)| self.fetched(memory, bytes.len()))
            .collect()
    }

    /// A copy of `bytes` in memory of the GPU.
    fn placed(&self, bytes: &[u8]) -> Result<Memory, String> {
        let mut start = 0;
        // SAFETY: writes one address.
        check("give memory", unsafe { sys::cuMemAlloc_v2(&raw mut start, bytes.len().max(256)) })?;
        let memory = Memory(start);
        if !bytes.is_empty() {
            // SAFETY: at least so many bytes were allocated; the copy is waited for while they live.
            let answer = unsafe {
                sys::cuMemcpyHtoDAsync_v2(start, bytes.as_ptr().cast(), bytes.len(), self.stream)
            };
            check("copy to the GPU", answer)?;
            self.wait("copy to the GPU")?;
        }
        Ok(memory)
    }

    fn fetched(&self, memory: &Memory, bytes: usize) -> Result<Vec<u8>, String> {
        let mut values = vec![0_u8; bytes];
        if bytes > 0 {
            // SAFETY: both have so many bytes; the copy is waited for while they live.
            let answer = unsafe {
                sys::cuMemcpyDtoHAsync_v2(values.as_mut_ptr().cast(), memory.0, bytes, self.stream)
            };
            check("copy from the GPU", answer)?;
            self.wait("copy from the GPU")?;
        }
        Ok(values)
    }

    fn wait(&self, doing: &str) -> Result<(), String> {
        // SAFETY: the stream lives until the process ends.
        check(doing, unsafe { sys::cuStreamSynchronize(self.stream) })
    }

    fn function(&mut self, file: &str, text: &str, entry: &str) -> Result<sys::CUfunction, String> {
        let module = match self.modules.get(file) {
            Some(module) => *module,
            None => {
                let text = CString::new(text).map_err(|error| error.to_string())?;
                let mut module = ptr::null_mut();
                // SAFETY: the text ends with a zero; writes one handle.
                let answer = unsafe {
                    let (text, none) = (text.as_ptr().cast(), ptr::null_mut());
                    sys::cuModuleLoadDataEx(&raw mut module, text, 0, none, ptr::null_mut())
                };
                check("take the PTX", answer)?;
                self.modules.insert(file.to_owned(), module);
                module
            }
        };
        let entry = CString::new(entry).map_err(|error| error.to_string())?;
        let mut function = ptr::null_mut();
        // SAFETY: the module stays loaded; the name ends with a zero; writes one handle.
        let answer = unsafe { sys::cuModuleGetFunction(&raw mut function, module, entry.as_ptr()) };
        check("find the kernel", answer)?;
        Ok(function)
    }
}

fn launch(
    case: &Case,
    (function, stream): (sys::CUfunction, sys::CUstream),
    parameters: &mut [*mut c_void],
) -> Result<(), String> {
    let cuda = &case.head.cuda;
    // SAFETY: all bytes zero is a valid value of this C struct of numbers.
    let mut attribute: sys::CUlaunchAttribute = unsafe { std::mem::zeroed() };
    attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim.x = cuda.cluster;
    attribute.value.clusterDim.y = 1;
    attribute.value.clusterDim.z = 1;
    let config = sys::CUlaunchConfig {
        gridDimX: case.head.blocks.next_multiple_of(cuda.cluster.max(1)),
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: cuda.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: cuda.shared_bytes,
        hStream: stream,
        attrs: &raw mut attribute,
        numAttrs: u32::from(cuda.cluster > 1),
    };
    // SAFETY: the parameters are those that the case recorded of this kernel: pointers to memory of the
    // recorded sizes, then tensor maps. The driver copies them during the call.
    check("launch", unsafe {
        sys::cuLaunchKernelEx(&raw const config, function, parameters.as_mut_ptr(), ptr::null_mut())
    })
}

fn encoded(map: &TensorMap, base: u64, rows: u64) -> Result<Map, String> {
    use sys::CUtensorMapSwizzle as Swizzle;
    let kind = match map.element_bytes {
        1 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        _ => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
    };
    let swizzle = match map.swizzle {
        0 => Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        32 => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        _ => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    };
    let mut encoded = Map(sys::CUtensorMap { opaque: [0; 16] });
    let (sizes, steps) = ([map.columns, rows.max(1)], [1_u32, 1]);
    // SAFETY: writes one map; two sizes, one pitch, two box sizes and two steps for two dimensions.
    let answer = unsafe {
        sys::cuTensorMapEncodeTiled(
            &raw mut encoded.0,
            kind,
            2,
            ptr::with_exposed_provenance_mut(base as usize),
            sizes.as_ptr(),
            &raw const map.row_bytes,
            map.block.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    check("describe a matrix", answer)?;
    Ok(encoded)
}

fn check(doing: &str, answer: CUresult) -> Result<(), String> {
    if answer == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut text: *const c_char = ptr::null();
    // SAFETY: writes a pointer to a text that lives as long as the driver, or null.
    let known = unsafe { sys::cuGetErrorName(answer, &raw mut text) } == CUresult::CUDA_SUCCESS;
    let name = match known && !text.is_null() {
        // SAFETY: as the driver says, a text that ends with a zero.
        true => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
        false => format!("{answer:?}"),
    };
    Err(format!("the driver refuses to {doing}: {name}"))
}
