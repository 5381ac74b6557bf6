//! Every kernel template against its scalar twin, over one list of cases.

mod attention;
mod check;
mod configs;
mod elementwise;
mod expected;
mod experts;
mod norm;
mod products;
mod products_gpu;
mod recorder;
mod rows;
mod sample;
mod simulated;
mod tile_attention;
mod vision;

pub use recorder::record_into;
use sail_tests::harness::Test;

pub fn tests() -> Vec<Test> {
    [
        rows::tests(),
        elementwise::tests(),
        norm::tests(),
        products::tests(),
        products_gpu::tests(),
        vision::tests(),
        attention::tests(),
        tile_attention::tests(),
        experts::tests(),
        sample::tests(),
        configs::tests(),
        expected::tests(),
    ]
    .into_iter()
    .flatten()
    .map(Test::independent)
    .collect()
}
