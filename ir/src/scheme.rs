//! How a product's weight is stored, and how the cache is. One variant per scheme; its doc draws the
//! bits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::plan::PAGE_POSITIONS;
use crate::target::Target;

/// A weight scheme.
///
/// Every scheme stores a weight as panels of `w` outputs (rows of the checkpoint's `[n, k]` tensor;
/// `w` is the target's `panel_width`), one after the other. Outputs that the last panel lacks are
/// rows of zeros. For CUDA targets a weight is rows instead: output by output, see
/// [`row_bytes`](Self::row_bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// bf16 as in the checkpoint, reordered: pairs along `k` stand together, so that one vector
    /// holds one pair of each output.
    ///
    /// ```text
    /// panel 0: (n0,k0 n0,k1) (n1,k0 n1,k1) … (n[w-1],k0 n[w-1],k1)
    ///          (n0,k2 n0,k3) (n1,k2 n1,k3) …
    /// panel 1: …
    /// ```
    ///
    /// The missing half of an odd `k` is zeros.
    Bf16,
    /// 8 bits a value and a scale for each output; activations are quantized, too: 8 bits, a scale
    /// for each token, when they are read (W8A8).
    ///
    /// A value is `(byte - 128) · scale` with bytes from 1 to 255; quads along `k` stand together,
    /// and the scales, f32, after all of them.
    ///
    /// ```text
    /// panel 0: (n0,k0 n0,k1 n0,k2 n0,k3) (n1,k0 … n1,k3) … (n[w-1],k0 … n[w-1],k3)
    ///          (n0,k4 … n0,k7) …
    ///          scale n0, scale n1, … scale n[w-1]
    /// panel 1: …
    /// ```
    ///
    /// What `k` lacks to a whole quad is bytes of 128.
    Int8,
    /// The bytes of [`Int8`](Self::Int8) with activations that stay bf16 (W8A16): where these must not
    /// be rounded once more. An integer of 8 bits is a bf16 value, so a product is one of bf16 values,
    /// times the output's scale at its end.
    Int8Weight,
    /// 4 bits a value; a scale and a zero point for each output and each group of
    /// [`GROUP`](Self::GROUP) along `k`; activations as with [`Int8`](Self::Int8) (W4A8).
    ///
    /// A value is `(nibble - zero) · scale`. A group is its quads along `k`, the outputs of the first
    /// half of the panel in the low nibbles of the bytes that hold the second half in their high
    /// ones; then one word for each output, the zero point (0 to 15) in its low byte and the scale,
    /// bf16, in its upper half.
    ///
    /// ```text
    /// panel 0: group 0: (n0|n[w/2],k0 … n0|n[w/2],k3) … (n[w/2-1]|n[w-1],k0 … k3)
    ///                   (n0|n[w/2],k4 …
    ///                   word n0, word n1, … word n[w-1]
    ///          group 1: …
    /// panel 1: …
    /// ```
    ///
    /// The last group may be shorter; what it lacks to a whole quad is zero points.
    Int4,
    /// Floats of 8 bits (e4m3: sign, 4 bits of exponent less 7, 3 of fraction, greatest magnitude 448,
    /// no infinities) and a scale for each output, by which its greatest magnitude is 448; activations
    /// likewise with a scale for each token, when they are read.
    ///
    /// Only for CUDA targets from `sm_90` on, see [`row_bytes`](Self::row_bytes): no panels.
    Fp8,
}

impl Scheme {
    pub const ALL: [Self; 5] = [Self::Bf16, Self::Int8, Self::Int8Weight, Self::Int4, Self::Fp8];

    /// Those that every target has.
    pub const EVERYWHERE: [Self; 4] = [Self::Bf16, Self::Int8, Self::Int8Weight, Self::Int4];

