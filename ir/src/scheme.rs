//! How a product's weight is stored. One variant per scheme; its doc draws the bits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A weight scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// bf16 as in the checkpoint, reordered into panels.
    ///
    /// A panel holds `w` outputs (rows of the checkpoint's `[n, k]` tensor; `w` is the target's
    /// `panel_width`). Inside, pairs along `k` stand together, so that one
    /// vector holds one pair of each output:
    ///
    /// ```text
    /// panel 0: (n0,k0 n0,k1) (n1,k0 n1,k1) … (n[w-1],k0 n[w-1],k1)
    ///          (n0,k2 n0,k3) (n1,k2 n1,k3) …
    /// panel 1: …
    /// ```
    ///
    /// Missing outputs of the last panel and the missing half of an odd `k` are zeros.
    Bf16,
}

impl Scheme {
    pub const ALL: [Self; 1] = [Self::Bf16];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
        }
    }

    /// Are the values those of the checkpoint, so that a row can be read out again?
    #[must_use]
    pub const fn keeps_values(self) -> bool {
        match self {
            Self::Bf16 => true,
        }
    }

    /// Bytes of a packed `[n, k]` weight in panels of `panel_width` outputs.
    #[must_use]
    pub fn packed_bytes(self, n: u64, k: u64, panel_width: u64) -> u64 {
        match self {
            Self::Bf16 => n.next_multiple_of(panel_width) * k.next_multiple_of(2) * 2,
        }
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
