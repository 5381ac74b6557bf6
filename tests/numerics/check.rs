//! Runs a kernel on every target of this machine and holds what it gives against its twin.

use half::bf16;
use sail_ir::target::Target;
use sail_kernels::Kernel;
use sail_kernels::emit::run::{Counts, Loaded, bf16_bytes, bf16_values, random, targets_here};
use sail_kernels::table::template;

use super::recorder;
use super::simulated::run_on_gpus;

/// Into how many calls the work items are cut; the bytes must be the same for each.
const PARTS: [u64; 3] = [1, 2, 5];

/// Buffers of one call, in the order of the kernel's arguments; those it writes come poisoned, or
/// with what stood there before.
pub type Buffers = Vec<Vec<u8>>;

/// What `kernel` makes of `buffers` on every target of this machine, and the kernel for its problem on
/// every CUDA target.
///
/// # Panics
///
/// As [`run_here`] and [`run_on_gpus`].
pub fn run(kernel: &dyn Kernel, counts: Counts, buffers: &Buffers) -> Vec<(Target, Buffers)> {
    let mut runs = run_here(kernel, counts, buffers);
    runs.extend(run_on_gpus(kernel, counts, buffers));
    runs
}

/// What `kernel` makes of `buffers` on every target of this machine.
///
/// # Panics
///
/// When the bytes depend on how the work items are cut into calls, or when a buffer that the kernel
/// only reads has changed.
pub fn run_here(kernel: &dyn Kernel, counts: Counts, buffers: &Buffers) -> Vec<(Target, Buffers)> {
    let runs = targets_here().into_iter().map(|target| {
        let after = run_loaded(kernel, &Loaded::new(kernel, &target), counts, buffers);
        (target, after)
    });
    runs.collect()
}

/// What `kernel`, compiled as `loaded`, makes of `buffers`; panics as [`run`] does.
pub fn run_loaded(
    kernel: &dyn Kernel,
    loaded: &Loaded,
    counts: Counts,
    buffers: &Buffers,
) -> Buffers {
    let mut first: Option<Buffers> = None;
    for parts in PARTS {
        let mut after = buffers.clone();
        let mut slices: Vec<&mut [u8]> = after.iter_mut().map(Vec::as_mut_slice).collect();
        loaded.run_split(counts, &mut slices, parts);
        let first = first.get_or_insert_with(|| after.clone());
        assert!(*first == after, "`{}`: other bytes in {parts} calls than in one", kernel.symbol());
    }
    let after = first.expect("at least one run");
    for (at, (before, after)) in buffers.iter().zip(&after).enumerate() {
        let written = kernel.writes().contains(&(at as u32));
        assert!(written || before == after, "`{}`: argument {at} was written", kernel.symbol());
    }
    after
}

/// # Panics
///
/// When a bf16 value in `got` is farther from `want` than the tolerance in the row of `kernel`.
pub fn close(kernel: &dyn Kernel, target: &Target, got: &[u8], want: &[f64]) {
    let row = template(kernel.family()).expect("every template has a row");
    recorder::twin(target, got, want, &row.tolerance);
    close_values(kernel, target, &bf16_values(got), want);
}

/// As [`close`], of values that are no bf16.
pub fn close_values(kernel: &dyn Kernel, target: &Target, got: &[f32], want: &[f64]) {
    let row = template(kernel.family()).expect("every template has a row");
    let beyond = row.tolerance.first_beyond(got, want);
    assert_eq!(beyond, None, "{target}, `{}`: (index, got, want)", kernel.symbol());
}

/// `count` bf16 numbers in -1 .. 1 from a seed: the bytes, and the values for the twin.
pub fn drawn(seed: u64, count: usize) -> (Vec<u8>, Vec<f64>) {
    scaled(seed, count, 1.0)
}

/// As [`drawn`], in `-scale .. scale`.
pub fn scaled(seed: u64, count: usize, scale: f32) -> (Vec<u8>, Vec<f64>) {
    let values: Vec<f32> = random(seed, count).iter().map(|v| v * scale).collect();
    let bytes = bf16_bytes(&values);
    let values = bf16_values(&bytes).into_iter().map(f64::from).collect();
    (bytes, values)
}

/// The bytes of values that are bf16 already.
pub fn bytes_of(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|v| bf16::from_f64(*v).to_le_bytes()).collect()
}

/// Counts of a call over `tokens` rows.
pub fn tokens(count: usize) -> Counts {
    Counts { tokens: count as u32, ..Counts::default() }
}

/// Counts of a call over `images` image tiles.
pub fn images(count: usize) -> Counts {
    Counts { images: count as u32, ..Counts::default() }
}