    /// Values along `k` that share a scale in [`Int4`](Self::Int4).
    pub const GROUP: u64 = 128;

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int8Weight => "int8-weight",
            Self::Int4 => "int4",
            Self::Fp8 => "fp8",
        }
    }

    /// Are the values those of the checkpoint, so that a row can be read out again?
    #[must_use]
    pub const fn keeps_values(self) -> bool {
        match self {
            Self::Bf16 => true,
            Self::Int8 | Self::Int8Weight | Self::Int4 | Self::Fp8 => false,
        }
    }

    /// Are activations quantized when a product reads them?
    #[must_use]
    pub const fn quantizes_activations(self) -> bool {
        match self {
            Self::Bf16 | Self::Int8Weight => false,
            Self::Int8 | Self::Int4 | Self::Fp8 => true,
        }
    }

    /// Why `target` has no products of the scheme, if it has none.
    #[must_use]
    pub fn missing_on(self, target: &Target) -> Option<&'static str> {
        let lacks = self == Self::Fp8 && !target.has("sm_90a");
        lacks.then_some("it needs a machine that multiplies floats of 8 bits")
    }

    /// Bytes from one row of a weight to the next on a CUDA target, a multiple of 128 so that copies
    /// of any width may start there. What `k` lacks is zeros.
    ///
    /// ```text
    /// bf16          k0 k1 k2 …                   as in the checkpoint
    /// int8          k0 k1 k2 …                   signed bytes, value = byte · scale
    /// int8-weight   (k0 k1 k8 k9) (k2 k3 k10 k11) … (k6 k7 k14 k15), then from k16 on
    /// fp8           k0 k1 k2 …                   e4m3, value = float · scale
    /// int4          k0|k16 k1|k17 … k15|k31, …   low nibble first, then from k32 on
    /// ```
    ///
    /// Behind the rows of all outputs stands what else they need ([`bytes_behind`](Self::bytes_behind)),
    /// 16 outputs after 16: of `int8`, `int8-weight` and `fp8` the scale (f32) of each, of `int4` a word
    /// as it is in a panel for each of the 16 in the first group, then for each in the next.
    #[must_use]
    pub fn row_bytes(self, k: u64) -> u64 {
        let bytes = match self {
            Self::Bf16 => 2 * k,
            Self::Int8 | Self::Int8Weight | Self::Fp8 => k,
            Self::Int4 => k.div_ceil(2),
        };
        bytes.next_multiple_of(128)
    }

    /// Bytes of one output behind the rows of a weight on a CUDA target.
    #[must_use]
    pub fn bytes_behind(self, k: u64) -> u64 {
        match self {
            Self::Bf16 => 0,
            Self::Int8 | Self::Int8Weight | Self::Fp8 => 4,
            Self::Int4 => 4 * k.div_ceil(Self::GROUP),
        }
    }

    /// Bytes of a packed `[n, k]` weight in panels of `panel_width` outputs.
    #[must_use]
    pub fn packed_bytes(self, n: u64, k: u64, panel_width: u64) -> u64 {
        let outputs = n.next_multiple_of(panel_width);
        match self {
            Self::Bf16 => outputs * k.next_multiple_of(2) * 2,
            Self::Int8 | Self::Int8Weight | Self::Fp8 => outputs * (k.next_multiple_of(4) + 4),
            Self::Int4 => outputs * (k.next_multiple_of(4) / 2 + 4 * k.div_ceil(Self::GROUP)),
        }
    }
}

/// How keys and values are kept in the cache.
///
/// A layer's pool is `[page][kv head]` blocks; a block holds keys and values of the `p` =
/// [`PAGE_POSITIONS`](crate::plan::PAGE_POSITIONS) positions of a page, `e'` = `head_dim` rounded up to
/// a multiple of 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheScheme {
    /// As they are computed.
    ///
    /// ```text
    /// keys    [e'/2][p][2]   pairs of values of one position stand together
    /// values  [p/2][e'][2]   pairs of positions of one value stand together
    /// ```
    ///
    /// On a CUDA target, row by row: keys `[p][e']`, then values `[p][e']`.
    #[default]
    Bf16,
    /// 8 bits a value, and a scale for each key and each value of a head: the greatest magnitude is
    /// 127.
    ///
    /// ```text
    /// keys    i8  [e'/4][p][4]   quads of values of one position stand together
    /// values  i8  [p/4][e'][4]   quads of positions of one value stand together
    /// scales  f32 [2][p]         of the keys, of the values
    /// ```
    ///
    /// On a CUDA target keys and values are rows `[p][e']`; the scales stand as above.
    Int8,
}

impl CacheScheme {
    pub const ALL: [Self; 2] = [Self::Bf16, Self::Int8];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of one value.
    #[must_use]
    pub const fn value_bytes(self) -> u64 {
        match self {
            Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Bytes of the keys and values of one page and kv head; `None` when they do not fit `u64`.
    #[must_use]
    pub fn block_bytes(self, head_dim: u32) -> Option<u64> {
        let values = u64::from(head_dim).next_multiple_of(16) * self.value_bytes();
        let scales = match self {
            Self::Bf16 => 0,
            Self::Int8 => 4,
        };
        (values + scales).checked_mul(2 * u64::from(PAGE_POSITIONS))
    }
}

impl fmt::Display for CacheScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CacheScheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|scheme| scheme.name() == text)
            .ok_or_else(|| format!("a cache is kept as `bf16` or `int8`, not as `{text}`"))
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scheme| scheme.name() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|scheme| format!("`{scheme}`")).collect();
            format!("unknown scheme `{text}`; known: {}", known.join(", "))
        })
    }
}
