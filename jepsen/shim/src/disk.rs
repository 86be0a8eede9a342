//! `fsync` and its like: late, failing or lying, for files below one directory.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use libc::{c_int, c_uint, off64_t};

use crate::clock::spec;
use crate::layout::{Control, PREFIX_BYTES, SYNC_FAILS, SYNC_LIES};
use crate::next::{fail, next};
use crate::state;
use crate::wait::true_nanosleep;

next!(true_fsync = c"fsync", fn(fd: c_int) -> c_int, else -1);
next!(true_fdatasync = c"fdatasync", fn(fd: c_int) -> c_int, else -1);
next!(true_sync_file_range = c"sync_file_range",
    fn(fd: c_int, from: off64_t, bytes: off64_t, flags: c_uint) -> c_int, else -1);

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: as the caller called.
    struck(fd).unwrap_or_else(|| unsafe { true_fsync(fd) })
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: as the caller called.
    struck(fd).unwrap_or_else(|| unsafe { true_fdatasync(fd) })
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn sync_file_range(
    fd: c_int,
    from: off64_t,
    bytes: off64_t,
    flags: c_uint,
) -> c_int {
    // SAFETY: as the caller called.
    struck(fd).unwrap_or_else(|| unsafe { true_sync_file_range(fd, from, bytes, flags) })
}

/// Strikes a call about this file, if it is to be struck: late, and then the result that the
/// caller is to get. `None`: the true call is to be made.
fn struck(fd: c_int) -> Option<c_int> {
    let control = state::control()?;
    if control.prefix_len.load(Acquire) == 0 || !is_below(control, fd) {
        return None;
    }
    control.sync_struck.fetch_add(1, Relaxed);
    let delay_us = control.sync_delay_us.load(Relaxed);
    if delay_us > 0 {
        // A slow disk is slow in true time.
        let time = spec(i64::from(delay_us) * 1_000);
        // SAFETY: the time is valid; an interrupted sleep is a shorter one.
        unsafe { true_nanosleep(&raw const time, std::ptr::null_mut()) };
    }
    match control.sync_mode.load(Relaxed) {
        SYNC_FAILS => Some(fail(libc::EIO, -1)),
        SYNC_LIES => Some(0),
        _ => None,
    }
}

/// Whether an open file stands below the directory that is struck.
fn is_below(control: &Control, fd: c_int) -> bool {
    let mut link = [0u8; 32];
    let mut path = [0u8; PREFIX_BYTES + 256];
    write_link(&mut link, fd);
    // SAFETY: `link` ends with a zero, and `path` has the length given.
    let length =
        unsafe { libc::readlink(link.as_ptr().cast(), path.as_mut_ptr().cast(), path.len()) };
    let Some(path) = usize::try_from(length)
        .ok()
        .and_then(|length| path.get(..length))
    else {
        return false;
    };
    let prefix = control.prefix_len.load(Acquire) as usize;
    let prefix = prefix.min(PREFIX_BYTES);
    if prefix == 0 || path.len() < prefix {
        return false;
    }
    let same = path.iter().zip(&control.prefix[..prefix]);
    let mut same = same.map(|(one, other)| *one == other.load(Relaxed));
    same.all(|same| same) && matches!(path.get(prefix), None | Some(b'/'))
}

/// `/proc/self/fd/N`, with a zero behind it.
fn write_link(link: &mut [u8; 32], fd: c_int) {
    const STEM: &[u8] = b"/proc/self/fd/";
    link[..STEM.len()].copy_from_slice(STEM);
    let mut digits = [0u8; 10];
    let mut count = 0;
    let mut rest = fd.unsigned_abs();
    loop {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    for (to, from) in link[STEM.len()..]
        .iter_mut()
        .zip(digits[..count].iter().rev())
    {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn a_descriptor_is_written_as_its_link() {
        for (fd, text) in [
            (0, "0"),
            (7, "7"),
            (120, "120"),
            (2_147_483_647, "2147483647"),
        ] {
            let mut link = [0u8; 32];
            write_link(&mut link, fd);
            let end = link.iter().position(|byte| *byte == 0).unwrap();
            assert_eq!(&link[..end], format!("/proc/self/fd/{text}").as_bytes());
        }
    }

    #[test]
    fn only_files_below_the_directory_are_struck() {
        // SAFETY: zeros are a control.
        let control: Control = unsafe { std::mem::zeroed() };
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        let path = path.to_str().unwrap();
        for (prefix, below) in [
            ("/proc", true),
            (path, true),
            ("/pro", false),
            ("/tmp", false),
        ] {
            for (to, from) in control.prefix.iter().zip(prefix.bytes()) {
                to.store(from, Relaxed);
            }
            control.prefix_len.store(prefix.len() as u32, Relaxed);
            assert_eq!(is_below(&control, file.as_raw_fd()), below, "{prefix}");
        }
    }
}
