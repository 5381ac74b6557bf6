//! Element types of values and of stored weights.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What one element of a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// 8 exponent bits, 7 mantissa bits: storage of weights and activations.
    Bf16,
    /// Statistics, accumulators, tables that must not be rounded.
    F32,
    /// Indices: token ids, slots, positions, experts.
    I32,
    /// Packed or quantized bytes.
    I8,
}

impl DType {
    pub const ALL: [Self; 4] = [Self::Bf16, Self::F32, Self::I32, Self::I8];

    /// Bytes of one element.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::I8 => 1,
        }
    }

    /// MLIR's spelling.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::I32 => "i32",
            Self::I8 => "i8",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|dtype| dtype.name() == text)
            .ok_or_else(|| format!("unknown element type `{text}`"))
    }
}
