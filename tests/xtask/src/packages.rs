//! The Debian packages that MLIR 22 and LLVM 22 are built against; installs those that are missing.

use crate::run::{Result, command, output, succeeds};

const PACKAGES: [&str; 10] = [
    "llvm-22-dev",
    "libmlir-22-dev",
    "mlir-22-tools",
    "libpolly-22-dev",
    "libclang-22-dev",
    "lld-22",
    "libzstd-dev",
    "libz3-dev",
    "zlib1g-dev",
    "libxml2-dev",
];

/// Install what is missing.
///
/// Refuses, with the command to run, when this system has no `apt-get` or we are not root.
pub fn install() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let by_hand = format!("apt-get update && apt-get install -y {list}");
    let user = output(&mut command("id", &["-u"]))?;
    if output(&mut command("apt-get", &["--version"])).is_err() {
        return Err(format!(
            "LLVM 22 and MLIR 22 are needed and this system has no `apt-get`\n\n\
             hint: on Debian 12 the packages are {list}; elsewhere install both and set the paths in \
             `.cargo/config.toml`"
        ));
    }
    if user.trim() != "0" {
        return Err(format!(
            "Debian packages are missing and only root may install them\n\n\
             hint: run as root: {by_hand}"
        ));
    }
    println!("installing {list}");
    let update =
        succeeds(command("apt-get", &["update", "-q"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(&missing);
    let install = update
        && succeeds(command("apt-get", &arguments).env("DEBIAN_FRONTEND", "noninteractive"))?;
    match install {
        true => Ok(()),
        false => Err(format!("`apt-get` did not succeed\n\nhint: run by hand: {by_hand}")),
    }
}

/// Packages that `dpkg` does not have installed.
fn missing() -> Vec<&'static str> {
    let installed = |package: &&str| {
        output(&mut command("dpkg-query", &["-W", "-f=${Status}", package]))
            .is_ok_and(|status| status == "install ok installed")
    };
    PACKAGES.into_iter().filter(|package| !installed(package)).collect()
}
