//! From a checkpoint to logits and tokens, held to goldens of an independent implementation.

mod drawn;
mod oracle;
mod verified;

use sail_tests::harness::Test;

pub fn tests() -> Vec<Test> {
    [oracle::tests(), verified::tests(), drawn::tests()].into_iter().flatten().collect()
}
