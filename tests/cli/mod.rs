//! What a person sees: commands, outputs and exit codes as transcripts.

use sail_tests::harness::Test;

pub fn tests() -> Vec<Test> {
    Vec::new()
}
