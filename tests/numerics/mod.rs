//! Every kernel template against its scalar twin, over one list of cases.

use sail_tests::harness::Test;

pub fn tests() -> Vec<Test> {
    Vec::new()
}
