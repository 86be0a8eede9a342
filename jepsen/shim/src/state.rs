//! What was told to this process when it was started.

use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::layout::{ADDRESS_ENV, CONTROL_ENV, Control, MAGIC, PORTS_ENV, Ports};

static CONTROL: AtomicPtr<Control> = AtomicPtr::new(std::ptr::null_mut());
static PORTS: AtomicPtr<Ports> = AtomicPtr::new(std::ptr::null_mut());
/// The public address of this host, in the order of its numbers; 0: none.
static ADDRESS: AtomicU32 = AtomicU32::new(0);

/// Carried out by the loader, before the program's `main` and before it has other threads.
#[cfg_attr(not(test), unsafe(link_section = ".init_array"))]
#[used]
static SET_UP: extern "C" fn() = set_up;

extern "C" fn set_up() {
    let control = map(CONTROL_ENV, size_of::<Control>()).cast::<Control>();
    if !control.is_null() {
        // SAFETY: mapped for good, long enough, and any bytes are a `Control`.
        let magic = unsafe { (*control).magic.load(Ordering::Acquire) };
        if magic == MAGIC {
            CONTROL.store(control, Ordering::Release);
        }
    }
    let address = variable(ADDRESS_ENV).map_or(0, parse_address);
    if address != 0 {
        let ports = map(PORTS_ENV, size_of::<Ports>()).cast::<Ports>();
        PORTS.store(ports, Ordering::Release);
        ADDRESS.store(address, Ordering::Release);
    }
}

/// What steers clocks and disk; `None`: nothing is bent.
pub(crate) fn control() -> Option<&'static Control> {
    // SAFETY: mapped for good by `set_up`, or null.
    unsafe { CONTROL.load(Ordering::Acquire).as_ref() }
}

/// Where ports are written down that this process listens on.
pub(crate) fn ports() -> Option<&'static Ports> {
    // SAFETY: mapped for good by `set_up`, or null.
    unsafe { PORTS.load(Ordering::Acquire).as_ref() }
}

/// The public address of this host behind a proxy; `None`: there is no proxy.
pub(crate) fn address() -> Option<[u8; 4]> {
    match ADDRESS.load(Ordering::Acquire) {
        0 => None,
        address => Some(address.to_be_bytes()),
    }
}

/// A variable of the environment, without allocating. Names are shorter than 64 bytes.
fn variable(name: &str) -> Option<&'static CStr> {
    let mut text = [0u8; 64];
    text.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    // SAFETY: `text` ends with a zero. Nothing changes the environment before `main`, and what is
    // found is used before it.
    unsafe {
        let found = libc::getenv(text.as_ptr().cast());
        (!found.is_null()).then(|| CStr::from_ptr(found))
    }
}

/// Maps the file that this variable names; null if it cannot be had.
fn map(name: &str, bytes: usize) -> *mut libc::c_void {
    let none = std::ptr::null_mut();
    let Some(path) = variable(name) else {
        return none;
    };
    // SAFETY: a new mapping of a file that is long enough; the descriptor is closed here.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        if fd < 0 {
            return none;
        }
        let mut about: libc::stat = std::mem::zeroed();
        let long_enough = libc::fstat(fd, &raw mut about) == 0 && about.st_size >= bytes as i64;
        let mut at = libc::MAP_FAILED;
        if long_enough {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            at = libc::mmap(none, bytes, access, libc::MAP_SHARED, fd, 0);
        }
        libc::close(fd);
        if at == libc::MAP_FAILED { none } else { at }
    }
}

/// An IPv4 address in its usual form; 0 if it has another.
fn parse_address(text: &CStr) -> u32 {
    let mut parts = [0u32; 4];
    let mut part = 0;
    for byte in text.to_bytes() {
        match byte {
            b'.' if part < 3 => part += 1,
            b'0'..=b'9' => parts[part] = parts[part] * 10 % 10_000 + u32::from(byte - b'0'),
            _ => return 0,
        }
    }
    if part != 3 || parts.iter().any(|part| *part > 255) {
        return 0;
    }
    parts.iter().fold(0, |sum, part| sum << 8 | part)
}

#[cfg(test)]
mod tests {
    use super::parse_address;

    #[test]
    fn addresses_are_read_and_nonsense_is_not() {
        assert_eq!(parse_address(c"127.77.3.9").to_be_bytes(), [127, 77, 3, 9]);
        for nonsense in [c"", c"1.2.3", c"1.2.3.4.5", c"1.2.3.256", c"a.b.c.d"] {
            assert_eq!(parse_address(nonsense), 0, "{nonsense:?}");
        }
    }
}
