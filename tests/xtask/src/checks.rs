//! Runs formats, lints and tests, adds up what they counted, and ends with one line alone.

use std::fmt;
use std::ops::AddAssign;

use crate::packages;
use crate::ptxas;
use crate::run::{Result, cargo, command, each_line, output, succeeds};

/// Tests of the house that need no more than a minute.
const QUICK: [&str; 4] = ["harness: ", "tidy: ", "filetests: ", "cli: "];

/// What was counted, in the words of the closing line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped += more.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Every test there is. The format and the lints count as one test each.
pub fn full() -> Result<()> {
    packages::install()?;
    if let Err(message) = ptxas::install() {
        println!("note: {message}");
    }
    let mut counts = format_and_lints()?;
    counts += tests(&["test", "--workspace", "--no-fail-fast"])?;
    close(counts)
}

/// Tests that take minutes each, whose name contains `filter`; what they measured is printed.
pub fn long(filter: Option<&str>) -> Result<()> {
    packages::install()?;
    ptxas::install()?;
    let mut arguments = vec!["test", "--package", "sail-tests", "--test", "house", "--"];
    arguments.extend(["--long", "--times"]);
    arguments.extend(filter);
    close(tests(&arguments)?)
}

/// What should be green before every commit.
pub fn quick() -> Result<()> {
    let mut counts = format_and_lints()?;
    counts += tests(&["test", "--workspace", "--no-fail-fast", "--lib", "--bins"])?;
    let house = [&["test", "--workspace", "--test", "house", "--"][..], &QUICK].concat();
    counts += tests(&house)?;
    close(counts)
}

/// House rules alone.
pub fn tidy() -> Result<()> {
    close(tests(&["test", "--quiet", "--workspace", "--test", "house", "--", "tidy: "])?)
}

/// Rewrite expectations of the tests whose name contains `filter`, then list what changed.
pub fn bless(filter: Option<&str>) -> Result<()> {
    let before = changed()?;
    let mut arguments =
        vec!["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--test", "house", "--"];
    arguments.extend(filter);
    let mut run = cargo(&arguments);
    // `expect-test` has a variable of its own; ours is BLESS.
    let succeeded = succeeds(run.env("BLESS", "1").env("UPDATE_EXPECT", "1"))?;
    println!("changed files; read them before they count:");
    let changed = changed()?;
    for line in changed.lines() {
        let note =
            if before.lines().any(|old| old == line) { "   (was changed before)" } else { "" };
        println!("{line}{note}");
    }
    if succeeded {
        Ok(())
    } else {
        Err("some tests fail for another reason than their expectation".to_owned())
    }
}

fn changed() -> Result<String> {
    output(&mut command("git", &["status", "--short"]))
}

fn format_and_lints() -> Result<Counts> {
    let mut counts = check("format", &["fmt", "--all", "--check"], "cargo fmt --all")?;
    let lints = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    counts += check("lints", &lints, "mend what clippy says above")?;
    Ok(counts)
}

/// One command that counts as one test.
fn check(name: &str, arguments: &[&str], fix: &str) -> Result<Counts> {
    if succeeds(&mut cargo(arguments))? {
        println!("{name}: passed");
        return Ok(Counts { passed: 1, ..Counts::default() });
    }
    println!("failed: {name}\nhint: {fix}");
    Ok(Counts { failed: 1, ..Counts::default() })
}

/// Run `cargo test`, show what is not merely a passing test's name, add up what the suites counted.
fn tests(arguments: &[&str]) -> Result<Counts> {
    let mut counts = Counts::default();
    let succeeded = each_line(&mut cargo(arguments), |line| {
        counts += counted(line).unwrap_or_default();
        if !is_noise(line) {
            println!("{line}");
        }
    })?;
    if !succeeded && counts.failed == 0 {
        println!("failed: `cargo {}` ended without a count", arguments.join(" "));
        counts.failed = 1;
    }
    Ok(counts)
}

fn close(counts: Counts) -> Result<()> {
    println!("{counts}");
    if counts.failed == 0 { Ok(()) } else { Err(String::new()) }
}

/// What a suite's last line counted: Rust's own, or the house's.
fn counted(line: &str) -> Option<Counts> {
    let number = |part: &str, word: &str| part.trim().strip_suffix(word)?.trim().parse().ok();
    if let Some(rest) = line.strip_prefix("test result: ") {
        let mut parts = rest.split_once(". ")?.1.split(';');
        let passed = number(parts.next()?, "passed")?;
        let failed = number(parts.next()?, "failed")?;
        return Some(Counts { passed, failed, skipped: number(parts.next()?, "ignored")? });
    }
    let mut parts = line.split(',');
    let passed = number(parts.next()?, "passed")?;
    let failed = number(parts.next()?, "failed")?;
    Some(Counts { passed, failed, skipped: number(parts.next()?, "skipped")? })
}

/// Names of passing tests and the lines around them.
fn is_noise(line: &str) -> bool {
    let passing = line.starts_with("test ") && line.ends_with(" ... ok");
    let empty_suite = line.starts_with("test result: ok. 0 passed");
    line.is_empty() || line.starts_with("running ") || passing || empty_suite
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::root;

    #[test]
    fn both_harnesses_are_counted_and_other_lines_are_not() {
        let rust = "test result: FAILED. 12 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(counted(rust), Some(Counts { passed: 12, failed: 1, skipped: 3 }));
        let house = "412 passed, 0 failed, 31 skipped";
        assert_eq!(counted(house), Some(Counts { passed: 412, failed: 0, skipped: 31 }));
        for line in ["test a ... ok", "skipped 31: no ../shared", "12 passed and more", ""] {
            assert_eq!(counted(line), None, "{line}");
        }
    }

    #[test]
    fn the_closing_line_is_itself_countable() {
        let counts = Counts { passed: 7, failed: 1, skipped: 2 };
        assert_eq!(counted(&counts.to_string()), Some(counts));
    }

    #[test]
    fn the_root_is_where_the_workspace_is() {
        assert!(root().join("Cargo.lock").is_file());
    }
}
