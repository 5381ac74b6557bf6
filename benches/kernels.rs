//! Kernel families at the sizes of the published models, one thread: `cargo bench -p sail-bench -- NAME`.

#[path = "kernels/attention.rs"]
mod attention;
#[path = "kernels/experts.rs"]
mod experts;
#[path = "kernels/products.rs"]
mod products;
#[path = "kernels/rows.rs"]
mod rows;

use criterion::{criterion_group, criterion_main};

criterion_group!(kernels, attention::bench, experts::bench, products::bench, rows::bench);
criterion_main!(kernels);
