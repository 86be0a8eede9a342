//! A timer that is exact to some microseconds. The runtime's own are late by up to two milliseconds
//! even where it has nothing to do.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Ticks once in each period, from one period after it was made. The runtime sees a tick as it sees
/// that a request has arrived: by a file that can be read.
pub(super) struct Tick(AsyncFd<File>);

impl Tick {
    /// # Errors
    /// There are too many open files, or this is not within a runtime.
    pub(super) fn every(period: Duration) -> io::Result<Self> {
        // SAFETY: it has no requirements.
        let fd = unsafe {
            libc::timerfd_create(
                libc::CLOCK_MONOTONIC,
                libc::TFD_NONBLOCK | libc::TFD_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was opened just now, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let time = libc::timespec {
            tv_sec: period.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: period.subsec_nanos().into(),
        };
        let times = libc::itimerspec {
            it_interval: time,
            it_value: time,
        };
        // SAFETY: `fd` is open, `times` can be read; the old times are not asked for.
        if unsafe { libc::timerfd_settime(fd.as_raw_fd(), 0, &times, ptr::null_mut()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the file stays open, and the same, for as long as it is in there.
        let fd = unsafe { AsyncFd::register_with_interest(File::from(fd), Interest::READABLE)? };
        Ok(Self(fd))
    }

    /// Waits for the next tick; at once if there were some since the last call.
    ///
    /// # Errors
    /// It does not tick any more.
    pub(super) async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut ticks = [0; size_of::<u64>()];
            match ready.try_io(|file| file.get_ref().read(&mut ticks)) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn it_ticks_no_earlier_than_it_must() {
        let begun = Instant::now();
        let tick = Tick::every(Duration::from_millis(2)).unwrap();
        for _ in 0..3 {
            tick.next().await.unwrap();
        }
        // Ticks that are not waited for count as one.
        assert!(begun.elapsed() >= Duration::from_millis(6));
    }
}
