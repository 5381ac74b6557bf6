//! The entry points, one file for each kind.

mod code;
mod gpu;
mod memory;
mod stream;

use crate::answer::SUCCESS;

/// Entry points with the driver's names, each of which answers with a code.
macro_rules! driver {
    ($($(#[$note:meta])* fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block)*) => {$(
        $(#[$note])*
        // SAFETY: the names are the driver's own, and no other library of them is loaded; callers
        // keep to the driver's manual.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $kind),*) -> u32 {
            $crate::calls::answer(move || $body)
        }
    )*};
}
pub(crate) use driver;

fn answer(body: impl FnOnce() -> Result<(), u32>) -> u32 {
    body().err().unwrap_or(SUCCESS)
}
