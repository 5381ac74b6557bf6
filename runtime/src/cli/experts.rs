//! `--profile-experts`: which experts the tokens of a run went through, as JSON and as a picture.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::builder::{PathBufValueParser, TypedValueParser};

use super::error::CommandError;
use super::{Failure, boxed};
use crate::Program;
use crate::execute::Done;
use crate::experts::{ExpertCounts, heat_map};

/// What the heat map's name ends in.
const PICTURE: &str = "svg";

/// A file for counts, as it is written on the command line.
///
/// Refuses a name that the heat map will have: one of both would be lost.
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case(PICTURE) => Err(format!(
            "the counts are JSON, and the heat map beside them would have this very name; `{}` is free",
            path.with_extension("json").display()
        )),
        _ => Ok(path),
    })
}

/// Counts that are written to a file, and a heat map beside it.
#[derive(Clone)]
pub(super) struct ExpertProfiler {
    path: PathBuf,
    counts: Arc<Mutex<ExpertCounts>>,
}

impl ExpertProfiler {
    /// Count for the file `path`.
    ///
    /// Refuses a model without experts, and a file that cannot be written: before the work, not
    /// after it.
    pub fn new(program: &Program, path: &Path) -> Result<Self, Failure> {
        let counts = ExpertCounts::new(program.manifest())
            .ok_or_else(|| boxed(CommandError::NoExperts { file: program.file() }))?;
        let profiler = Self { path: path.to_owned(), counts: Arc::new(Mutex::new(counts)) };
        profiler.write()?;
        Ok(profiler)
    }

    /// Count what a call has left.
    pub fn hear(&self, done: &Done) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).add(done);
    }

    /// Write what was counted so far.
    ///
    /// Refuses files that cannot be written.
    pub fn write(&self) -> Result<(), Failure> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = counts.profile();
        let json = serde_json::to_string(profile).expect("numbers and names are JSON") + "\n";
        let picture = self.path.with_extension(PICTURE);
        for (path, text) in [(&self.path, json), (&picture, heat_map(profile))] {
            fs::write(path, text)
                .map_err(|error| boxed(CommandError::io("write", path, &error)))?;
        }
        Ok(())
    }
}
