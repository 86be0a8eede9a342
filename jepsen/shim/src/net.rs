//! An address of its own for a process behind a proxy.
//!
//! Others reach host `h` of run `r` at 127.77.r.h, where its proxy listens. The process itself
//! listens at 127.78.r.h without knowing: what it binds is moved there, and what it asks about it
//! is moved back. Its connections to other hosts come from that address, by which the proxies know
//! it. Ports that it listens on are written down for its proxy.

use std::sync::atomic::Ordering::Relaxed;

use libc::{c_int, sockaddr, sockaddr_in, socklen_t};

use crate::next::next;
use crate::state;

next!(true_bind = c"bind",
    fn(socket: c_int, at: *const sockaddr, length: socklen_t) -> c_int, else -1);
next!(true_connect = c"connect",
    fn(socket: c_int, to: *const sockaddr, length: socklen_t) -> c_int, else -1);
next!(true_listen = c"listen", fn(socket: c_int, backlog: c_int) -> c_int, else -1);
next!(true_getsockname = c"getsockname",
    fn(socket: c_int, at: *mut sockaddr, length: *mut socklen_t) -> c_int, else -1);

/// Second number of the addresses where processes really listen.
const PRIVATE: u8 = 78;
const LENGTH: socklen_t = size_of::<sockaddr_in>() as socklen_t;

fn private(public: [u8; 4]) -> [u8; 4] {
    [public[0], PRIVATE, public[2], public[3]]
}

fn octets(at: &sockaddr_in) -> [u8; 4] {
    at.sin_addr.s_addr.to_ne_bytes()
}

fn at(address: [u8; 4], port_be: u16) -> sockaddr_in {
    // SAFETY: zeros are a sockaddr_in.
    let mut at: sockaddr_in = unsafe { std::mem::zeroed() };
    at.sin_family = libc::AF_INET as u16;
    at.sin_port = port_be;
    at.sin_addr.s_addr = u32::from_ne_bytes(address);
    at
}

/// The IPv4 address behind the pointer, if it is one.
///
/// # Safety
///
/// `from` is null or valid for `length` bytes.
unsafe fn ipv4(from: *const sockaddr, length: socklen_t) -> Option<sockaddr_in> {
    if from.is_null() || length < LENGTH {
        return None;
    }
    // SAFETY: long enough; read without asking for its alignment.
    let at = unsafe { from.cast::<sockaddr_in>().read_unaligned() };
    (c_int::from(at.sin_family) == libc::AF_INET).then_some(at)
}

/// Where a socket really is bound, if to an IPv4 address.
fn bound(socket: c_int) -> Option<sockaddr_in> {
    let mut at = at([0; 4], 0);
    let mut length = LENGTH;
    // SAFETY: both are valid for the call.
    unsafe {
        let result = true_getsockname(socket, (&raw mut at).cast(), &raw mut length);
        if result != 0 {
            None
        } else {
            ipv4((&raw const at).cast(), length)
        }
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn bind(socket: c_int, to: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: as the caller called.
    let wanted = state::address().zip(unsafe { ipv4(to, length) });
    if let Some((own, wanted)) = wanted
        && (octets(&wanted) == own || octets(&wanted) == [0; 4])
    {
        let moved = at(private(own), wanted.sin_port);
        // SAFETY: valid for the call.
        return unsafe { true_bind(socket, (&raw const moved).cast(), LENGTH) };
    }
    // SAFETY: as the caller called.
    unsafe { true_bind(socket, to, length) }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn listen(socket: c_int, backlog: c_int) -> c_int {
    // SAFETY: as the caller called.
    let result = unsafe { true_listen(socket, backlog) };
    if let (0, Some(own), Some(at)) = (result, state::address(), bound(socket))
        && octets(&at) == private(own)
    {
        write_down(own, u16::from_be(at.sin_port));
    }
    result
}

/// Notes a port in this host's row, unless it stands there already. A full row takes no more.
fn write_down(own: [u8; 4], port: u16) {
    let row = state::ports().and_then(|ports| ports.rows.get(own[3].checked_sub(1)? as usize));
    for slot in row.into_iter().flatten() {
        let known = slot.compare_exchange(0, port, Relaxed, Relaxed);
        if known.is_ok() || known == Err(port) {
            return;
        }
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn connect(socket: c_int, to: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: as the caller called.
    let wanted = state::address().zip(unsafe { ipv4(to, length) });
    if let Some((own, wanted)) = wanted
        && octets(&wanted)[..3] == own[..3]
        && bound(socket).is_some_and(|at| at.sin_port == 0)
    {
        let one: c_int = 1;
        let source = at(private(own), 0);
        // The port is chosen at `connect`, when it need only be free towards that peer. Should
        // either fail, the connection is made without a name, as it would be without this library.
        // SAFETY: all pointers are valid for the calls.
        unsafe {
            libc::setsockopt(
                socket,
                libc::SOL_IP,
                libc::IP_BIND_ADDRESS_NO_PORT,
                (&raw const one).cast(),
                size_of::<c_int>() as socklen_t,
            );
            true_bind(socket, (&raw const source).cast(), LENGTH);
        }
    }
    // SAFETY: as the caller called.
    unsafe { true_connect(socket, to, length) }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn getsockname(
    socket: c_int,
    into: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: as the caller called.
    let result = unsafe { true_getsockname(socket, into, length) };
    let Some(own) = state::address().filter(|_| result == 0 && !length.is_null()) else {
        return result;
    };
    // SAFETY: the call before has written `*length` bytes, or as many as there was room for.
    unsafe {
        if let Some(found) = ipv4(into, *length)
            && octets(&found) == private(own)
        {
            into.cast::<sockaddr_in>()
                .write_unaligned(at(own, found.sin_port));
        }
    }
    result
}
