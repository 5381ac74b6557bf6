//! Everything a call needs, looked up when the device is made: kernels, sizes of launches, parameters.

use std::ffi::{c_uint, c_void};
use std::ptr;

use cudarc::driver::sys;
use sail_ir::DType;
use sail_ir::id::Id;
use sail_ir::plan::{
    Affine, Count, Cuda, Function, Grid, MapRows, Place, Plan, Port, Step, TensorMap,
};

use super::code::{Code, Entry};
use super::driver::check;
use super::error::CudaError;
use super::regions::Regions;
use super::stream::Stream;
use crate::device::{Call, DeviceError, Layout};

/// One function of a plan, ready to be launched.
pub(super) struct FunctionTable {
    pub name: String,
    pub classes: Vec<ClassTable>,
    /// First step and one past the last of each launch of the plan.
    pub launches: Vec<[usize; 2]>,
    pub count: Count,
    pub max_outputs: u32,
    /// Whether its launches are recorded when the device is made.
    pub at_load: bool,
    pub reads_pixels: bool,
    pub writes_logits: bool,
    /// Taps that it fills: number, bytes of a row, what counts rows.
    pub taps: Vec<(usize, u64, Option<Count>)>,
    /// Most bytes that a row of a choice has, and what counts rows; `None` when it has none.
    pub choices: Option<(u64, Count)>,
    /// For each buffer, what it is when it is a bf16 buffer of the arena.
    pub scratch: Vec<Option<Scratch>>,
}

/// Its steps for one size class.
pub(super) struct ClassTable {
    pub bound: u32,
    pub steps: Vec<Launch>,
}

/// A bf16 buffer of the arena.
pub(super) struct Scratch {
    pub offset: Affine,
    pub count: Option<Count>,
    /// Values of one row.
    pub row_values: usize,
}

/// One kernel with its parameters.
pub(super) struct Launch {
    entry: Entry,
    label: String,
    blocks: c_uint,
    threads: c_uint,
    shared_bytes: c_uint,
    cluster: c_uint,
    /// Whether it may start before the kernel before it has ended.
    early: bool,
    parameters: Parameters,
}

/// Values of parameters, and their addresses as the driver takes them.
struct Parameters {
    addresses: Vec<*mut c_void>,
    /// What the addresses go to; never moved or changed.
    _pointers: Box<[u64]>,
    _maps: Box<[Map]>,
}

/// A tensor map where the driver wants it: at a multiple of 64.
#[repr(C, align(64))]
struct Map(sys::CUtensorMap);

// SAFETY: the addresses go to the boxes beside them, which move with nothing and are only read.
unsafe impl Send for Parameters {}

/// What the tables of all functions are made from.
pub(super) struct Source<'s> {
    pub plan: &'s Plan,
    pub layout: &'s Layout,
    pub code: &'s Code,
    pub regions: &'s Regions,
    /// Whether kernels may start before the one before them has ended.
    pub early: bool,
}

