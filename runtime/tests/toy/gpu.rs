//! The toy artifact for a GPU: the same plan, its kernels as text.

use std::path::{Path, PathBuf};

use sail_ir::artifact::{CudaCode, Manifest};
use sail_ir::id::{BufferId, IdVec, KernelId, StepId, WeightId};
use sail_ir::plan::{Affine, Buffer, Count, Cuda, Place, Plan, Weight};
use sail_ir::{DType, Target};

use crate::toy::{WEIGHT_BYTES, manifest, plan, write_file};

/// `kernels.c` compiled for a GPU, as text.
pub const PTX: &str = include_str!("kernels.ptx");

/// Write the toy for `sm_80` to `folder/NAME.sail`, with this text for its kernels, and machine code
/// unless that is empty.
pub fn write_gpu(folder: &Path, name: &str, ptx: &str, cubin: &[u8]) -> PathBuf {
    let sections = [ptx.as_bytes(), cubin, &[0x5a; WEIGHT_BYTES]];
    write_file(&folder.join(format!("{name}.sail")), sections, gpu_manifest(plan()))
}

/// The same with blocks that take that many bytes of shared memory.
pub fn write_roomy(folder: &Path, name: &str, shared_bytes: u32) -> PathBuf {
    let mut manifest = gpu_manifest(plan());
    let cuda = manifest.plan.kernels[KernelId(0)].cuda.as_mut();
    cuda.expect("it is for a GPU").shared_bytes = shared_bytes;
    let sections = [PTX.as_bytes(), &[], &[0x5a; WEIGHT_BYTES]];
    write_file(&folder.join(format!("{name}.sail")), sections, manifest)
}

/// The same where every id counts as much more as all of `weights` together, which stand at the
/// ends of 8 MiB each.
pub fn write_heavy(folder: &Path, name: &str, weights: [u32; 3]) -> PathBuf {
    const EACH: usize = 8 << 20;
    let mut bytes = vec![0; 3 * EACH];
    let mut plan = plan();
    plan.weights = IdVec::new();
    for (index, weight) in weights.into_iter().enumerate() {
        let at = (index + 1) * EACH - 256;
        bytes[at..at + 4].copy_from_slice(&weight.to_le_bytes());
        plan.weights.push(Weight {
            paths: Vec::new(),
            shard: [0, 1],
            layout: "a word".to_owned(),
            offset: at as u64,
            bytes: 256,
        });
    }
    let weigh = KernelId(plan.kernels.len() as u32);
    let mut kernel = plan.kernels[KernelId(0)].clone();
    "weigh".clone_into(&mut kernel.family);
    kernel.arguments = 5;
    kernel.writes = vec![4];
    plan.kernels.push(kernel);
    for function in plan.functions.iter_mut().filter(|function| function.count == Count::Tokens) {
        let words = (0..3).map(|index| {
            function.buffers.push(Buffer {
                name: format!("word {index}"),
                place: Place::Weight { weight: WeightId(index) },
                dtype: DType::I32,
                bytes: Affine { per_row: 0, fixed: 4 },
                row_dims: vec![1],
                count: None,
            })
        });
        let words: Vec<BufferId> = words.collect();
        let step = &mut function.steps[StepId(0)];
        step.kernel = weigh;
        step.arguments.splice(1..1, words);
    }
    let sections = [PTX.as_bytes(), &[], bytes.as_slice()];
    write_file(&folder.join(format!("{name}.sail")), sections, gpu_manifest(plan))
}

fn gpu_manifest(mut plan: Plan) -> Manifest {
    for index in 0..plan.kernels.len() {
        let kernel = &mut plan.kernels[KernelId(index as u32)];
        let entry = kernel.family.clone();
        kernel.offset = 0;
        kernel.cuda = Some(Cuda {
            entry,
            threads: 1,
            shared_bytes: 0,
            cluster: 1,
            most_blocks: 0,
            tensor_maps: Vec::new(),
        });
    }
    let mut manifest = manifest(plan);
    manifest.target = Target::parse("sm_80").unwrap();
    manifest.cuda = Some(CudaCode {
        ptx_version: "8.0".to_owned(),
        architecture: "sm_80".to_owned(),
        assembler: None,
        usage: Vec::new(),
    });
    manifest
}
