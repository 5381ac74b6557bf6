//! From a checkpoint to logits and tokens, held to goldens of an independent implementation.

mod calibrated;
mod decoded;
mod drawn;
mod experts;
mod gpu;
mod made;
mod observed;
mod oracle;
mod placed;
mod promises;
mod prompts;
mod quality;
mod recorded;
mod scripts;
mod sizes;
mod tuned;
mod verified;

use sail_tests::harness::Test;

pub fn tests() -> Vec<Test> {
    let lists = [
        oracle::tests(),
        prompts::tests(),
        verified::tests(),
        promises::tests(),
        drawn::tests(),
        experts::tests(),
        placed::tests(),
        sizes::tests(),
        tuned::tests(),
        gpu::tests(),
        recorded::tests(),
        scripts::tests(),
        decoded::tests(),
        made::tests(),
        quality::tests(),
        calibrated::tests(),
    ];
    lists.into_iter().flatten().collect()
}
