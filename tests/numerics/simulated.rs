//! Kernels of CUDA targets, executed by the simulator of PTX.

use sail_ir::plan::{Count, TensorMap};
use sail_ir::target::Target;
use sail_kernels::Kernel;
use sail_kernels::emit::run::{Counts, poisoned};
use sail_kernels::kernel::Before;
use sail_kernels::ptx::{launch, ptx};
use sail_ptxsim::{Device, Launch, Module, Options};

use super::check::Buffers;
use super::recorder::{self, Launched};

/// Counted rows by which a launch may be larger than its call: a class's bound is.
const BEYOND: u32 = 5;

/// Blocks of a launch in which blocks take several items.
const FEW_BLOCKS: u32 = 3;

/// The CUDA targets.
pub fn gpu_targets() -> [Target; 2] {
    ["sm_80", "sm_90"].map(|name| Target::parse(name).expect("a target of ours"))
}

/// What the kernel for the problem of `kernel` makes of `buffers` on every CUDA target; nothing where
/// there is none.
///
/// # Panics
///
/// When a kernel breaks a rule that the simulator knows, when a buffer that it only reads has
/// changed, when it leaves a counter that is not 0, or when the bytes depend on how far the launch goes
/// beyond the call.
pub fn run_on_gpus(
    kernel: &dyn Kernel,
    counts: Counts,
    buffers: &Buffers,
) -> Vec<(Target, Buffers)> {
    let runs = gpu_targets().into_iter().filter_map(|target| {
        let most = counted(kernel, counts) + BEYOND;
        let kernel = kernel.on_gpu_for(&target, most)?;
        let after = run_simulated(kernel.as_ref(), &target, counts, buffers);
        Some((target, after))
    });
    runs.collect()
}

/// What `kernel`, which is one of the CUDA `target`, makes of `buffers`; panics as [`run_on_gpus`].
pub fn run_simulated(
    kernel: &dyn Kernel,
    target: &Target,
    counts: Counts,
    buffers: &Buffers,
) -> Buffers {
    let text = ptx(&[kernel], target, 1).unwrap_or_else(|error| panic!("{error}")).text;
    let module = Module::parse(&text).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
    let counted = counted(kernel, counts);
    let block = kernel.thread_block().expect("a kernel of a CUDA target");
    let beyond_blocks = match block.most_blocks {
        0 => kernel.grid().items(counted + BEYOND),
        most => kernel.grid().items(counted + BEYOND).min(most.min(FEW_BLOCKS).into()),
    };
    let [after, beyond] = [kernel.grid().items(counted), beyond_blocks]
        .map(|blocks| launched(kernel, &module, (counts, blocks), buffers));
    let symbol = kernel.symbol();
    assert!(after == beyond, "`{symbol}`: other bytes in a launch for more rows than there are");
    for (at, (before, after)) in buffers.iter().zip(&after).enumerate() {
        let written = kernel.writes().contains(&(at as u32));
        assert!(written || before == after, "`{symbol}`: argument {at} was written");
    }
    recorder::keep(&Launched {
        kernel,
        target,
        cuda: &launch(kernel).expect("a kernel of a CUDA target"),
        text: &text,
        blocks: beyond_blocks,
        control: [counts.tokens, counts.images, counts.outputs, counts.pages_per_slot],
        counted,
        before: buffers,
        after: &after,
        scratch: scratch_bytes(kernel, counts),
    });
    after
}

/// As [`run_simulated`], after what must run before `kernel`: its first buffer is made by that.
pub fn run_after_before(
    kernel: &dyn Kernel,
    target: &Target,
    counts: Counts,
    buffers: &Buffers,
) -> Buffers {
    let mut buffers = buffers.clone();
    if let Some(Before { kernel: before, takes, row_bytes }) = kernel.before() {
        let bytes = before.grid().rows(counted(before.as_ref(), counts)) * row_bytes;
        let mut given: Buffers = takes.iter().map(|at| buffers[*at as usize].clone()).collect();
        given.push(poisoned(bytes as usize));
        let after = run_simulated(before.as_ref(), target, counts, &given);
        buffers[0] = after.last().expect("what it makes").clone();
    }
    run_simulated(kernel, target, counts, &buffers)
}

