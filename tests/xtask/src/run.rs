//! Starts other programs from the root of the workspace and says so when they fail.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A failure in words; empty when the program that failed has said it all.
pub type Result<T> = std::result::Result<T, String>;

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("`tests/xtask` is two folders deep")
}

/// `cargo` with `arguments`, in the workspace.
pub fn cargo(arguments: &[&str]) -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), arguments)
}

/// A program with `arguments`, in the workspace.
pub fn command(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// Run with our own output; is it a success?
pub fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    Ok(status.success())
}

/// Run and hand every line of its output to `line`; is it a success?
pub fn each_line(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| cannot_start(command, &error))?;
    let output = child.stdout.take().expect("the output was piped");
    for text in BufReader::new(output).lines() {
        line(&text.map_err(|error| error.to_string())?);
    }
    Ok(child.wait().map_err(|error| error.to_string())?.success())
}

/// What a command printed. One that failed is an error without words: it has said why.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| cannot_start(command, &error))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::new()),
    }
}

/// Build `sailc` and `sail`; the folder they are in.
///
/// The profile is the one tests are built with: its dependencies are optimised, the hot loops are
/// code that `sailc` generates, and a second profile would cost a second build of everything.
pub fn binaries() -> Result<PathBuf> {
    match succeeds(&mut cargo(&["build", "--workspace", "--bins"]))? {
        true => Ok(root().join("target/debug")),
        false => Err(String::new()),
    }
}

fn cannot_start(command: &Command, error: &std::io::Error) -> String {
    format!("cannot start `{}`: {error}", command.get_program().to_string_lossy())
}
