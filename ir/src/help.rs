//! What every error of the house can say beside its sentence: a code, a hint, an exit status.

use std::error::Error;
use std::fmt::Write;

/// An error that a person can act on.
///
/// `Display` gives the sentence and, on further lines indented by two spaces, `in PLACE` and
/// `because CAUSE`; this trait adds what [`report`] prints around it.
pub trait Help: Error {
    /// Stable code, `SC` and four digits; `sailc explain CODE` tells more.
    fn code(&self) -> &'static str;

    /// What to do next; never a hint that may be false.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Exit status of the process (see the table in `README.md`).
    fn exit_code(&self) -> u8;
}

/// The whole message as printed on standard error, without a final newline.
pub fn report(error: &dyn Help) -> String {
    let mut text = format!("error[{}]: {error}", error.code());
    if let Some(hint) = error.hint() {
        write!(text, "\n\nhint: {hint}").expect("writing to a string cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Cold;

    impl fmt::Display for Cold {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "the tea is cold\n  in `cup`\n  because it stood for 40 minutes")
        }
    }

    impl Error for Cold {}

    impl Help for Cold {
        fn code(&self) -> &'static str {
            "SC0999"
        }
        fn hint(&self) -> Option<String> {
            Some("drink sooner".to_owned())
        }
        fn exit_code(&self) -> u8 {
            1
        }
    }

    #[test]
    fn a_report_has_code_sentence_place_cause_and_hint() {
        let expected = "error[SC0999]: the tea is cold\n  in `cup`\n  because it stood for 40 minutes\n\nhint: drink sooner";
        assert_eq!(report(&Cold), expected);
    }
}