fn launched(
    kernel: &dyn Kernel,
    module: &Module,
    (counts, blocks): (Counts, u64),
    buffers: &Buffers,
) -> Buffers {
    let mut device = Device::new();
    let holds = "the memory was just allocated";
    let addresses: Vec<u64> = buffers
        .iter()
        .map(|bytes| {
            let address = device.alloc(bytes.len() as u64);
            device.write(address, bytes).expect(holds);
            if *bytes == poisoned(bytes.len()) {
                // Nobody may read what was poisoned.
                device.forget(address, bytes.len() as u64).expect(holds);
            }
            address
        })
        .collect();
    let scratch = scratch_bytes(kernel, counts);
    // Never written before, as what stands in an arena is nothing to rely on.
    let places = scratch.map(|bytes| bytes.map(|bytes| device.alloc(bytes)));
    let zeros = vec![0; scratch.map_or(0, |[_, counters]| counters as usize)];
    if let Some([_, counters]) = places {
        device.write(counters, &zeros).expect(holds);
    }
    let words = [counts.tokens, counts.images, counts.outputs, counts.pages_per_slot];
    let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let control = device.alloc(words.len() as u64);
    device.write(control, &words).expect(holds);
    let mut params: Vec<u8> = addresses
        .iter()
        .chain(places.iter().flatten())
        .chain([&control])
        .flat_map(|address| address.to_le_bytes())
        .collect();

    let how = launch(kernel).expect("a kernel of a CUDA target");
    for map in &how.tensor_maps {
        let at = map.argument as usize;
        let matrix = (addresses[at], buffers[at].len() as u64);
        params.resize(params.len().next_multiple_of(64), 0);
        params.extend(encoded(map, matrix, counted(kernel, counts)));
    }
    let launch = Launch {
        grid: [u32::try_from(blocks).expect("a grid of blocks"), 1, 1],
        block: [how.threads, 1, 1],
        dynamic_shared: how.shared_bytes,
        params: &params,
        options: Options::default(),
    };
    if blocks > 0 {
        module.launch(&device, &how.entry, &launch).unwrap_or_else(|fault| panic!("{fault}"));
    }
    if let Some([_, counters]) = places {
        let left = device.read(counters, zeros.len() as u64).expect(holds);
        assert!(left == zeros, "`{}` counts on", kernel.symbol());
    }
    addresses
        .iter()
        .zip(buffers)
        .map(|(address, bytes)| device.read(*address, bytes.len() as u64).expect(holds))
        .collect()
}

/// Bytes of what `kernel` works in and of its counters, for a call of so many rows.
fn scratch_bytes(kernel: &dyn Kernel, counts: Counts) -> Option<[u64; 2]> {
    let rows = kernel.grid().rows(counted(kernel, counts));
    let scratch = kernel.scratch()?;
    Some([scratch.row_bytes * rows, 4 * u64::from(scratch.row_counters) * rows])
}

/// A map of the matrix of `bytes` at `base`, for `count` counted rows.
fn encoded(map: &TensorMap, (base, bytes): (u64, u64), count: u32) -> [u8; 128] {
    let dims = [map.columns, map.rows_of(count, bytes)];
    let base = (base, map.element_bytes);
    let map = sail_ptxsim::TensorMap::matrix(base, dims, map.row_bytes, map.block, map.swizzle);
    map.encode().unwrap_or_else(|fault| panic!("{fault}"))
}

/// What the kernel's grid counts.
fn counted(kernel: &dyn Kernel, counts: Counts) -> u32 {
    match kernel.grid().count {
        Count::Tokens => counts.tokens,
        Count::Images => counts.images,
        Count::Outputs => counts.outputs,
    }
}
