//! Reading clocks, and the arithmetic between true and shown time.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;

use libc::{c_int, clockid_t, time_t, timespec, timeval};

use crate::layout::Control;
use crate::next::next;
use crate::state;

/// Where `CLOCK_MONOTONIC` stands in [`crate::layout::CLOCKS`].
pub(crate) const MONOTONIC: usize = 0;
/// Where `CLOCK_REALTIME` does.
pub(crate) const WALL: usize = 3;

next!(
    true_gettime = c"clock_gettime",
    fn(clock: clockid_t, time: *mut timespec) -> c_int, else -1
);
next!(
    true_gettimeofday = c"gettimeofday",
    fn(time: *mut timeval, zone: *mut libc::c_void) -> c_int, else -1
);
next!(true_time = c"time", fn(time: *mut time_t) -> time_t, else -1);

/// Which line of the control a clock follows; `None`: it is not bent.
pub(crate) fn place(clock: clockid_t) -> Option<usize> {
    Some(match clock {
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_COARSE => MONOTONIC,
        libc::CLOCK_MONOTONIC_RAW => 1,
        libc::CLOCK_BOOTTIME => 2,
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => WALL,
        _ => return None,
    })
}

pub(crate) fn nanos(time: &timespec) -> i64 {
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}

pub(crate) fn spec(ns: i64) -> timespec {
    let ns = ns.max(0);
    timespec {
        tv_sec: ns / 1_000_000_000,
        tv_nsec: ns % 1_000_000_000,
    }
}

/// A true clock, in nanoseconds.
fn true_ns(clock: clockid_t) -> i64 {
    let mut time = spec(0);
    // SAFETY: `time` is valid. A clock that exists cannot fail to be read.
    unsafe { true_gettime(clock, &raw mut time) };
    nanos(&time)
}

/// A moment as one consistent reading: what is, what is shown, and how fast it is shown.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) true_ns: i64,
    pub(crate) shown_ns: i64,
    rate: f64,
}

impl Reading {
    /// True nanoseconds until so many are shown, if the rate stays.
    pub(crate) fn true_until(&self, shown_ns: i64) -> i64 {
        let left_ns = shown_ns.saturating_sub(self.shown_ns);
        if self.rate == 1.0 {
            left_ns
        } else {
            // Up, so that a wait does not end a moment before its time.
            (left_ns as f64 / self.rate).ceil() as i64
        }
    }
}

/// Reads a clock by its place and tells that it was read under the newest setting. The true clock
/// is read inside the sequence lock; see [`Control::sequence`].
pub(crate) fn read(control: &Control, place: usize, clock: clockid_t) -> Reading {
    let line = &control.clocks[place];
    let mut tries = 0u32;
    loop {
        let sequence = control.sequence.load(Acquire);
        if sequence & 1 == 0 {
            let true_ns = true_ns(clock);
            clock_is_read();
            let rate = f64::from_bits(control.rate.load(Relaxed));
            let since_ns = true_ns - line.true_ns.load(Relaxed);
            let shown = line.shown_ns.load(Relaxed);
            fence(Acquire);
            if control.sequence.load(Relaxed) == sequence {
                if control.seen.load(Relaxed) != sequence {
                    control.seen.store(sequence, Relaxed);
                }
                let since_ns = if rate == 1.0 {
                    since_ns
                } else {
                    (since_ns as f64 * rate) as i64
                };
                return Reading {
                    true_ns,
                    shown_ns: shown + since_ns,
                    rate,
                };
            }
        }
        tries += 1;
        if tries.is_multiple_of(64) {
            // The writer was interrupted in the middle.
            // SAFETY: no requirement.
            unsafe { libc::sched_yield() };
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Holds what follows back until the clock has been read: a processor may else look at the
/// sequence lock first, find it unchanged, and read the clock after the writer has.
fn clock_is_read() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this kind has the instruction.
    unsafe {
        std::arch::x86_64::_mm_lfence();
    }
    #[cfg(not(target_arch = "x86_64"))]
    fence(std::sync::atomic::Ordering::SeqCst);
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    match (state::control(), place(clock)) {
        (Some(control), Some(place)) if !time.is_null() => {
            let shown = spec(read(control, place, clock).shown_ns);
            // SAFETY: the caller's own, and not null.
            unsafe { *time = shown };
            0
        }
        // SAFETY: as the caller called.
        _ => unsafe { true_gettime(clock, time) },
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn gettimeofday(time: *mut timeval, zone: *mut libc::c_void) -> c_int {
    match state::control() {
        Some(control) if !time.is_null() => {
            let shown = spec(read(control, WALL, libc::CLOCK_REALTIME).shown_ns);
            // SAFETY: the caller's own, and not null.
            unsafe {
                *time = timeval {
                    tv_sec: shown.tv_sec,
                    tv_usec: shown.tv_nsec / 1_000,
                };
            }
            0
        }
        // SAFETY: as the caller called.
        _ => unsafe { true_gettimeofday(time, zone) },
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn time(time: *mut time_t) -> time_t {
    let Some(control) = state::control() else {
        // SAFETY: as the caller called.
        return unsafe { true_time(time) };
    };
    let seconds = spec(read(control, WALL, libc::CLOCK_REALTIME).shown_ns).tv_sec;
    if !time.is_null() {
        // SAFETY: the caller's own, and not null.
        unsafe { *time = seconds };
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    /// A control that shows twice the speed from a moment on.
    fn fast() -> Control {
        // SAFETY: zeros are a control.
        let control: Control = unsafe { std::mem::zeroed() };
        control.rate.store(2f64.to_bits(), Relaxed);
        let now = true_ns(libc::CLOCK_MONOTONIC);
        control.clocks[MONOTONIC].true_ns.store(now, Relaxed);
        control.clocks[MONOTONIC].shown_ns.store(1_000, Relaxed);
        control
    }

    #[test]
    fn a_fast_clock_shows_twice_what_has_passed() {
        let control = fast();
        let begun = control.clocks[MONOTONIC].true_ns.load(Relaxed);
        let reading = read(&control, MONOTONIC, libc::CLOCK_MONOTONIC);
        assert_eq!(reading.shown_ns, 1_000 + 2 * (reading.true_ns - begun));
        assert_eq!(reading.true_until(reading.shown_ns + 100), 50);
        assert_eq!(reading.true_until(reading.shown_ns - 100), -50);
    }

    #[test]
    fn a_reading_is_noted_under_its_setting() {
        let control = fast();
        control.sequence.store(6, Relaxed);
        read(&control, MONOTONIC, libc::CLOCK_MONOTONIC);
        assert_eq!(control.seen.load(Relaxed), 6);
    }
}
