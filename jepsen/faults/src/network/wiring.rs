//! Cables: a veth pair per host, one end in the host, the other in a namespace that belongs to the
//! switch and to nothing else.
//!
//! Neighbours are entered by hand, so that no ARP is needed: a healed link works at once, as a
//! routed network would, instead of waiting for a forgotten neighbour. Checksum and segmentation
//! offloads are off at the hosts' ends, so that every frame carries its own checksum and fits the
//! MTU, as it would on a wire.

use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

use super::namespace::{Namespace, ip_batch};

/// What a host's end of the cable is called inside the host.
const HOST_END: &str = "eth0";

/// The address of the host of this index.
pub(crate) fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host as u8 + 1)
}

/// The last byte of its hardware address tells the host.
fn hardware_address(host: usize) -> String {
    format!("02:4c:48:00:00:{:02x}", host + 1)
}

/// Which host a frame's destination names; `None` for broadcast and multicast.
pub(crate) fn destination(frame: &[u8]) -> Option<usize> {
    let to = frame.get(..6)?;
    if to[0] & 1 == 1 {
        return None;
    }
    (to[5] as usize).checked_sub(1)
}

/// Lays the cables and returns the switch's sockets, one per host, in order.
pub(crate) fn lay(switch: &Namespace, hosts: &[Namespace]) -> Result<Vec<OwnedFd>> {
    switch.run(|| {
        silence_ipv6();
        let mut lines = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            lines.push(format!(
                "link add s{index} type veth peer name {HOST_END} netns {}",
                host.path()
            ));
            lines.push(format!("link set s{index} up"));
        }
        ip_batch(&lines).context("lay cables")
    })?;
    for (index, host) in hosts.iter().enumerate() {
        host.run(|| set_up_host(index, hosts.len()))?;
    }
    switch.run(|| {
        (0..hosts.len())
            .map(|i| packet_socket(&format!("s{i}")))
            .collect()
    })
}

fn set_up_host(index: usize, hosts: usize) -> Result<()> {
    silence_ipv6();
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("link set {HOST_END} address {}", hardware_address(index)),
        format!("addr add {}/24 dev {HOST_END}", address(index)),
        format!("link set {HOST_END} up"),
    ];
    for other in (0..hosts).filter(|other| *other != index) {
        lines.push(format!(
            "neigh add {} lladdr {} dev {HOST_END} nud permanent",
            address(other),
            hardware_address(other)
        ));
    }
    ip_batch(&lines).context("set up a host's network")?;
    switch_offloads_off().context("switch a host's offloads off")
}

/// No router solicitations and the like: nothing is on the wire but what hosts send each other.
/// A kernel without IPv6 has no such file.
fn silence_ipv6() {
    for scope in ["all", "default"] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
    }
}

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

fn switch_offloads_off() -> io::Result<()> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    const SET_TX_CHECKSUM: u32 = 0x17;
    const SET_TSO: u32 = 0x1f;
    const SET_GSO: u32 = 0x24;
    const SET_GRO: u32 = 0x2c;
    let socket = new_socket(libc::AF_INET, libc::SOCK_DGRAM)?;
    for command in [SET_TX_CHECKSUM, SET_TSO, SET_GSO, SET_GRO] {
        let mut value = EthtoolValue { command, data: 0 };
        // SAFETY: an ifreq of zeros is valid; the name is shorter than its field, and `value`
        // outlives the call.
        let result = unsafe {
            let mut request: libc::ifreq = std::mem::zeroed();
            for (to, from) in request.ifr_name.iter_mut().zip(HOST_END.bytes()) {
                *to = from as libc::c_char;
            }
            request.ifr_ifru.ifru_data = (&raw mut value).cast();
            libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn new_socket(family: i32, kind: i32) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is new and owned from here.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn set_option(socket: &OwnedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: `value` is valid for the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A socket that sees every frame coming out of this interface and can send into it.
fn packet_socket(interface: &str) -> Result<OwnedFd> {
    const PACKET_IGNORE_OUTGOING: i32 = 23;
    const BUFFER_BYTES: i32 = 8 << 20;
    let name = CString::new(interface)?;
    // SAFETY: `name` is a valid C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error()).context("find the switch's end of a cable");
    }
    // Protocol 0 until it is bound: else it would take frames of all interfaces in between.
    let socket = new_socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK)
        .context("open a packet socket")?;
    set_option(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
    for (force, plain) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        // Beyond the system's limit by privilege, else as much as the limit gives.
        if set_option(&socket, libc::SOL_SOCKET, force, BUFFER_BYTES).is_err() {
            set_option(&socket, libc::SOL_SOCKET, plain, BUFFER_BYTES)?;
        }
    }
    // SAFETY: a sockaddr_ll of zeros is valid, and the length is its own.
    let result = unsafe {
        let mut at: libc::sockaddr_ll = std::mem::zeroed();
        at.sll_family = libc::AF_PACKET as u16;
        at.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        at.sll_ifindex = index as i32;
        libc::bind(
            socket.as_raw_fd(),
            (&raw const at).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("bind a packet socket");
    }
    Ok(socket)
}
