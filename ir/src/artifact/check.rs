//! May this machine run this artifact?

use std::fmt;

use super::Manifest;
use crate::help::Help;
use crate::target::{EXTRA_FEATURES, FEATURES, Target};

/// What a machine can do, in the words of [`Target`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// CPU features it has, of those a target may ask for.
    pub features: Vec<&'static str>,
}

impl Machine {
    /// The machine this runs on.
    #[must_use]
    pub fn this() -> Self {
        let known = FEATURES.iter().chain(&EXTRA_FEATURES).copied();
        Self { features: known.filter(|feature| detected(feature)).collect() }
    }

    #[must_use]
    pub fn has(&self, feature: &str) -> bool {
        self.features.contains(&feature)
    }

    /// The best target that runs here: what `--target host` means. `None` below `x86-64-v3`.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        Target::of_machine(|feature| self.has(feature))
    }
}

/// Refuse what cannot run on `machine`, naming every CPU feature it lacks.
///
/// The manifest is taken apart without `..`: a new field does not compile until someone decides
/// here whether a difference matters, and says why if it does not.
pub fn check(manifest: &Manifest, machine: &Machine) -> Result<(), Incompatible> {
    let Manifest {
        target,
        scheme: _,     // decoding is compiled into the kernels; any scheme loads
        model: _,      // informative
        tiling: _,     // arithmetic of the host, the same on every machine
        prompt: _,     // texts
        tokens: _,     // numbers of texts
        generation: _, // defaults that a request may change
        built_with: _, // informative
        options: _,    // informative
        quality: _,    // informative
        cuda: _,       // what the target's architecture runs
        plan: _,       // verified on its own when the file is opened
        sections: _,   // checked on their own when the file is opened
    } = manifest;
    let Target { name, features } = target;

    let missing: Vec<String> =
        features.iter().filter(|feature| !machine.has(feature)).cloned().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let ours = machine.target().map(|target| target.name);
    Err(Incompatible { target: name.clone(), gpu: target.gpu().is_some(), missing, ours })
}

/// The artifact's code would meet instructions this machine does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incompatible {
    /// What the artifact was compiled for.
    pub target: String,
    /// Whether that is a CUDA target.
    pub gpu: bool,
    /// CPU features, or the architecture of a GPU, that are not there.
    pub missing: Vec<String>,
    /// The best target of this machine, if there is one.
    pub ours: Option<String>,
}

impl fmt::Display for Incompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.gpu {
            return write!(
                f,
                "this artifact is for `{}`, which this machine cannot run\n  because it has no CUDA device for `{}`",
                self.target,
                self.missing.join("`, `")
            );
        }
        let missing: Vec<String> = self.missing.iter().map(|name| format!("`{name}`")).collect();
        write!(
            f,
            "this artifact is for `{}`, which this machine cannot run\n  because its CPU lacks {}",
            self.target,
            missing.join(", ")
        )
    }
}

impl std::error::Error for Incompatible {}

impl Help for Incompatible {
    fn code(&self) -> &'static str {
        if self.gpu { "SC0412" } else { "SC0410" }
    }

    fn hint(&self) -> Option<String> {
        self.ours.as_ref().map(|ours| {
            format!(
                "compile again with `--target {ours}`; the checkpoint is needed, the artifact cannot be converted"
            )
        })
    }

    fn exit_code(&self) -> u8 {
        4
    }
}

#[cfg(target_arch = "x86_64")]
fn detected(feature: &str) -> bool {
    macro_rules! any_of {
        ($($name:tt),* $(,)?) => {
            match feature {
                $($name => std::arch::is_x86_feature_detected!($name),)*
                _ => false,
            }
        };
    }
    any_of!(
        "sse3",
        "ssse3",
        "sse4.1",
        "sse4.2",
        "popcnt",
        "avx",
        "avx2",
        "fma",
        "bmi1",
        "bmi2",
        "f16c",
        "lzcnt",
        "movbe",
        "avx512f",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512vl",
        "avx512vnni",
        "avx512bf16",
    )
}

/// No other instruction set has a target yet.
#[cfg(not(target_arch = "x86_64"))]
fn detected(_feature: &str) -> bool {
    false
}
