//! NVIDIA's assembler for the tests of CUDA kernels: one pinned Python package, unpacked under
//! `target/cuda`, where `sailc` looks for it, too.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::run::{Result, command, root, succeeds};

const PACKAGE: &str = "nvidia-cuda-nvcc==13.5.37";
const FOLDER: &str = "target/cuda";
const EXECUTABLE: &str = "target/cuda/nvidia/cu13/bin/ptxas";

/// Install it, unless it is there.
///
/// Refuses, with the command to run, when there is no Python with `pip` or no way to its registry.
pub fn install() -> Result<()> {
    let executable = root().join(EXECUTABLE);
    if executable.is_file() {
        return Ok(());
    }
    println!("installing {PACKAGE} to {FOLDER}");
    let arguments = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", FOLDER, PACKAGE];
    let installed = succeeds(&mut command("python3", &arguments)).unwrap_or(false);
    if !installed || !executable.is_file() {
        let by_hand = arguments.join(" ");
        return Err(format!(
            "ptxas is not there and cannot be installed: PTX is not judged by it\n\n\
             hint: python3 {by_hand}; or name one with `SAIL_PTXAS`"
        ));
    }
    // The package's executables lack the bit that lets them run.
    fs::set_permissions(&executable, fs::Permissions::from_mode(0o755))
        .map_err(|error| format!("`{EXECUTABLE}` cannot be made executable: {error}"))
}
