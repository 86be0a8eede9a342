//! What the preloaded library and the one who drives it share: two small files that both map, and
//! the names of the environment variables that tell where they are. Compiled into both.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// Path of a file that holds a [`Control`].
pub(crate) const CONTROL_ENV: &str = "JEPSEN_SHIM_CONTROL";
/// Path of a file that holds a [`Ports`]; set only behind proxies.
pub(crate) const PORTS_ENV: &str = "JEPSEN_SHIM_PORTS";
/// The IPv4 address by which this process is reached through its proxy.
pub(crate) const ADDRESS_ENV: &str = "JEPSEN_SHIM_ADDRESS";

/// The first word of a [`Control`]: a file of another version is not touched.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"lhshim01");

/// The clocks that can be bent, in the order of [`Control::clocks`].
pub(crate) const CLOCKS: [libc::clockid_t; 4] = [
    libc::CLOCK_MONOTONIC,
    libc::CLOCK_MONOTONIC_RAW,
    libc::CLOCK_BOOTTIME,
    libc::CLOCK_REALTIME,
];

/// Longest path below which `fsync` is struck.
pub(crate) const PREFIX_BYTES: usize = 512;

/// `fsync` does what it should.
pub(crate) const SYNC_TRUE: u32 = 0;
/// `fsync` fails with `EIO`.
pub(crate) const SYNC_FAILS: u32 = 1;
/// `fsync` succeeds and does nothing.
pub(crate) const SYNC_LIES: u32 = 2;

/// A line: the process is shown `shown_ns + (true − true_ns) × rate`.
#[repr(C)]
pub(crate) struct Line {
    /// A reading of the true clock, …
    pub(crate) true_ns: AtomicI64,
    /// … and what is shown for it.
    pub(crate) shown_ns: AtomicI64,
}

/// How the clocks and the disk of one process behave. All zeros but for `magic` and a `rate` of 1
/// means: as they should.
#[repr(C)]
pub(crate) struct Control {
    /// [`MAGIC`].
    pub(crate) magic: AtomicU64,
    /// A sequence lock over `rate` and `clocks`: odd while they are being written. The writer reads
    /// the true clocks while it is odd, and readers read them while it is even and unchanged; so
    /// no clock ever goes back when the rate changes.
    pub(crate) sequence: AtomicU64,
    /// Bits of an `f64`: shown seconds per true second, above 0.
    pub(crate) rate: AtomicU64,
    /// One for each of [`CLOCKS`].
    pub(crate) clocks: [Line; 4],
    /// Written by the process: the newest `sequence` under which it has read a clock.
    pub(crate) seen: AtomicU64,
    /// [`SYNC_TRUE`], [`SYNC_FAILS`] or [`SYNC_LIES`].
    pub(crate) sync_mode: AtomicU32,
    /// Microseconds by which every `fsync` is late.
    pub(crate) sync_delay_us: AtomicU32,
    /// Written by the process: how many times an `fsync` was struck.
    pub(crate) sync_struck: AtomicU64,
    /// Length of `prefix`; 0: no file is struck.
    pub(crate) prefix_len: AtomicU32,
    /// Files whose path begins with this are struck.
    pub(crate) prefix: [AtomicU8; PREFIX_BYTES],
}

/// Hosts behind proxies, at most.
pub(crate) const PORT_ROWS: usize = 64;
/// Ports that a host listens on, at most.
pub(crate) const PORTS_PER_HOST: usize = 32;

/// Written by the processes: the ports that each host's process listens on, 0 where there is none.
/// The row is the last byte of the host's address, less one.
#[repr(C)]
pub(crate) struct Ports {
    pub(crate) rows: [[AtomicU16; PORTS_PER_HOST]; PORT_ROWS],
}
