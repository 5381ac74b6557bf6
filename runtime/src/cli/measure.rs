//! Small numbers about the machine and about repeated measurements.

use sail_ir::Target;

use crate::device::DeviceError;
use crate::device::probe::{self, ReadProbe};
use crate::trace::Limits;

/// What this machine can do with `threads` threads, for code compiled for `target`.
pub(super) fn limits(target: &Target, threads: usize) -> Result<Limits, DeviceError> {
    Ok(Limits {
        read_bytes: ReadProbe::new(threads)?.measure(),
        operations: probe::operations(target, threads),
    })
}
