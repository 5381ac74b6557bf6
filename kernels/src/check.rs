//! Hold a kernel against its twin, within the tolerance of its row; for the tests of the families.

use sail_ir::target::Target;

use crate::emit::run::{Counts, Loaded, bf16_bytes, bf16_values, poisoned, random};
use crate::kernel::Kernel;
use crate::table::template;

/// Random bf16 values as bytes, and as the numbers they are.
pub fn tensor(seed: u64, count: usize, scale: f32) -> (Vec<u8>, Vec<f64>) {
    let bytes = bf16_bytes(&random(seed, count).iter().map(|v| v * scale).collect::<Vec<_>>());
    let values = bf16_values(&bytes).into_iter().map(f64::from).collect();
    (bytes, values)
}

/// Run `kernel` over `inputs` in one call and in three, and hold it against `want`.
pub fn check(kernel: &dyn Kernel, target: &Target, counts: Counts, inputs: &[&[u8]], want: &[f64]) {
    let loaded = Loaded::new(kernel, target);
    let mut first: Option<Vec<u8>> = None;
    for parts in [1, 3] {
        let mut inputs: Vec<Vec<u8>> = inputs.iter().map(|bytes| bytes.to_vec()).collect();
        inputs.push(poisoned(2 * want.len()));
        let mut buffers: Vec<&mut [u8]> = inputs.iter_mut().map(Vec::as_mut_slice).collect();
        loaded.run_split(counts, &mut buffers, parts);
        let y = inputs.pop().unwrap();
        let row = template(kernel.family()).unwrap();
        let beyond = row.tolerance.first_beyond(&bf16_values(&y), want);
        assert_eq!(beyond, None, "{target} {} (index, got, want)", kernel.symbol());
        assert_eq!(*first.get_or_insert_with(|| y.clone()), y, "{target}: another split");
    }
}
