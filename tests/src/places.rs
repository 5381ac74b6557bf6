//! Where things are that tests use: the workspace, `../shared`, the committed goldens, the binaries.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::harness::{Outcome, failed};

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("`tests` is inside the workspace")
}

/// A part of `../shared`, the folder beside the workspace with fixtures too large to commit.
///
/// Skips where it is absent.
pub fn shared(part: &str) -> Result<PathBuf, Outcome> {
    let root = workspace().with_file_name("shared");
    if !root.is_dir() {
        return Err(Outcome::Skipped("no ../shared beside the workspace".to_owned()));
    }
    let path = root.join(part);
    if !path.exists() {
        return Err(Outcome::Skipped(format!("no `{part}` in ../shared")));
    }
    Ok(path)
}

/// `sailc` or `sail`, built from the present sources with the profile of this executable.
///
/// Fails with cargo's words when they do not build.
pub fn binary(name: &str) -> Result<PathBuf, Outcome> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = BUILT.get_or_init(build_binaries).clone().map_err(failed)?;
    Ok(folder.join(name))
}

fn build_binaries() -> Result<PathBuf, String> {
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder =
        test.parent().and_then(Path::parent).ok_or("the test is not in a target folder")?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(workspace());
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "the binaries do not build\n{}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(folder.to_owned())
}
