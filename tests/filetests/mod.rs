//! The dialect as text: each rule and pass on small modules, each message on its line.

use sail_tests::harness::Test;

pub fn tests() -> Vec<Test> {
    Vec::new()
}
