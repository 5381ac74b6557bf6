//! One wish to stop, made by a person with Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};

const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

static STOP: AtomicBool = AtomicBool::new(false);

/// Set once the person wishes to stop; hand it to whatever can be interrupted.
#[must_use]
pub fn stop_wish() -> &'static AtomicBool {
    &STOP
}

/// From now on the first Ctrl-C (or termination, or loss of the terminal) sets [`stop_wish`]; the
/// second one ends the process as usual.
///
/// A signal that is ignored stays ignored: `nohup` and background jobs of a shell mean that.
pub fn listen() {
    for signal in SIGNALS {
        // SAFETY: `note` is async-signal-safe: it stores to an atomic and calls `signal`, which
        // POSIX lists as safe. Replacing the disposition is what a program may do to itself.
        unsafe {
            let handler = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
            if libc::signal(signal, handler) == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_IGN);
            }
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

/// From now on those signals end the process again, and an earlier wish is forgotten.
pub fn forget() {
    STOP.store(false, Ordering::SeqCst);
    for signal in SIGNALS {
        // SAFETY: the default disposition is always valid, and so is the one a signal had.
        unsafe {
            if libc::signal(signal, libc::SIG_DFL) == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_IGN);
            }
        }
    }
}
