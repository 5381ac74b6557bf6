//! What a kernel cannot do without: bytes, operations, and the least time they need.

use sail_ir::plan::Cost;

/// Measured limits of a machine, for all threads that take part together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MachineLimits {
    /// Bytes read from memory in a second.
    pub bytes_per_second: f64,
    /// bf16 multiplications and additions in a second, counted one each.
    pub operations_per_second: f64,
    /// The same, of 8-bit integers.
    pub byte_operations_per_second: f64,
}

/// What a kernel needs for a number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    pub bytes: u64,
    /// In floats.
    pub operations: u64,
    /// In 8-bit integers.
    pub byte_operations: u64,
}

impl Estimate {
    /// Counts each input once and each output once, as a perfect cache would; `positions` is the
    /// number of cached positions that every row attends to, the same ones for all.
    #[must_use]
    pub fn of(cost: &Cost, rows: u64, positions: u64) -> Self {
        let [operations, byte_operations] = cost.operations_by_kind(rows, rows * positions);
        Self { bytes: cost.bytes(rows, positions), operations, byte_operations }
    }

    /// Least seconds on a machine with these limits: the longer of moving and computing.
    #[must_use]
    pub fn floor(&self, limits: &MachineLimits) -> f64 {
        let moving = self.bytes as f64 / limits.bytes_per_second;
        let computing = self.operations as f64 / limits.operations_per_second
            + self.byte_operations as f64 / limits.byte_operations_per_second;
        moving.max(computing)
    }
}

#[cfg(test)]
mod tests {
    use sail_ir::plan::Arithmetic;

    use super::*;

    #[test]
    fn one_row_is_bound_by_the_weights_and_many_by_arithmetic() {
        let cost = Cost { weight_bytes: 1000, row_operations: 1000, ..Cost::default() };
        let limits = MachineLimits {
            bytes_per_second: 100.0,
            operations_per_second: 1000.0,
            byte_operations_per_second: 2000.0,
        };
        let bytes = Cost { arithmetic: Arithmetic::Bytes, ..cost };
        assert_eq!(Estimate::of(&bytes, 64, 0).floor(&limits), 32.0);
        assert_eq!(Estimate::of(&cost, 1, 0).floor(&limits), 10.0);
        assert_eq!(Estimate::of(&cost, 64, 0).floor(&limits), 64.0);
    }
}