impl Source<'_> {
    /// All functions of the plan, by index; `None` for those the layout has no room for.
    ///
    /// Expects a verified plan and memory of at least the layout's sizes. Refuses kernels that the
    /// GPU has no room for.
    pub fn tables(&self) -> Result<Vec<Option<FunctionTable>>, DeviceError> {
        let kernels = self.plan.kernels.iter().map(|(_, kernel)| {
            let cuda = kernel.cuda.as_ref();
            let cuda = cuda.expect("broken invariant `plan.cuda`: a kernel for another device");
            self.code.entry(cuda)
        });
        let entries: Vec<Entry> = kernels.collect::<Result<_, _>>()?;
        let functions = self.plan.functions.iter().map(|function| {
            let holds = self.layout.holds(function);
            holds.then(|| self.function(function, &entries)).transpose()
        });
        functions.collect()
    }

    fn function(
        &self,
        function: &Function,
        entries: &[Entry],
    ) -> Result<FunctionTable, DeviceError> {
        let classes = function.classes.iter().map(|bound| {
            let steps = function.steps.iter();
            let steps = steps.map(|(_, step)| self.launch(function, step, *bound, entries));
            Ok(ClassTable { bound: *bound, steps: steps.collect::<Result<_, DeviceError>>()? })
        });
        let mut table = FunctionTable {
            name: function.name.clone(),
            classes: classes.collect::<Result<_, DeviceError>>()?,
            launches: function.launches.iter().map(|launch| launch.steps.map(Id::index)).collect(),
            count: function.count,
            max_outputs: function.max_outputs,
            at_load: function.name.starts_with("decode"),
            reads_pixels: false,
            writes_logits: false,
            taps: Vec::new(),
            choices: None,
            scratch: Vec::new(),
        };
        for (_, buffer) in function.buffers.iter() {
            let row_bytes = buffer.row_dims.iter().product::<u64>() * buffer.dtype.bytes();
            table.scratch.push(match buffer.place {
                Place::Arena { offset } if buffer.dtype == DType::Bf16 => Some(Scratch {
                    offset,
                    count: buffer.count,
                    row_values: (row_bytes / buffer.dtype.bytes()) as usize,
                }),
                _ => None,
            });
            match &buffer.place {
                Place::Port { port: Port::Pixels } => table.reads_pixels = true,
                Place::Port { port: Port::Logits } => table.writes_logits = true,
                Place::Tap { name } => {
                    let index = self.layout.tap(name);
                    let index = index.expect("broken invariant `layout.taps`: a tap is missing");
                    table.taps.push((index, row_bytes, buffer.count));
                }
                Place::Choice { .. } => {
                    let most = table.choices.map_or(0, |(most, _)| most).max(row_bytes);
                    table.choices = Some((most, buffer.count.unwrap_or(function.count)));
                }
                _ => {}
            }
        }
        Ok(table)
    }

    fn launch(
        &self,
        function: &Function,
        step: &Step,
        bound: u32,
        entries: &[Entry],
    ) -> Result<Launch, DeviceError> {
        let kernel = &self.plan.kernels[step.kernel];
        let cuda = kernel.cuda.as_ref();
        let cuda = cuda.expect("broken invariant `plan.cuda`: a kernel for another device");
        let most = |count| most(function, bound, count);
        let writes_features = function.name.starts_with("vision");
        let arguments = step.arguments.iter().map(|argument| {
            let place = &function.buffers[*argument].place;
            self.regions.resolve(place, bound, (self.plan, self.layout), writes_features)
        });
        let pointers: Box<[u64]> = arguments.chain([self.regions.control.at(0)]).collect();
        let maps = cuda.tensor_maps.iter().map(|map| {
            let rows = match map.rows {
                MapRows::Fixed(rows) => rows,
                MapRows::Counted { count, per } => u64::from(most(count)) * u64::from(per),
                MapRows::Pages { per } => u64::from(self.layout.pages) * u64::from(per),
            };
            encode(map, pointers[map.argument as usize], rows)
        });
        let maps: Box<[Map]> = maps.collect::<Result<_, _>>()?;
        Ok(Launch {
            entry: entries[step.kernel.index()],
            label: step.label.clone(),
            blocks: blocks(&step.grid, most(step.grid.count), [cuda.cluster, cuda.most_blocks]),
            threads: cuda.threads,
            shared_bytes: cuda.shared_bytes,
            cluster: cuda.cluster,
            early: self.early,
            parameters: Parameters::new(pointers, maps),
        })
    }
}

/// How many of `count` there can be in a call of the class with this bound.
fn most(function: &Function, bound: u32, count: Count) -> u32 {
    match count {
        count if count == function.count => bound,
        Count::Outputs => function.max_outputs.min(bound),
        Count::Tokens | Count::Images => 0,
    }
}

/// Whole clusters for all items, or for as many as one launch has.
fn blocks(grid: &Grid, count: u32, [cluster, most]: [u32; 2]) -> u32 {
    let most = if most == 0 { u64::MAX } else { u64::from(most) };
    let blocks = grid.items(count).min(most).next_multiple_of(u64::from(cluster.max(1)));
    u32::try_from(blocks).expect("broken invariant `launch.blocks`: more than a launch can have")
}

impl Parameters {
    fn new(pointers: Box<[u64]>, maps: Box<[Map]>) -> Self {
        let first = pointers.iter().map(|value| ptr::from_ref(value).cast_mut().cast());
        let addresses = first.chain(maps.iter().map(|map| ptr::from_ref(map).cast_mut().cast()));
        let addresses = addresses.collect();
        Self { addresses, _pointers: pointers, _maps: maps }
    }
}

