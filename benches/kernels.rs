//! Kernel families at the sizes of the published models, one thread: `cargo bench -p sail-bench -- NAME`.

use criterion::{Criterion, criterion_group, criterion_main};
use sail_bench::cases::all;

fn bench(criterion: &mut Criterion) {
    for group in all() {
        let mut timed = criterion.benchmark_group(group.name);
        timed.sample_size(group.samples);
        group.cases.iter().for_each(|case| case.time(&mut timed));
        timed.finish();
    }
}

criterion_group!(kernels, bench);
criterion_main!(kernels);
