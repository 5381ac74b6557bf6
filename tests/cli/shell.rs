//! The few commands a transcript may use, and what is hidden of their output.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sail_ir::artifact::Machine;
use sail_tests::harness::{Outcome, Test, failed};
use sail_tests::places::binary;

/// Runs commands in one folder.
pub struct Shell<'a> {
    folder: &'a Path,
}

impl<'a> Shell<'a> {
    pub fn new(folder: &'a Path) -> Self {
        Self { folder }
    }

    /// Everything `command` printed, standard error and output in order, and its exit code.
    ///
    /// Fails on a command that is none of ours, and on one that was killed.
    pub fn run(&self, command: &str) -> Result<(String, i32), Outcome> {
        let words = words(command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["ls"] => Ok((self.list()?, 0)),
            // Turn one bit of a file over.
            ["flip", file, at] => self.edit(file, at, |bytes, at| bytes[at] ^= 1),
            // Keep the first bytes of a file.
            ["cut", file, at] => self.edit(file, at, |bytes, at| bytes.truncate(at)),
            [name @ ("sailc" | "sail"), arguments @ ..] => self.program(binary(name)?, arguments),
            _ => Err(failed(format!("a transcript has no command `{command}`"))),
        }
    }

    fn program(&self, path: PathBuf, arguments: &[&str]) -> Result<(String, i32), Outcome> {
        // One open file for both streams keeps their order.
        let log = tempfile::NamedTempFile::new().map_err(failed)?;
        let stream = || -> Result<Stdio, Outcome> {
            Ok(File::options().append(true).open(log.path()).map_err(failed)?.into())
        };
        let status = Command::new(path)
            .args(arguments)
            .current_dir(self.folder)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(stream()?)
            .stderr(stream()?)
            .status()
            .map_err(failed)?;
        let output = String::from_utf8_lossy(&fs::read(log.path()).map_err(failed)?).into_owned();
        let code = status.code().ok_or_else(|| failed(format!("{status}\n{output}")))?;
        let output = without_machine(&without_times(&output));
        Ok((if output.is_empty() || output.ends_with('\n') { output } else { output + "\n" }, code))
    }

    /// Change a file at a byte, `4096`, or at a share of its length, `60%`.
    fn edit(
        &self,
        file: &str,
        at: &str,
        change: impl FnOnce(&mut Vec<u8>, usize),
    ) -> Result<(String, i32), Outcome> {
        let path = self.folder.join(file);
        let mut bytes = fs::read(&path).map_err(failed)?;
        let at = match at.strip_suffix('%') {
            Some(percent) => bytes.len() * percent.parse::<usize>().map_err(failed)? / 100,
            None => at.parse().map_err(failed)?,
        };
        change(&mut bytes, at);
        fs::write(&path, bytes).map_err(failed)?;
        Ok((String::new(), 0))
    }

    fn list(&self) -> Result<String, Outcome> {
        let entries = fs::read_dir(self.folder).map_err(failed)?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        names.sort();
        Ok(names.iter().map(|name| format!("{name}\n")).collect())
    }
}

/// Words of a command line; single quotes keep spaces.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in command.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// This machine's own target becomes `HOST` where a hint names it, a hash `HASH`.
fn without_machine(text: &str) -> String {
    let is_hash =
        |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut text = text.to_owned();
    if let Some(hash) = text.split_whitespace().find(is_hash).map(str::to_owned) {
        text = text.replace(&hash, "HASH");
    }
    match Machine::this().target() {
        Some(target) => {
            text.replace(&format!("again with `--target {target}`"), "again with `--target HOST`")
        }
        None => text,
    }
}

/// Numbers before a unit of time, rate or size become `_`: they differ from run to run, or with
/// every change of a kernel.
fn without_times(text: &str) -> String {
    const UNITS: [&str; 10] =
        ["s", "ms", "us", "µs", "ns", "tokens/s", "MB/s", "GB/s", "bytes", "MB"];
    let mut result = String::new();
    for line in text.split_inclusive('\n') {
        let words: Vec<&str> = line.split(' ').collect();
        for (index, word) in words.iter().enumerate() {
            if index > 0 {
                result.push(' ');
            }
            let unit =
                words.get(index + 1).map(|next| next.trim_end_matches([',', '.', ')', ';', '\n']));
            let number = word.trim_start_matches('(');
            let timed =
                number.parse::<f64>().is_ok() && unit.is_some_and(|unit| UNITS.contains(&unit));
            match timed {
                true => result.push_str(&word.replace(number, "_")),
                false => result.push_str(word),
            }
        }
    }
    result
}

/// The shell's own promises.
pub fn tests() -> Vec<Test> {
    vec![
        Test::new("transcripts hide times, rates and sizes and nothing else", || {
            let text = "done in 1.25 s (3 ms), 8 steps\n27.0 tokens/s, 8 MB\n";
            assert_eq!(without_times(text), "done in _ s (_ ms), 8 steps\n_ tokens/s, _ MB\n");
        }),
        Test::new("quotes keep the words of a question together", || {
            assert_eq!(
                words("sail run a.sail --prompt 'how many?' -q"),
                ["sail", "run", "a.sail", "--prompt", "how many?", "-q"]
            );
        }),
    ]
}
