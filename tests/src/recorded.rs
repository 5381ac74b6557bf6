//! Checkpoints for which an independent reference recorded its outputs.

use std::path::PathBuf;

use crate::harness::Outcome;
use crate::places::{shared, workspace};

/// A checkpoint and its golden file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// For people.
    pub name: &'static str,
    /// The checkpoint's folder, and the golden's; both in the repository or both in `../shared`.
    folders: [&'static str; 2],
    committed: bool,
}

/// The small ones come first, so that what is wrong everywhere is seen soon.
pub const RECORDED: [Recorded; 6] = [
    committed("odd-dense", "tests/goldens/odd-dense", "tests/goldens/odd-dense"),
    committed("odd-moe", "tests/goldens/odd-moe", "tests/goldens/odd-moe"),
    committed("sail-vl2-tiny", "models/sail-vl2-tiny", "tests/goldens/tiny"),
    beside("random-dense", "fixtures/random-dense"),
    beside("random-moe", "fixtures/random-moe"),
    beside("random-long", "fixtures/random-long"),
];

const fn committed(name: &'static str, model: &'static str, golden: &'static str) -> Recorded {
    Recorded { name, folders: [model, golden], committed: true }
}

const fn beside(name: &'static str, folder: &'static str) -> Recorded {
    Recorded { name, folders: [folder, folder], committed: false }
}

impl Recorded {
    /// Is it in the repository, and so always there?
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.committed
    }

    /// The checkpoint's folder and the golden file.
    ///
    /// Skips where they are not committed and `../shared` is absent.
    pub fn paths(&self) -> Result<(PathBuf, PathBuf), Outcome> {
        let [model, golden] = self.folders;
        let (model, golden) = match self.committed {
            true => (workspace().join(model), workspace().join(golden)),
            false => (shared(model)?, shared(golden)?),
        };
        Ok((model, golden.join("golden.safetensors")))
    }
}
