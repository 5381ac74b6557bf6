//! Where things are that tests use: the workspace, `../shared`, the committed goldens, the binaries.

use std::fs;
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

/// Copy the files of a folder to a new one, which gives its path.
///
/// Fails with the system's words.
pub fn copy_folder(from: &Path, to: &Path) -> Result<PathBuf, Outcome> {
    fs::create_dir(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).map_err(failed)?;
        }
    }
    Ok(to.to_owned())
}

/// `sailc` or `sail`, built from the present sources with the profile of this executable.
///
/// Fails with cargo's words when they do not build.
pub fn binary(name: &str) -> Result<PathBuf, Outcome> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = BUILT.get_or_init(build_binaries).clone().map_err(failed)?;
    Ok(folder.join(name))
}

/// A folder that has `tests/fakecuda`, built from the present sources, as `libcuda.so.1`.
///
/// Fails with cargo's words when it does not build.
pub fn simulated_driver() -> Result<&'static Path, Outcome> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let place = || {
        let target = build(&["--package", "sail-fakecuda"])?;
        let folder = target.join("fakecuda");
        // Under a name of its own first: another process may be looking.
        let new = folder.join(format!("new.{}", std::process::id()));
        let placed = fs::create_dir_all(&folder)
            .and_then(|()| fs::copy(target.join("libsail_fakecuda.so"), &new))
            .and_then(|_| fs::rename(&new, folder.join("libcuda.so.1")));
        placed.map(|()| folder).map_err(|error| error.to_string())
    };
    BUILT.get_or_init(place).as_deref().map_err(failed)
}

fn build_binaries() -> Result<PathBuf, String> {
    build(&["--workspace", "--bins"])
}

/// Have cargo build something with the profile of this executable; the folder it is then in.
fn build(what: &[&str]) -> Result<PathBuf, String> {
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder =
        test.parent().and_then(Path::parent).ok_or("the test is not in a target folder")?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet"]).args(what).current_dir(workspace());
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo does not build {what:?}\n{}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(folder.to_owned())
}
