//! Compiles the small model for this CPU and asks it three questions about a picture.

use crate::packages;
use crate::run::{Result, binaries, root};

const MODEL: &str = "models/sail-vl2-tiny";

/// The whole road on the model that is in the repository.
///
/// Refuses when its weights are not there.
pub fn demo() -> Result<()> {
    packages::install()?;
    if !root().join(MODEL).join("model.safetensors").is_file() {
        return Err(format!(
            "`{MODEL}/model.safetensors` is missing\n\nhint: fetch the whole repository"
        ));
    }
    binaries().map(drop)
}
