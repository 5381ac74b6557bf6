//! NVIDIA's assembler and disassembler for the tests of CUDA kernels: two pinned Python packages, unpacked
//! under `target/cuda`, where `sailc` looks for the first, too.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::run::{Result, command, root, succeeds};

/// Where a package has its executables.
const BIN: &str = "nvidia/cu13/bin";

/// Packages, the executable that each is installed for, and its folder: two in one would take each
/// other's place.
const TOOLS: [(&str, &str, &str); 2] = [
    ("nvidia-cuda-nvcc==13.5.37", "ptxas", "target/cuda"),
    ("nvidia-cuda-nvdisasm==13.5.37", "nvdisasm", "target/cuda/nvdisasm"),
];

/// Install those that are not there.
///
/// Refuses, with the command to run, when there is no Python with `pip` or no way to its registry.
pub fn install() -> Result<()> {
    TOOLS.into_iter().try_for_each(install_one)
}

fn install_one((package, name, folder): (&str, &str, &str)) -> Result<()> {
    let path = format!("{folder}/{BIN}/{name}");
    let executable = root().join(&path);
    if executable.is_file() {
        return Ok(());
    }
    println!("installing {package} to {folder}");
    let arguments = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, package];
    let installed = succeeds(&mut command("python3", &arguments)).unwrap_or(false);
    if !installed || !executable.is_file() {
        let by_hand = arguments.join(" ");
        return Err(format!(
            "`{path}` is not there and cannot be installed: CUDA kernels are not judged by it\n\n\
             hint: python3 {by_hand}; or name another ptxas with `SAIL_PTXAS`"
        ));
    }
    // The packages' executables lack the bit that lets them run.
    fs::set_permissions(&executable, fs::Permissions::from_mode(0o755))
        .map_err(|error| format!("`{path}` cannot be made executable: {error}"))
}
