//! The text database of measurements: one record a line, only ever appended to.
//!
//! ```text
//! 2026-11-25 sailc=0.1.0 space=0123456789abcdef target=znver4 cpu=AMD_EPYC_9R14 threads=2 kernel=linear.bf16.tokens.n4096.k2048 tokens=512 rounds=9 ns=50311 ratio=0.957 spread=0.012 memory=0.11 arithmetic=0.92 rows=12 block=128 run=64 foresee=8
//! ```
//!
//! `ns` is the median time of a call; `ratio` and `spread` are against the rule's choice in the same
//! rounds; `memory` and `arithmetic` are shares of what the machine can read and multiply in the same
//! time, as it was when the kernel's turn began.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sail_ir::plan::Count;
use sail_kernels::Config;

use super::score::Ratio;
use super::{Machine, TuneError};
use crate::error::plain;
use crate::lock::space;

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub kernel: String,
    pub config: Config,
    /// What was counted, and how many.
    pub count: (Count, u32),
    pub rounds: usize,
    pub time: Duration,
    pub ratio: Ratio,
    /// Shares of the machine's limits: reading, arithmetic.
    pub shares: [f64; 2],
}

/// A file that records are appended to.
pub struct Database {
    file: File,
    path: PathBuf,
    /// What is the same for all records of a run.
    same: String,
}

impl Database {
    /// Open the file, which is made where it is absent.
    ///
    /// Refuses a file that cannot be written.
    pub fn open(path: &Path, machine: &Machine) -> Result<Self, TuneError> {
        let file = File::options().append(true).create(true).open(path);
        let file = file.map_err(|error| TuneError::database(path, &error))?;
        let Machine { target, cpu, threads, .. } = machine;
        let (date, version, space) = (date(SystemTime::now()), env!("CARGO_PKG_VERSION"), space());
        let same = format!(
            "{date} sailc={version} space={space} target={target} cpu={cpu} threads={threads}"
        );
        Ok(Self { file, path: path.to_owned(), same })
    }

    /// Append one record.
    pub fn add(&mut self, record: &Record) -> Result<(), TuneError> {
        let line = format!("{} {record}\n", self.same);
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|error| TuneError::database(&self.path, &error))
    }
}

impl TuneError {
    fn database(path: &Path, error: &std::io::Error) -> Self {
        Self::Database { path: path.display().to_string(), because: plain(error) }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, config, count: (counted, count), rounds, time, ratio, shares } = self;
        let counted = format!("{counted:?}").to_lowercase();
        let (ns, [memory, arithmetic]) = (time.as_nanos(), shares);
        let Ratio { median, spread } = ratio;
        write!(
            f,
            "kernel={kernel} {counted}={count} rounds={rounds} ns={ns} ratio={median:.3} spread={spread:.3} memory={memory:.2} arithmetic={arithmetic:.2} {config}"
        )
    }
}

/// The name of this machine's CPU, without spaces.
#[must_use]
pub fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name"));
    let name = name.map_or("unknown", |name| name.trim_start_matches(['\t', ' ', ':']));
    name.split_whitespace().collect::<Vec<_>>().join("_")
}

/// Year, month and day in UTC.
fn date(now: SystemTime) -> String {
    let days = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    // Years are counted from March, so that the day that some of them have more is the last.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", 400 * era + year + next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01");
        assert_eq!(at(951_782_400), "2000-02-29");
        assert_eq!(at(951_868_800), "2000-03-01");
        assert_eq!(at(1_795_564_799), "2026-11-24");
        assert_eq!(at(1_795_564_800), "2026-11-25");
    }

    #[test]
    fn a_record_is_one_line() {
        let record = Record {
            kernel: "linear.bf16".to_owned(),
            config: Config::new(&[("rows", 12), ("block", 64)]),
            count: (Count::Tokens, 512),
            rounds: 9,
            time: Duration::from_nanos(50_311),
            ratio: Ratio { median: 0.9567, spread: 0.0119 },
            shares: [0.114, 0.919],
        };
        let text = "kernel=linear.bf16 tokens=512 rounds=9 ns=50311 ratio=0.957 spread=0.012 memory=0.11 arithmetic=0.92 rows=12 block=64";
        assert_eq!(record.to_string(), text);
    }

    #[test]
    fn records_are_appended_after_those_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        std::fs::write(&path, "earlier\n").unwrap();
        let machine = Machine {
            target: sail_ir::Target::parse("znver4").unwrap(),
            cpu: cpu(),
            threads: 2,
            probe: None,
        };
        let record = Record {
            kernel: "k".to_owned(),
            config: Config::new(&[("rows", 1)]),
            count: (Count::Images, 1),
            rounds: 1,
            time: Duration::from_nanos(1),
            ratio: Ratio { median: 1.0, spread: 0.0 },
            shares: [0.0; 2],
        };
        for _ in 0..2 {
            Database::open(&path, &machine).unwrap().add(&record).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (3, "earlier"));
        let words: Vec<&str> = lines[1].split(' ').collect();
        assert!(words[4].starts_with("cpu=") && words[5] == "threads=2", "{}", lines[1]);
    }
}
