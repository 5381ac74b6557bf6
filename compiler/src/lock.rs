//! `sailc.lock`: configs of kernels, pinned: those of x86-64 were found by measuring, those of CUDA targets
//! are what a model of the chip chooses, or what somebody put in their place.
//!
//! ```text
//! # comments and empty lines are skipped
//! sailc.lock 1 space 0123456789abcdef
//! x86-64-v4+avx512bf16 linear.bf16.tokens.n4096.k2048 rows=12 block=128 run=64 foresee=8
//! sm_90 linear.bf16.tokens.n4096.k2048.wgmma.most4096 columns=256 stages=4
//! ```
//!
//! After the head one problem a line: target, kernel, config. The kernel of a CUDA target says the way its
//! problem is carried out, and for calls of how many rows at most. `space` is a hash of everything that can
//! be chosen; a lock of another one was measured with other code and is refused. A lock may serve
//! several models and targets: lines that are for others are let be.

mod error;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use sail_ir::Target;
use sail_kernels::{Config, Kernel};

use crate::error::plain;

pub use error::LockError;

const HEAD: &str = "sailc.lock 1 space";

/// The pinned configs, and where they come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    pins: BTreeMap<Problem, Pin>,
    path: String,
    /// Of the file, in hexadecimal digits.
    blake3: String,
}

/// A kernel on a target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    /// As it is spelled; two spellings of the same features are the same target.
    target: String,
    kernel: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pin {
    features: Vec<String>,
    config: String,
    /// In the file; 0 of what was not read.
    line: usize,
}

impl Pin {
    fn is_for_a_gpu(&self) -> bool {
        self.features.iter().any(|feature| feature.starts_with("sm_"))
    }
}

/// The hash of what can be chosen, as a lock and a database name it.
#[must_use]
pub fn space() -> String {
    let hash = blake3::hash(sail_kernels::config::space_text().as_bytes());
    hash.to_hex().as_str()[..16].to_owned()
}

impl Lock {
    /// Read the file at `path`.
    ///
    /// Refuses a file that cannot be read, a line that is not understood, by its number, and a lock
    /// of another space.
    pub fn open(path: &Path) -> Result<Self, LockError> {
        let name = path.display().to_string();
        let text = fs::read(path).map_err(|error| LockError::File {
            path: name.clone(),
            because: format!("it cannot be read: {}", plain(&error)),
        })?;
        let blake3 = blake3::hash(&text).to_hex().to_string();
        let text = String::from_utf8(text).map_err(|_| LockError::File {
            path: name.clone(),
            because: "it is no text".to_owned(),
        })?;
        let mut lock = Self { path: name, blake3, ..Self::default() };
        lock.read(&text)?;
        Ok(lock)
    }

