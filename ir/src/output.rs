//! Standard output and standard error: where a command's result and its words go.
//!
//! `print!` and its kin panic when nobody reads, so the command lines write through here.

use std::fmt;
use std::io::{self, Write};

use crate::help::Help;

/// Write a part of the result to standard output at once.
///
/// A reader that has gone away (`| head`) has what it wanted, so that is no failure.
///
/// Refuses what else the system refuses, such as a full disk: a result that was lost must not look
/// like success.
pub fn put(text: &str) -> Result<(), OutputError> {
    delivered(to(&mut io::stdout().lock(), text))
}

/// Write words for a person to standard error; where they cannot be written nobody waits for them.
pub fn tell(text: &str) {
    let _ = to(&mut io::stderr().lock(), text);
}

fn to(stream: &mut dyn Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

fn delivered(result: io::Result<()>) -> Result<(), OutputError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(OutputError { error }),
        _ => Ok(()),
    }
}

/// The system does not take the result.
#[derive(Debug)]
pub struct OutputError {
    error: io::Error,
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.error.to_string();
        let because = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        write!(f, "cannot write the result\n  in standard output\n  because of: {because}")
    }
}

impl std::error::Error for OutputError {}

impl Help for OutputError {
    fn code(&self) -> &'static str {
        "SC0114"
    }

    fn exit_code(&self) -> u8 {
        if self.error.kind() == io::ErrorKind::StorageFull { 7 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is() {
        assert!(delivered(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        let full = delivered(Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        let text = "cannot write the result\n  in standard output\n  because of: no storage space";
        assert_eq!((full.to_string().as_str(), full.exit_code()), (text, 7));
        assert_eq!(delivered(Err(io::ErrorKind::Other.into())).unwrap_err().exit_code(), 1);
    }
}
