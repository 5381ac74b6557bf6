//! Small numbers about the machine and about repeated measurements.

use sail_ir::plan::Arithmetic;

use crate::Program;
use crate::device::probe::{self, ReadProbe};
use crate::device::{DeviceError, host};
use crate::trace::Limits;

/// Measures what the device of a program can do at best.
pub(super) struct Probe<'p> {
    program: &'p Program,
    /// This machine's own; absent where the device tells by itself.
    read: Option<ReadProbe>,
    /// Threads that compute: one where the device is not this machine's processor.
    pub threads: usize,
}

impl<'p> Probe<'p> {
    /// `threads` as asked for; all processors by default.
    ///
    /// Refuses when there is no memory to read.
    pub fn new(program: &'p Program, threads: Option<usize>) -> Result<Self, DeviceError> {
        let tells = program.engine().limits().transpose()?.is_some();
        let threads = if tells { 1 } else { threads.unwrap_or_else(host::processors) };
        let read = (!tells).then(|| ReadProbe::new(threads)).transpose()?;
        Ok(Self { program, read, threads })
    }

    /// Of these seconds: neighbours on a shared machine change it.
    ///
    /// Refuses what the device refuses.
    pub fn measure(&self) -> Result<Limits, DeviceError> {
        let target = &self.program.manifest().target;
        match &self.read {
            Some(read) => Ok(Limits {
                read_bytes: read.measure(),
                operations: probe::operations(target, Arithmetic::Floats, self.threads),
                byte_operations: probe::operations(target, Arithmetic::Bytes, self.threads),
            }),
            None => {
                let told = self.program.engine().limits();
                told.expect("broken invariant `device.tells`: it did before")
            }
        }
    }
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
