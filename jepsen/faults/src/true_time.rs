//! The one clock that no fault touches: `CLOCK_MONOTONIC_RAW`, by the system call itself.

/// A point in true time that others are measured from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrueTime(u64);

impl TrueTime {
    /// Now.
    pub fn now() -> Self {
        Self(true_now_ns())
    }

    /// A point given as the clock's own reading, in nanoseconds.
    pub fn at_ns(reading_ns: u64) -> Self {
        Self(reading_ns)
    }

    /// The clock's reading at this point, in nanoseconds.
    pub fn reading_ns(self) -> u64 {
        self.0
    }

    /// Nanoseconds from this point until now.
    pub fn elapsed_ns(self) -> u64 {
        true_now_ns().saturating_sub(self.0)
    }
}

/// The kernel's `CLOCK_MONOTONIC_RAW` in nanoseconds, past any preloaded library.
pub fn true_now_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC_RAW)
}

/// The kernel's wall clock in nanoseconds since 1970, past any preloaded library.
pub fn true_wall_ns() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// Another of the kernel's clocks, past any preloaded library.
pub(crate) fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec to write to. These clocks exist on every Linux, so that
    // the call cannot fail.
    unsafe {
        libc::syscall(libc::SYS_clock_gettime, clock, &raw mut time);
    }
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}