    fn read(&mut self, text: &str) -> Result<(), LockError> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let refuse = |line, because: String| {
            let path = self.path.clone();
            Err(LockError::Line { path, line, because })
        };
        let (line, head) = lines.next().unwrap_or((1, ""));
        match head.strip_prefix(HEAD).map(str::trim) {
            None => return refuse(line, format!("a lock begins with `{HEAD} HASH`")),
            Some(found) if found != space() => {
                let (path, found) = (self.path.clone(), found.to_owned());
                return Err(LockError::Stale { path, found });
            }
            Some(_) => {}
        }
        for (line, text) in lines {
            let words: Vec<&str> = text.split_whitespace().collect();
            let [target, kernel, config @ ..] = words.as_slice() else {
                return refuse(line, "a line is a target, a kernel and its config".to_owned());
            };
            if config.is_empty() {
                return refuse(line, format!("kernel `{kernel}` has no config"));
            }
            let features = match Target::parse(target) {
                Ok(target) => target.features,
                Err(_) => return refuse(line, format!("`{target}` is no target")),
            };
            if let Some(earlier) = self.pin_of(kernel, &features) {
                let because = format!("line {} is about the same kernel", earlier.line);
                return refuse(line, because);
            }
            let [target, kernel] = [target, kernel].map(|word| (*word).to_owned());
            let pin = Pin { features, config: config.join(" "), line };
            self.pins.insert(Problem { target, kernel }, pin);
        }
        Ok(())
    }

    /// The kernel shaped as the lock says, if it says something about it.
    ///
    /// Refuses a config that does not fit the kernel, value by value or as a whole.
    pub fn pinned(
        &self,
        kernel: &dyn Kernel,
        target: &Target,
    ) -> Result<Option<Box<dyn Kernel>>, LockError> {
        let Some(shaped) = kernel.shaped() else { return Ok(None) };
        let problem = shaped.pinned_as();
        let Some(pin) = self.pin_of(&problem, &target.features) else { return Ok(None) };
        let config = Config::parse(&pin.config, &shaped.space()).and_then(|config| {
            let together = || format!("`{config}` does not fit `{target}` together");
            if shaped.fits(&config) { Ok(config) } else { Err(together()) }
        });
        let config = config.map_err(|because| {
            let (path, line) = (self.path.clone(), pin.line);
            LockError::Config { path, line, kernel: problem, because }
        })?;
        Ok(Some(shaped.with(&config)))
    }

    fn pin_of(&self, kernel: &str, features: &[String]) -> Option<&Pin> {
        let mut pins = self.pins.iter();
        let found =
            pins.find(|(problem, pin)| problem.kernel == kernel && pin.features == features);
        found.map(|(_, pin)| pin)
    }

    /// Pin a kernel, whatever was known of it.
    pub fn pin(&mut self, target: &Target, kernel: String, config: &Config) {
        self.pins
            .retain(|problem, pin| problem.kernel != kernel || pin.features != target.features);
        let problem = Problem { target: target.name.clone(), kernel };
        let (features, config) = (target.features.clone(), config.to_string());
        self.pins.insert(problem, Pin { features, config, line: 0 });
    }

    /// Kernels that are pinned, on any target.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pins.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty()
    }

    /// For messages.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The option that brought it, for the artifact: its hash, as a path says nothing elsewhere.
    #[must_use]
    pub fn echo(&self) -> String {
        format!("--lock=blake3:{}", self.blake3)
    }

    /// Write the file whole or not at all; the same pins are the same bytes.
    ///
    /// Refuses what the file system refuses.
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        let written = fs::write(&temporary, self.to_string());
        written.and_then(|()| fs::rename(&temporary, path)).map_err(|error| {
            // A leftover harms nobody.
            let _ = fs::remove_file(&temporary);
            let because = format!("it cannot be written: {}", plain(&error));
            LockError::File { path: path.display().to_string(), because }
        })
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Configs of kernels, by `sailc tune`, for `sailc compile --lock`.")?;
        if self.pins.values().any(|pin| pin.is_for_a_gpu()) {
            writeln!(
                f,
                "# Those of CUDA targets are what a model of the chip chooses: not measured."
            )?;
        }
        writeln!(f, "{HEAD} {}", space())?;
        for (Problem { target, kernel }, pin) in &self.pins {
            writeln!(f, "{target} {kernel} {}", pin.config)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use sail_ir::Scheme;
    use sail_kernels::Rows;
    use sail_kernels::linear::{Epilogue, Linear, LinearProblem, Prologue};

    use super::*;

    fn target(name: &str) -> Target {
        Target::parse(name).unwrap()
    }

    fn linear(n: u32, target: &Target) -> Linear {
        let (rows, scheme) = (Rows::TOKENS, Scheme::Bf16);
        let (prologue, epilogue) = (Prologue::Direct, Epilogue::NONE);
        Linear::new(LinearProblem { rows, n, k: 64, scheme, prologue, epilogue }, target)
    }

    fn config(kernel: &dyn Kernel) -> Config {
        kernel.shaped().unwrap().config()
    }

    fn read(text: &str) -> Result<Lock, LockError> {
        let mut lock = Lock { path: "a.lock".to_owned(), ..Lock::default() };
        lock.read(text).map(|()| lock)
    }

    #[test]
    fn what_is_written_is_read_and_pins_its_kernel_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sailc.lock");
        let znver4 = target("znver4");
        let kernel = linear(2048, &znver4);
        let wish = config(&kernel).with("rows", 6).with("block", 128);
        let mut lock = Lock::default();
        for (target, config) in [(&znver4, &config(&kernel)), (&znver4, &wish)] {
            lock.pin(target, kernel.symbol(), config);
        }
        lock.pin(&target("x86-64-v3"), "attention.h2".to_owned(), &wish);
        lock.write(&path).unwrap();
        let read = Lock::open(&path).unwrap();
        assert_eq!(read.to_string(), fs::read_to_string(&path).unwrap());
        assert_eq!((read.len(), fs::read_dir(folder.path()).unwrap().count()), (2, 1));
        assert!(read.echo().starts_with("--lock=blake3:"));

        let same = target("x86-64-v4+avx512vnni+avx512bf16");
        for target in [&znver4, &same] {
            let pinned = read.pinned(&linear(2048, target), target).unwrap().unwrap();
            assert_eq!(config(pinned.as_ref()), wish);
        }
        assert!(read.pinned(&linear(2049, &znver4), &znver4).unwrap().is_none());
        let lowest = target("x86-64-v3");
        assert!(read.pinned(&linear(2048, &lowest), &lowest).unwrap().is_none());
    }

    #[test]
    fn lines_that_are_not_understood_are_named_by_their_number() {
        let head = format!("# text\n\n{HEAD} {}\n", space());
        let refused = |text: &str| read(text).unwrap_err().to_string();
        expect![[r#"
            cannot use lock `a.lock`
              in line 1
              because a lock begins with `sailc.lock 1 space HASH`"#]]
        .assert_eq(&refused(""));
        expect![[r#"
            cannot use lock `a.lock`
              in line 4
              because a line is a target, a kernel and its config"#]]
        .assert_eq(&refused(&format!("{head}znver4")));
        expect![[r#"
            cannot use lock `a.lock`
              in line 4
              because kernel `linear.x` has no config"#]]
        .assert_eq(&refused(&format!("{head}znver4  linear.x ")));
        expect![[r#"
            cannot use lock `a.lock`
              in line 4
              because `z80` is no target"#]]
        .assert_eq(&refused(&format!("{head}z80 linear rows=1")));
        expect![[r#"
            cannot use lock `a.lock`
              in line 5
              because line 4 is about the same kernel"#]]
        .assert_eq(&refused(&format!(
            "{head}znver4 linear rows=1\nx86-64-v4+avx512vnni+avx512bf16 linear rows=2"
        )));
        let stale = read(&format!("{HEAD} 0000\n")).unwrap_err();
        assert!(matches!(stale, LockError::Stale { .. }), "{stale}");
    }

    #[test]
    fn a_kernel_of_a_gpu_is_pinned_for_its_calls_alone() {
        let [sm_90, sm_80] = ["sm_90", "sm_80"].map(target);
        let on_gpu = |target: &Target, most_rows| {
            linear(2048, target).on_gpu_for(target, most_rows).expect("it has code")
        };
        let kernel = on_gpu(&sm_90, 4096);
        assert_eq!(
            kernel.shaped().unwrap().pinned_as(),
            "linear.bf16.tokens.n2048.k64.wgmma.most4096"
        );
        let wish = config(kernel.as_ref()).with("columns", 192).with("stages", 5);
        let mut lock = Lock::default();
        lock.pin(&sm_90, kernel.shaped().unwrap().pinned_as(), &wish);
        let read = read(&lock.to_string()).unwrap();
        let pinned = |target: &Target, most_rows| {
            read.pinned(on_gpu(target, most_rows).as_ref(), target).unwrap()
        };
        let pinned_kernel = pinned(&sm_90, 4096).unwrap();
        assert_eq!(config(pinned_kernel.as_ref()), wish);
        assert_eq!(
            pinned_kernel.symbol(),
            "linear.bf16.tokens.n2048.k64.wgmma128x192.columns192.stages5"
        );
        assert!(pinned(&sm_90, 2048).is_none() && pinned(&sm_80, 4096).is_none());

        // Seven stages would be no value, six of the widest tile do not fit together.
        let problem = kernel.shaped().unwrap().pinned_as();
        let wide = format!("{HEAD} {}\nsm_90 {problem} columns=256 stages=6", space());
        let error = self::read(&wide).unwrap().pinned(kernel.as_ref(), &sm_90);
        let error = error.map(|_| ()).unwrap_err().to_string();
        assert!(error.ends_with("`columns=256 stages=6` does not fit `sm_90` together"), "{error}");
    }

    #[test]
    fn a_config_that_does_not_fit_its_kernel_is_refused_when_it_is_used() {
        let znver4 = target("znver4");
        let kernel = linear(2048, &znver4);
        let line = format!("znver4 {} rows=13 block=256 run=64 foresee=8", kernel.symbol());
        let lock = read(&format!("{HEAD} {}\n{line}", space())).unwrap();
        let error = lock.pinned(&kernel, &znver4).map(|_| ()).unwrap_err().to_string();
        expect![[r#"
            cannot use lock `a.lock`
              in line 2, kernel `linear.bf16.tokens.n2048.k64`
              because `rows=13` is none of 4, 6, 8, 10, 12"#]]
        .assert_eq(&error);
    }
}
