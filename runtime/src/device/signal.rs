//! One wish to stop, made by a person with Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// Set once the person wishes to stop; hand it to whatever can be interrupted.
#[must_use]
pub fn stop_wish() -> &'static AtomicBool {
    &STOP
}

/// From now on the first Ctrl-C (or termination) sets [`stop_wish`]; the second one ends the
/// process as usual.
pub fn listen() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: `note` is async-signal-safe: it stores to an atomic and calls `signal`, which
        // POSIX lists as safe. Replacing the disposition is what a program may do to itself.
        unsafe {
            libc::signal(signal, note as extern "C" fn(libc::c_int) as libc::sighandler_t);
        }
    }
}

extern "C" fn note(signal: libc::c_int) {
    STOP.store(true, Ordering::SeqCst);
    // SAFETY: see `listen`; the default disposition is always valid.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
    }
}

/// From now on Ctrl-C and termination end the process again, and an earlier wish is forgotten.
pub fn forget() {
    STOP.store(false, Ordering::SeqCst);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the default disposition is always valid.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}
