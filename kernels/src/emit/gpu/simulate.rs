//! Kernels for a GPU executed on this machine's processor, for tests.

use sail_ir::plan::{Count, MapRows, TensorMap};
use sail_ir::target::Target;
use sail_ptxsim::{Device, Launch, Module, Options, Swizzle};

use crate::emit::nvptx::entry_name;
use crate::emit::run::Counts;
use crate::kernel::Kernel;
use crate::ptx::ptx;

/// A kernel as PTX, parsed.
pub struct Simulated<'a> {
    kernel: &'a dyn Kernel,
    module: Module,
}

impl<'a> Simulated<'a> {
    pub fn new(kernel: &'a dyn Kernel, target: &Target) -> Self {
        let text = ptx(&[kernel], target, 1).unwrap_or_else(|error| panic!("{error}")).text;
        let module = Module::parse(&text).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
        Self { kernel, module }
    }

    /// What the kernel makes of `buffers`, launched for more rows than the call has, as for the bound
    /// of a size class.
    ///
    /// Panics where it breaks a rule or writes what it only reads.
    pub fn run(&self, counts: Counts, buffers: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let kernel = self.kernel;
        assert_eq!(kernel.arguments().len(), buffers.len(), "one buffer for each argument");
        let grid = kernel.grid();
        let count = match grid.count {
            Count::Tokens => counts.tokens,
            Count::Images => counts.images,
            Count::Outputs => counts.outputs,
        };
        let mut device = Device::new();
        let mut place = |bytes: &[u8]| {
            let place = device.alloc(bytes.len() as u64);
            device.write(place, bytes).unwrap_or_else(|fault| panic!("{fault}"));
            place
        };
        let words = [counts.tokens, counts.images, counts.outputs, counts.pages_per_slot];
        let control: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        let mut places: Vec<u64> = buffers.iter().map(|bytes| place(bytes)).collect();
        places.push(place(&control));
        let mut params: Vec<u8> = places.iter().flat_map(|place| place.to_le_bytes()).collect();
        let block = kernel.thread_block().expect("it is a kernel for a GPU");
        for map in &block.tensor_maps {
            params.resize(params.len().next_multiple_of(64), 0);
            let argument = map.argument as usize;
            params.extend(encoded(map, (places[argument], buffers[argument].len() as u64), count));
        }
        let items = match block.most_blocks {
            0 => grid.items(count) + u64::from(grid.columns),
            // Few enough that a block has several items.
            most => u64::from(most.min(3)),
        };
        let launch = Launch {
            grid: [items as u32, 1, 1],
            block: [block.threads, 1, 1],
            dynamic_shared: block.shared_bytes,
            params: &params,
            options: Options::default(),
        };
        let entry = entry_name(&kernel.symbol());
        self.module.launch(&device, &entry, &launch).unwrap_or_else(|fault| panic!("{fault}"));
        let after: Vec<Vec<u8>> = places
            .iter()
            .zip(buffers)
            .map(|(place, before)| {
                let bytes = device.read(*place, before.len() as u64);
                bytes.unwrap_or_else(|fault| panic!("{fault}"))
            })
            .collect();
        for (at, (before, after)) in buffers.iter().zip(&after).enumerate() {
            let written = kernel.writes().contains(&(at as u32));
            assert!(written || before == after, "`{}` wrote argument {at}", kernel.symbol());
        }
        after
    }
}

/// A tensor map over the matrix of `bytes` at `base`, for `count` counted ones.
fn encoded(map: &TensorMap, (base, bytes): (u64, u64), count: u32) -> [u8; 128] {
    let rows = match map.rows {
        MapRows::Fixed(rows) => rows,
        MapRows::Counted { per, .. } => u64::from(count) * u64::from(per),
        MapRows::Pages { .. } => bytes / map.row_bytes,
    };
    let map = sail_ptxsim::TensorMap {
        base,
        element: map.element_bytes,
        dims: vec![map.columns, rows],
        strides: vec![map.row_bytes],
        box_dims: map.block.to_vec(),
        swizzle: match map.swizzle {
            0 => Swizzle::None,
            32 => Swizzle::Bytes32,
            64 => Swizzle::Bytes64,
            _ => Swizzle::Bytes128,
        },
    };
    map.encode().unwrap_or_else(|fault| panic!("{fault}"))
}
