//! House rules as tests.

use sail_tests::harness::Test;

pub fn tests() -> Vec<Test> {
    Vec::new()
}
