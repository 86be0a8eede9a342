//! True time: the one clock that all hosts of a run share, read past any shim.

use std::time::Duration;

/// The kernel's `CLOCK_MONOTONIC_RAW` in nanoseconds, by a system call of its own: a library that
/// stands in front of libc's `clock_gettime` does not see it.
pub fn true_now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec to the pointer given, which outlives the call.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_clock_gettime,
            libc::CLOCK_MONOTONIC_RAW,
            &raw mut time,
        )
    };
    debug_assert_eq!(failed, 0, "every Linux since 2.6.28 has this clock");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanos
}

/// When a run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    at_ns: u64,
}

impl Origin {
    /// A run that begins now.
    pub fn now() -> Self {
        Self {
            at_ns: true_now_ns(),
        }
    }

    /// The true time of the beginning itself.
    pub fn at_ns(self) -> u64 {
        self.at_ns
    }

    /// Nanoseconds since then.
    pub fn elapsed_ns(self) -> u64 {
        true_now_ns().saturating_sub(self.at_ns)
    }

    /// The time since then.
    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(self.elapsed_ns())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_since_the_origin_does_not_fall() {
        let origin = Origin::now();
        let first = origin.elapsed_ns();
        assert!(origin.elapsed_ns() >= first);
        assert!(origin.at_ns() > 0);
    }
}
