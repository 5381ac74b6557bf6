//! Small numbers about the machine and about repeated measurements.

use sail_ir::Target;
use sail_ir::plan::Arithmetic;

use crate::device::DeviceError;
use crate::device::probe::{self, ReadProbe};
use crate::trace::Limits;

/// What this machine can do with `threads` threads, for code compiled for `target`.
pub(super) fn limits(target: &Target, threads: usize) -> Result<Limits, DeviceError> {
    Ok(Limits {
        read_bytes: ReadProbe::new(threads)?.measure(),
        operations: probe::operations(target, Arithmetic::Floats, threads),
        byte_operations: probe::operations(target, Arithmetic::Bytes, threads),
    })
}

/// Middle, least and most of some measurements.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(super) struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// # Panics
    ///
    /// When there are no measurements.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (values[0], values[values.len() - 1]);
        Self { median: values[values.len() / 2], min, max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_middle_least_and_most() {
        let spread = Spread::of([4.0, 1.0, 2.0].into_iter());
        assert_eq!(spread, Spread { median: 2.0, min: 1.0, max: 4.0 });
    }
}
