//! Times kernels with criterion and gives each the bytes or operations it cannot do without.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Throughput};
use sail_ir::plan::Count;
use sail_kernels::Kernel;
use sail_kernels::cost::Estimate;
use sail_kernels::emit::run::{Counts, Prepared, bf16_bytes, host, random};

/// Above this many operations a byte, a kernel is bound by arithmetic on every machine at hand.
const ARITHMETIC: u64 = 16;

/// Time `kernel` with one thread on this machine's own target, over `buffers` in the order of its
/// arguments; `positions` is the mean number of cached positions a row attends to. All rows are of
/// one slot, so that a perfect cache reads these once.
///
/// Criterion's throughput is that of the kernel's own estimate: bytes a second, or operations a
/// second where there are many for each byte.
///
/// # Panics
///
/// On a machine below `x86-64-v3`.
pub fn time(
    group: &mut BenchmarkGroup<'_, WallTime>,
    kernel: &dyn Kernel,
    counts: Counts,
    positions: u64,
    buffers: &[Vec<u8>],
) {
    let target = host().expect("kernels need at least x86-64-v3");
    let rows = kernel.grid().rows(match kernel.grid().count {
        Count::Tokens => counts.tokens,
        Count::Images => counts.images,
        Count::Outputs => counts.outputs,
    });
    let cost = kernel.cost();
    let operations = Estimate::of(&cost, rows, positions).operations;
    let bytes = Estimate::of(&cost, rows, 0).bytes + cost.position_bytes * positions;
    group.throughput(if operations > ARITHMETIC * bytes {
        Throughput::Elements(operations)
    } else {
        Throughput::BytesDecimal(bytes)
    });
    let mut prepared = Prepared::new(kernel, &target, counts, buffers);
    let name = format!("{} rows={rows} positions={positions}", kernel.symbol());
    group.bench_function(name, |bencher| bencher.iter(|| prepared.run()));
}

/// Random bf16 values.
#[must_use]
pub fn drawn(seed: u64, count: u32) -> Vec<u8> {
    bf16_bytes(&random(seed, count as usize))
}

/// Counts of a call over `tokens` rows.
#[must_use]
pub fn tokens(tokens: u32) -> Counts {
    Counts { tokens, ..Counts::default() }
}

/// Counts of a call over `images` image tiles.
#[must_use]
pub fn images(images: u32) -> Counts {
    Counts { images, ..Counts::default() }
}
