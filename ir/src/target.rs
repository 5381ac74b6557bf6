//! What a compile is for: an instruction set, its limits, and the features a machine must have.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::help::Help;

/// CPU features that generated code may use, by the name Rust's feature test and our command line
/// have. LLVM's name differs for `bmi1` only (`bmi`).
pub const FEATURES: [&str; 18] = [
    "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "avx", "avx2", "fma", "bmi1", "bmi2", "f16c",
    "lzcnt", "movbe", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl",
];

/// Features on top of a level that kernels have special code for.
pub const EXTRA_FEATURES: [&str; 2] = ["avx512vnni", "avx512bf16"];

/// Levels and named CPUs: how many of [`FEATURES`], and which extra ones.
const BASES: [(&str, usize, &[&str]); 5] = [
    ("x86-64-v3", 13, &[]),
    ("x86-64-v4", 18, &[]),
    ("znver4", 18, &["avx512vnni", "avx512bf16"]),
    ("znver5", 18, &["avx512vnni", "avx512bf16"]),
    ("sapphirerapids", 18, &["avx512vnni", "avx512bf16"]),
];

/// CUDA targets: the name, the architecture that code is generated for, what a block may have.
///
/// Sources: CUDA C++ Programming Guide, table of technical specifications per compute capability;
/// data sheets of A100 (`sm_80`) and H200 (`sm_90`).
const GPUS: [(&str, &str, GpuLimits); 2] = [
    (
        "sm_80",
        "sm_80",
        GpuLimits {
            processors: 108,
            shared_bytes: 163 << 10,
            registers: 65_536,
            l2_bytes: 40 << 20,
        },
    ),
    (
        "sm_90",
        "sm_90a",
        GpuLimits {
            processors: 132,
            shared_bytes: 227 << 10,
            registers: 65_536,
            l2_bytes: 50 << 20,
        },
    ),
];

/// What code is for: an x86-64 level or named CPU with `+feature`s on top
/// (`x86-64-v4+avx512vnni+avx512bf16`), or a CUDA compute capability (`sm_90`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// As given on the command line, `host` already replaced.
    pub name: String,
    /// Every feature the code may use, in the order of [`FEATURES`] then [`EXTRA_FEATURES`]; of a
    /// CUDA target the one architecture that runs it.
    pub features: Vec<String>,
}

/// Limits of one multiprocessor and of the chip that kernels of a CUDA target are shaped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuLimits {
    /// Multiprocessors of the chip in mind; code runs on chips with fewer or more.
    pub processors: u32,
    /// Shared memory one thread block can have.
    pub shared_bytes: u32,
    /// 32-bit registers of one multiprocessor.
    pub registers: u32,
    pub l2_bytes: u32,
}

/// Sizes that kernels and packing are built around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// f32 values in one vector register.
    pub lanes: u32,
    /// Vector registers.
    pub registers: u32,
    /// Outputs in one panel of a packed weight: two vectors.
    pub panel_width: u32,
}

