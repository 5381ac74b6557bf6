//! Whole outputs that tests compare with, kept in files and rewritten with `BLESS=1`.

use std::fs;
use std::path::Path;

use crate::harness::{Outcome, failed};

/// Does the caller want expectations rewritten?
#[must_use]
pub fn blessing() -> bool {
    std::env::var_os("BLESS").is_some_and(|value| value == "1")
}

/// Passes when the file at `path` holds `actual`; rewrites the file instead when blessing.
///
/// A missing file fails like a wrong one, so that a new expectation is read before it counts.
pub fn file_holds(path: &Path, actual: &str) -> Outcome {
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected == actual {
        return Outcome::Passed;
    }
    if blessing() {
        return match fs::write(path, actual) {
            Ok(()) => Outcome::Passed,
            Err(error) => failed(format!("cannot write `{}`: {error}", path.display())),
        };
    }
    failed(format!(
        "`{}` differs; `cargo bless` rewrites it\n{}",
        path.display(),
        difference(&expected, actual)
    ))
}

/// The lines around the first difference: `-` expected, `+` found.
#[must_use]
pub fn difference(expected: &str, actual: &str) -> String {
    const SHOWN: usize = 12;
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let equal = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let head = old.iter().zip(&new).take_while(equal).count();
    let rest = old.len().min(new.len()) - head;
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(equal).count();

    let mut text = format!("line {}:\n", head + 1);
    for line in &old[head.saturating_sub(2)..head] {
        text.push_str(&format!("  {line}\n"));
    }
    for (sign, lines) in [('-', &old[head..old.len() - tail]), ('+', &new[head..new.len() - tail])]
    {
        for line in lines.iter().take(SHOWN) {
            text.push_str(&format!("{sign} {line}\n"));
        }
        if lines.len() > SHOWN {
            text.push_str(&format!("{sign} … {} more lines\n", lines.len() - SHOWN));
        }
    }
    text
}
