//! From a checkpoint to logits and tokens, held to goldens of an independent implementation.

mod oracle;

use sail_tests::harness::Test;

pub fn tests() -> Vec<Test> {
    oracle::tests()
}
