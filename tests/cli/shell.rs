//! The few commands a transcript may use, and what is hidden of their output.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
            // Turn one bit of a file over, at a share of its length in percent.
            ["flip", file, percent] => {
                let path = self.folder.join(file);
                let mut bytes = fs::read(&path).map_err(failed)?;
                let percent: usize = percent.parse().map_err(failed)?;
                let at = (bytes.len() - 1) * percent / 100;
                bytes[at] ^= 1;
                fs::write(&path, bytes).map_err(failed)?;
                Ok((String::new(), 0))
            }
            // Keep a share of a file, in percent.
            ["cut", file, percent] => {
                let path = self.folder.join(file);
                let bytes = fs::read(&path).map_err(failed)?;
                let percent: usize = percent.parse().map_err(failed)?;
                fs::write(&path, &bytes[..bytes.len() * percent / 100]).map_err(failed)?;
                Ok((String::new(), 0))
            }
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
        let output = without_times(&output);
        Ok((if output.is_empty() || output.ends_with('\n') { output } else { output + "\n" }, code))
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

/// Numbers before a unit of time or of rate become `_`: they differ from run to run.
fn without_times(text: &str) -> String {
    const UNITS: [&str; 8] = ["s", "ms", "us", "µs", "ns", "tokens/s", "MB/s", "GB/s"];
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
        Test::new("transcripts hide times and rates and nothing else", || {
            let text = "done in 1.25 s (3 ms), 8 steps\n27.0 tokens/s, 8 MB\n";
            assert_eq!(without_times(text), "done in _ s (_ ms), 8 steps\n_ tokens/s, 8 MB\n");
        }),
        Test::new("quotes keep the words of a question together", || {
            assert_eq!(
                words("sail run a.sail --prompt 'how many?' -q"),
                ["sail", "run", "a.sail", "--prompt", "how many?", "-q"]
            );
        }),
    ]
}
