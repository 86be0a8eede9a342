//! Waits, which bend with the clocks.
//!
//! A wait is carried out in pieces of at most [`PIECE_NS`], so that a change of the rate reaches
//! waits in progress. Waits that the caller must expect to end early for no reason (condition
//! variables) are ended so after a piece; the others go on by themselves.

use libc::{
    c_int, c_long, clockid_t, epoll_event, nfds_t, pollfd, pthread_cond_t, pthread_mutex_t,
    sigset_t, timespec,
};

use crate::clock::{MONOTONIC, WALL, nanos, place, read, spec};
use crate::layout::Control;
use crate::next::{errno, fail, next};
use crate::state;

/// The longest piece, in true nanoseconds.
const PIECE_NS: i64 = 100_000_000;

next!(true_nanosleep = c"nanosleep",
    fn(time: *const timespec, left: *mut timespec) -> c_int, else -1);
next!(true_clock_nanosleep = c"clock_nanosleep",
    fn(clock: clockid_t, flags: c_int, time: *const timespec, left: *mut timespec) -> c_int,
    else libc::ENOSYS);
next!(true_usleep = c"usleep", fn(us: libc::useconds_t) -> c_int, else -1);
next!(true_sleep = c"sleep", fn(s: libc::c_uint) -> libc::c_uint, else s);
next!(true_epoll_wait = c"epoll_wait",
    fn(epoll: c_int, events: *mut epoll_event, most: c_int, ms: c_int) -> c_int, else -1);
next!(true_epoll_pwait = c"epoll_pwait",
    fn(epoll: c_int, events: *mut epoll_event, most: c_int, ms: c_int, set: *const sigset_t) -> c_int,
    else -1);
next!(true_epoll_pwait2 = c"epoll_pwait2",
    fn(epoll: c_int, events: *mut epoll_event, most: c_int, time: *const timespec, set: *const sigset_t) -> c_int,
    else -1);
next!(true_poll = c"poll", fn(fds: *mut pollfd, count: nfds_t, ms: c_int) -> c_int, else -1);
next!(true_ppoll = c"ppoll",
    fn(fds: *mut pollfd, count: nfds_t, time: *const timespec, set: *const sigset_t) -> c_int,
    else -1);
next!(true_cond_timedwait = c"pthread_cond_timedwait",
    fn(cond: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, time: *const timespec) -> c_int,
    else libc::ENOSYS);
next!(true_cond_clockwait = c"pthread_cond_clockwait",
    fn(cond: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, clock: clockid_t, time: *const timespec) -> c_int,
    else libc::ENOSYS);
next!(true_syscall = c"syscall",
    fn(number: c_long, a: c_long, b: c_long, c: c_long, d: c_long, e: c_long, f: c_long) -> c_long,
    else -1);

/// The end of a wait, on a clock as it is shown.
#[derive(Clone, Copy)]
struct Deadline {
    control: &'static Control,
    place: usize,
    clock: clockid_t,
    shown_ns: i64,
}

impl Deadline {
    /// So many shown nanoseconds from now.
    fn after(control: &'static Control, ns: i64) -> Self {
        let clock = libc::CLOCK_MONOTONIC;
        let now = read(control, MONOTONIC, clock);
        Self {
            control,
            place: MONOTONIC,
            clock,
            shown_ns: now.shown_ns.saturating_add(ns.max(0)),
        }
    }

    /// When this clock shows this; `None`: the clock is not bent.
    fn at(control: &'static Control, clock: clockid_t, shown: &timespec) -> Option<Self> {
        Some(Self {
            control,
            place: place(clock)?,
            clock,
            shown_ns: nanos(shown),
        })
    }

    /// True nanoseconds that are left; 0 when it has come.
    fn left_ns(&self) -> i64 {
        let now = read(self.control, self.place, self.clock);
        now.true_until(self.shown_ns).max(0)
    }

    /// Shown nanoseconds that are left; 0 when it has come.
    fn shown_left_ns(&self) -> i64 {
        let now = read(self.control, self.place, self.clock);
        (self.shown_ns - now.shown_ns).max(0)
    }

    /// A moment on the true clock: the end, or of the next piece if that is sooner.
    fn next_true(&self) -> timespec {
        let now = read(self.control, self.place, self.clock);
        let left_ns = now.true_until(self.shown_ns).clamp(0, PIECE_NS);
        spec(now.true_ns + left_ns)
    }