impl Target {
    /// Read the command line's spelling. `host` is refused here: only a running machine knows it.
    ///
    /// Refuses unknown levels, CPUs and features.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if let Some((name, architecture, _)) = GPUS.iter().find(|(name, ..)| *name == text) {
            return Ok(Self {
                name: (*name).to_owned(),
                features: vec![(*architecture).to_owned()],
            });
        }
        let mut parts = text.split('+');
        let base = parts.next().unwrap_or_default();
        let (_, count, extra) = BASES.iter().find(|(name, ..)| *name == base).ok_or_else(|| {
            TargetError::Unknown { target: text.to_owned(), part: base.to_owned() }
        })?;
        let mut extra: Vec<&str> = extra.to_vec();
        for part in parts {
            if !EXTRA_FEATURES.contains(&part) {
                return Err(TargetError::Unknown {
                    target: text.to_owned(),
                    part: part.to_owned(),
                });
            }
            extra.push(part);
        }
        if !extra.is_empty() && *count < FEATURES.len() {
            return Err(TargetError::TooLow {
                target: text.to_owned(),
                feature: extra[0].to_owned(),
            });
        }
        let features = FEATURES[..*count]
            .iter()
            .chain(EXTRA_FEATURES.iter().filter(|name| extra.contains(name)))
            .map(|name| (*name).to_owned())
            .collect();
        Ok(Self { name: text.to_owned(), features })
    }

    /// The best target for a machine on which `has` answers for a feature; `None` below `v3`.
    pub fn of_machine(has: impl Fn(&str) -> bool) -> Option<Self> {
        let all = |names: &[&str]| names.iter().all(|name| has(name));
        if !all(&FEATURES[..13]) {
            return None;
        }
        let mut name = "x86-64-v3".to_owned();
        if all(&FEATURES) {
            "x86-64-v4".clone_into(&mut name);
            for extra in EXTRA_FEATURES.iter().filter(|extra| has(extra)) {
                name.push('+');
                name.push_str(extra);
            }
        }
        Self::parse(&name).ok()
    }

    #[must_use]
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|name| name == feature)
    }

    /// Limits of a CUDA target; `None` of an x86-64 one.
    #[must_use]
    pub fn gpu(&self) -> Option<GpuLimits> {
        GPUS.iter().find(|(name, ..)| *name == self.name).map(|(.., limits)| *limits)
    }

    /// The architecture PTX is written for, as `.target` has it; `None` of an x86-64 target.
    #[must_use]
    pub fn ptx_architecture(&self) -> Option<&str> {
        self.gpu().map(|_| self.features[0].as_str())
    }

    /// Limits of an x86-64 target; a kernel of a CUDA target has no use for them.
    #[must_use]
    pub fn limits(&self) -> Limits {
        if self.has("avx512f") {
            Limits { lanes: 16, registers: 32, panel_width: 32 }
        } else {
            Limits { lanes: 8, registers: 16, panel_width: 16 }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Why a `--target` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetError {
    Unknown { target: String, part: String },
    TooLow { target: String, feature: String },
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { target, part } => {
                write!(
                    f,
                    "target `{target}` is not known\n  because `{part}` is no level, CPU or feature of ours"
                )
            }
            Self::TooLow { target, feature } => write!(
                f,
                "target `{target}` does not make sense\n  because `{feature}` needs AVX-512, which only `x86-64-v4` and above have"
            ),
        }
    }
}

impl std::error::Error for TargetError {}

impl Help for TargetError {
    fn code(&self) -> &'static str {
        "SC0301"
    }

    fn hint(&self) -> Option<String> {
        let bases = BASES.iter().map(|(name, ..)| name);
        let bases: Vec<_> = bases.chain(GPUS.iter().map(|(name, ..)| name)).collect();
        let bases: Vec<_> = bases.iter().map(|name| format!("`{name}`")).collect();
        let extra: Vec<_> = EXTRA_FEATURES.iter().map(|name| format!("`+{name}`")).collect();
        Some(format!(
            "targets are `host`, {}, with {} on top of `x86-64-v4`",
            bases.join(", "),
            extra.join(", ")
        ))
    }

    fn exit_code(&self) -> u8 {
        2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_cpu_has_the_features_of_its_level_and_its_own() {
        let target = Target::parse("znver4").unwrap();
        assert!(target.has("avx512vl") && target.has("avx512bf16"));
        assert_eq!(
            target.features,
            Target::parse("x86-64-v4+avx512bf16+avx512vnni").unwrap().features
        );
    }

    #[test]
    fn a_cuda_target_has_the_limits_of_its_chip_and_takes_no_features() {
        let target = Target::parse("sm_90").unwrap();
        assert_eq!(target.ptx_architecture(), Some("sm_90a"));
        assert_eq!(target.gpu().unwrap().shared_bytes, 232_448);
        assert_eq!(Target::parse("x86-64-v4").unwrap().gpu(), None);
        assert!(matches!(Target::parse("sm_90+avx512bf16"), Err(TargetError::Unknown { .. })));
        assert!(matches!(Target::parse("sm_70"), Err(TargetError::Unknown { .. })));
    }

    #[test]
    fn refuses_unknown_words_and_features_without_their_level() {
        assert!(matches!(Target::parse("x86-64-v9"), Err(TargetError::Unknown { .. })));
        assert!(matches!(Target::parse("x86-64-v4+amx"), Err(TargetError::Unknown { .. })));
        assert!(matches!(Target::parse("x86-64-v3+avx512bf16"), Err(TargetError::TooLow { .. })));
    }

    #[test]
    fn a_machine_gets_the_highest_level_it_has_all_features_of() {
        assert_eq!(Target::of_machine(|_| true).unwrap().name, "x86-64-v4+avx512vnni+avx512bf16");
        assert_eq!(Target::of_machine(|name| name != "avx512dq").unwrap().name, "x86-64-v3");
        assert_eq!(Target::of_machine(|name| name != "fma"), None);
    }
}