impl Launch {
    /// One that belongs to no function: `blocks` blocks of a kernel that takes pointers alone.
    pub fn alone(entry: Entry, cuda: &Cuda, blocks: c_uint, pointers: &[u64]) -> Self {
        Self {
            entry,
            label: cuda.entry.clone(),
            blocks,
            threads: cuda.threads,
            shared_bytes: cuda.shared_bytes,
            cluster: cuda.cluster,
            early: false,
            parameters: Parameters::new(pointers.into(), Box::default()),
        }
    }

    /// Ask for it, behind all that `stream` was asked for so far.
    pub fn ask(&self, stream: &Stream) -> Result<(), CudaError> {
        if self.blocks == 0 {
            return Ok(());
        }
        use sys::CUlaunchAttributeID as Id;
        // SAFETY: all bytes zero is a valid value of this C struct of numbers.
        let mut attributes: [sys::CUlaunchAttribute; 2] = unsafe { std::mem::zeroed() };
        let mut count = 0;
        if self.cluster > 1 {
            attributes[count].id = Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
            attributes[count].value.clusterDim.x = self.cluster;
            attributes[count].value.clusterDim.y = 1;
            attributes[count].value.clusterDim.z = 1;
            count += 1;
        }
        if self.early {
            attributes[count].id = Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
            attributes[count].value.programmaticStreamSerializationAllowed = 1;
            count += 1;
        }
        let config = sys::CUlaunchConfig {
            gridDimX: self.blocks,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: self.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.shared_bytes,
            hStream: stream.raw(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: count as u32,
        };
        // SAFETY: the kernel is of this signature by the plan: pointers, control block, tensor maps,
        // which go to memory of the layout's sizes. The driver copies the parameters and only reads
        // through the addresses.
        let answer = unsafe {
            let parameters = self.parameters.addresses.as_ptr().cast_mut();
            sys::cuLaunchKernelEx(&raw const config, self.entry.0, parameters, ptr::null_mut())
        };
        match answer {
            sys::CUresult::CUDA_SUCCESS => Ok(()),
            _ => check(format!("launch `{}`", self.label), answer),
        }
    }
}

/// The map of a matrix that starts at `address`.
fn encode(map: &TensorMap, address: u64, rows: u64) -> Result<Map, CudaError> {
    use sys::CUtensorMapSwizzle as Swizzle;
    let kind = match map.element_bytes {
        1 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        2 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        bytes => panic!("broken invariant `map.elements`: of {bytes} bytes"),
    };
    let swizzle = match map.swizzle {
        0 => Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        32 => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        128 => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        bytes => panic!("broken invariant `map.swizzle`: of {bytes} bytes"),
    };
    let mut encoded = Map(sys::CUtensorMap { opaque: [0; 16] });
    let sizes = [map.columns, rows.max(1)];
    let steps = [1_u32, 1];
    // SAFETY: writes one map; two sizes, one pitch, two box sizes and two steps for two dimensions.
    let answer = unsafe {
        sys::cuTensorMapEncodeTiled(
            &raw mut encoded.0,
            kind,
            2,
            ptr::with_exposed_provenance_mut(address as usize),
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

impl FunctionTable {
    /// Rows of this call.
    pub fn rows(call: &Call, count: Option<Count>) -> u32 {
        match count {
            Some(Count::Tokens) => call.tokens,
            Some(Count::Images) => call.images,
            Some(Count::Outputs) => call.outputs,
            None => 1,
        }
    }

    /// # Panics
    ///
    /// When the counts of a call are more than its class, or the memory of the layout, holds.
    pub fn expect_fit(&self, call: &Call, layout: &Layout) {
        let bound = self.classes[call.class].bound;
        let fits = Self::rows(call, Some(self.count)) <= bound
            && call.outputs <= self.max_outputs
            && call.tokens <= layout.max_tokens
            && call.images <= layout.max_images;
        assert!(fits, "broken invariant `call.fits`: {call:?} in class {bound}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_has_a_block_and_clusters_are_whole() {
        let grid = Grid { count: Count::Tokens, per: 2, rows_per_block: 16, columns: 3, run: 1 };
        assert_eq!(blocks(&grid, 1, [1, 0]), 3);
        assert_eq!(blocks(&grid, 9, [1, 0]), 6);
        assert_eq!(blocks(&grid, 9, [1, 5]), 5);
        assert_eq!(blocks(&grid, 9, [4, 0]), 8);
        assert_eq!(blocks(&grid, 0, [4, 0]), 0);
    }
}
