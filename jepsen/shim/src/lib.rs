//! Stands in front of the clocks and the disk of one process.
//!
//! Preloaded (`LD_PRELOAD`) into a program that is linked with glibc dynamically, it lets the
//! program's clocks run at another rate, moves its wall clock, and lets `fsync` fail, dawdle or
//! lie, all as a small mapped file says at each moment (`layout::Control`). Behind proxies it
//! also gives the program an address of its own (`net`).
//!
//! Two things make bent clocks believable. All clocks bend together: `CLOCK_MONOTONIC`, `_RAW`,
//! `_BOOTTIME` and `_REALTIME`. And all waits bend with them, by the same rate, also those that
//! are in progress when the rate changes: a timer of a fast clock must fire early, or a fast
//! clock would do no harm. The kernel's own system calls are not touched:
//! `syscall(SYS_clock_gettime, …)` is the true time.
//!
//! Not bent: `select`, `timerfd`, `sem_timedwait`, timed locks of mutexes, and condition variables
//! that were set to another clock by `pthread_condattr_setclock` and are waited for by
//! `pthread_cond_timedwait`. Programs that make system calls without libc, as Go's do, are not
//! reached at all.
//!
//! Nothing here allocates, and nothing here asks the standard library for the time: these
//! functions are called before `main`, inside allocators, and instead of the clock itself.

// In its own tests nothing is exported: the tests' clocks stay the true ones.
#![cfg_attr(test, allow(dead_code))]

mod clock;
mod disk;
#[allow(dead_code)] // It serves the driver too.
mod layout;
mod net;
mod next;
mod state;
mod wait;
