//! Ctrl-C and `SIGTERM`: the run ends early, heals, and keeps what it has seen.

use std::sync::atomic::{AtomicBool, Ordering};

/// Set by the signal.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(signal: libc::c_int) {
    // A second Ctrl-C ends the program at once; faults end with it.
    if INTERRUPTED.swap(true, Ordering::Relaxed) && signal == libc::SIGINT {
        // SAFETY: `_exit` may be called in a signal handler.
        unsafe { libc::_exit(130) };
    }
}

/// Lets `SIGINT` and `SIGTERM` end a run in order instead of the program at once.
pub fn watch() {
    let handler = note as extern "C" fn(libc::c_int);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does nothing but what handlers may: an atomic and `_exit`.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Whether the signal came.
pub fn came() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}