    /// Waits piece by piece: `piece` is given true nanoseconds and says whether it was only time
    /// that ended it. What it returned last is returned.
    fn wait<T>(&self, mut piece: impl FnMut(i64) -> (bool, T)) -> T {
        loop {
            let left_ns = self.left_ns();
            let (timed_out, result) = piece(left_ns.min(PIECE_NS));
            if !timed_out || left_ns <= PIECE_NS && self.left_ns() == 0 {
                return result;
            }
        }
    }
}

/// Whole milliseconds, rounded up.
fn millis(ns: i64) -> c_int {
    ((ns + 999_999) / 1_000_000) as c_int
}

/// Waits in pieces for a function that returns 0 when time is up; `timeout_ns` is shown time.
fn in_pieces(
    control: &'static Control,
    timeout_ns: i64,
    mut piece: impl FnMut(i64) -> c_int,
) -> c_int {
    if timeout_ns <= 0 {
        return piece(0);
    }
    Deadline::after(control, timeout_ns).wait(|ns| {
        let ready = piece(ns);
        (ready == 0, ready)
    })
}

const MS: i64 = 1_000_000;

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    ms: c_int,
) -> c_int {
    // SAFETY: as the caller called, but for the time.
    let wait = |ms| unsafe { true_epoll_wait(epoll, events, most, ms) };
    match state::control() {
        Some(control) if ms > 0 => in_pieces(control, i64::from(ms) * MS, |ns| wait(millis(ns))),
        _ => wait(ms),
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn epoll_pwait(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    ms: c_int,
    set: *const sigset_t,
) -> c_int {
    // SAFETY: as the caller called, but for the time.
    let wait = |ms| unsafe { true_epoll_pwait(epoll, events, most, ms, set) };
    match state::control() {
        Some(control) if ms > 0 => in_pieces(control, i64::from(ms) * MS, |ns| wait(millis(ns))),
        _ => wait(ms),
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    time: *const timespec,
    set: *const sigset_t,
) -> c_int {
    // SAFETY: as the caller called, but for the time.
    let wait = |time| unsafe { true_epoll_pwait2(epoll, events, most, time, set) };
    match state::control() {
        Some(control) if !time.is_null() => {
            // SAFETY: the caller's own, and not null.
            let timeout_ns = nanos(unsafe { &*time });
            in_pieces(control, timeout_ns, |ns| {
                let time = spec(ns);
                wait(&raw const time)
            })
        }
        _ => wait(time),
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn poll(fds: *mut pollfd, count: nfds_t, ms: c_int) -> c_int {
    // SAFETY: as the caller called, but for the time.
    let wait = |ms| unsafe { true_poll(fds, count, ms) };
    match state::control() {
        Some(control) if ms > 0 => in_pieces(control, i64::from(ms) * MS, |ns| wait(millis(ns))),
        _ => wait(ms),
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    time: *const timespec,
    set: *const sigset_t,
) -> c_int {
    // SAFETY: as the caller called, but for the time.
    let wait = |time| unsafe { true_ppoll(fds, count, time, set) };
    match state::control() {
        Some(control) if !time.is_null() => {
            // SAFETY: the caller's own, and not null.
            let timeout_ns = nanos(unsafe { &*time });
            in_pieces(control, timeout_ns, |ns| {
                let time = spec(ns);
                wait(&raw const time)
            })
        }
        _ => wait(time),
    }
}

/// Sleeps; the result is that of `clock_nanosleep`: 0 or an error.
fn sleep_until(deadline: &Deadline) -> c_int {
    deadline.wait(|ns| {
        let time = spec(ns);
        // SAFETY: the time is valid for the call.
        let result = unsafe {
            true_clock_nanosleep(
                libc::CLOCK_MONOTONIC,
                0,
                &raw const time,
                std::ptr::null_mut(),
            )
        };
        (result == 0, result)
    })
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    time: *const timespec,
    left: *mut timespec,
) -> c_int {
    // SAFETY: as the caller called.
    let truly = || unsafe { true_clock_nanosleep(clock, flags, time, left) };
    let Some(control) = state::control().filter(|_| !time.is_null()) else {
        return truly();
    };
    // SAFETY: the caller's own, and not null.
    let wanted = unsafe { &*time };
    if !(0..1_000_000_000).contains(&wanted.tv_nsec) || wanted.tv_sec < 0 {
        return libc::EINVAL;
    }
    let absolute = flags & libc::TIMER_ABSTIME != 0;
    let deadline = if absolute {
        Deadline::at(control, clock, wanted)
    } else {
        place(clock).map(|_| Deadline::after(control, nanos(wanted)))
    };
    let Some(deadline) = deadline else {
        return truly();
    };
    let result = sleep_until(&deadline);
    if result == libc::EINTR && !absolute && !left.is_null() {
        // SAFETY: the caller's own, and not null.
        unsafe { *left = spec(deadline.shown_left_ns()) };
    }
    result
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn nanosleep(time: *const timespec, left: *mut timespec) -> c_int {
    if state::control().is_none() {
        // SAFETY: as the caller called.
        return unsafe { true_nanosleep(time, left) };
    }
    // SAFETY: as the caller called.
    match unsafe { clock_nanosleep(libc::CLOCK_MONOTONIC, 0, time, left) } {
        0 => 0,
        error => fail(error, -1),
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn usleep(us: libc::useconds_t) -> c_int {
    let Some(control) = state::control() else {
        // SAFETY: no requirement.
        return unsafe { true_usleep(us) };
    };
    match sleep_until(&Deadline::after(control, i64::from(us) * 1_000)) {
        0 => 0,
        error => fail(error, -1),
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn sleep(s: libc::c_uint) -> libc::c_uint {
    let Some(control) = state::control() else {
        // SAFETY: no requirement.
        return unsafe { true_sleep(s) };
    };
    let deadline = Deadline::after(control, i64::from(s) * 1_000_000_000);
    match sleep_until(&deadline) {
        0 => 0,
        _ => (deadline.shown_left_ns() / 1_000_000_000) as libc::c_uint,
    }
}

/// Tells a piece's end from the end: a condition variable may wake for no reason, and so it does.
fn woken(deadline: &Deadline, result: c_int) -> c_int {
    if result == libc::ETIMEDOUT && deadline.left_ns() > 0 {
        0
    } else {
        result
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn pthread_cond_timedwait(
    cond: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    time: *const timespec,
) -> c_int {
    let Some(control) = state::control() else {
        // SAFETY: as the caller called.
        return unsafe { true_cond_timedwait(cond, mutex, time) };
    };
    let deadline = Deadline {
        control,
        place: WALL,
        clock: libc::CLOCK_REALTIME,
        // SAFETY: the caller's own.
        shown_ns: nanos(unsafe { &*time }),
    };
    let until = deadline.next_true();
    // SAFETY: as the caller called, but for the time.
    let result = unsafe { true_cond_timedwait(cond, mutex, &raw const until) };
    woken(&deadline, result)
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn pthread_cond_clockwait(
    cond: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: the caller's own.
    let shown = unsafe { &*time };
    let deadline = state::control().and_then(|control| Deadline::at(control, clock, shown));
    let Some(deadline) = deadline else {
        // SAFETY: as the caller called.
        return unsafe { true_cond_clockwait(cond, mutex, clock, time) };
    };
    let until = deadline.next_true();
    // SAFETY: as the caller called, but for the time.
    let result = unsafe { true_cond_clockwait(cond, mutex, clock, &raw const until) };
    woken(&deadline, result)
}

/// In C this function takes any number of arguments. Six words more than the first are the most
/// that a system call has; on the machines that Linux runs on they stand in the same places for a
/// function that takes exactly these, and reading one that was not given does no harm.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    // SAFETY: as the caller called, but for the time.
    let call = |b: c_long, d: c_long| unsafe { true_syscall(number, a, b, c, d, e, f) };
    let Some(control) = state::control() else {
        return call(b, d);
    };
    if number != libc::SYS_futex || d == 0 {
        return call(b, d);
    }
    let command = b as c_int & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
    // SAFETY: for these two commands the fourth argument points to a time.
    let time = || unsafe { &*(d as *const timespec) };
    let deadline = match command {
        libc::FUTEX_WAIT => Some(Deadline::after(control, nanos(time()))),
        libc::FUTEX_WAIT_BITSET if b as c_int & libc::FUTEX_CLOCK_REALTIME != 0 => {
            Deadline::at(control, libc::CLOCK_REALTIME, time())
        }
        libc::FUTEX_WAIT_BITSET => Deadline::at(control, libc::CLOCK_MONOTONIC, time()),
        _ => None,
    };
    let Some(deadline) = deadline else {
        return call(b, d);
    };
    deadline.wait(|ns| {
        let until = if command == libc::FUTEX_WAIT {
            spec(ns)
        } else {
            deadline.next_true()
        };
        let result = call(b, (&raw const until) as c_long);
        (result < 0 && errno() == libc::ETIMEDOUT, result)
    })
}
