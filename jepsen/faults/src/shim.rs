//! The driver of the preloaded library: bends the clocks and the `fsync` of one host's process,
//! while it runs.

#[path = "../../shim/src/layout.rs"]
#[allow(dead_code)] // It serves the preloaded library too.
pub(crate) mod layout;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::mapped::{Mapped, Shareable};
use crate::true_time;
use layout::{CLOCKS, Control};

/// File name of the preloaded library.
const LIBRARY: &str = "libleasehold_shim.so";
/// Says where the library is, if not beside the program.
const LIBRARY_ENV: &str = "JEPSEN_SHIM";
/// Where these clocks stand in [`CLOCKS`].
const RAW: usize = 1;
const WALL: usize = 3;

// SAFETY: both consist of atomics.
unsafe impl Shareable for Control {}
// SAFETY: as above.
unsafe impl Shareable for layout::Ports {}

/// What `fsync` and its like do below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFault {
    /// They fail with `EIO`, and nothing is written.
    Fails,
    /// They succeed late.
    Slow(Duration),
    /// They succeed and do nothing.
    Lies,
}

/// What bends the clocks and the `fsync` of one host's process. It stays as set when the process
/// is started again.
pub struct Shim {
    library: PathBuf,
    control: Mapped<Control>,
    /// Held by whoever writes.
    writer: Mutex<()>,
}

impl Shim {
    /// Makes one that bends nothing; its file is `DIR/HOST.shim`.
    ///
    /// # Errors
    ///
    /// The preloaded library is missing: the message names the command that builds it. Faults of
    /// clocks and `fsync` are then to be skipped. Or the file cannot be made.
    pub fn create(dir: &Path, host: &str) -> Result<Self> {
        let library = library()?;
        let control: Mapped<Control> = Mapped::create(&dir.join(format!("{host}.shim")))?;
        control.rate.store(1f64.to_bits(), Relaxed);
        control.magic.store(layout::MAGIC, Release);
        Ok(Self {
            library,
            control,
            writer: Mutex::new(()),
        })
    }

    /// Puts the library into a process that is about to be started. It has an effect on programs
    /// that are linked with glibc dynamically; [`Shim::is_seen`] tells.
    pub fn apply(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env(layout::CONTROL_ENV, self.control.path());
    }

    /// Lets the process's clocks run at this rate from now on, shown seconds per true second. They
    /// go on from where they are; waits in progress follow within about 100 ms.
    ///
    /// # Errors
    ///
    /// The rate is not between 0.01 and 100.
    pub fn set_rate(&self, rate: f64) -> Result<()> {
        ensure!((0.01..=100.0).contains(&rate), "a clock at rate {rate}");
        self.rewrite(rate, |_, shown_ns| shown_ns);
        Ok(())
    }

    /// Moves the process's wall clock by this, at once; nothing else.
    pub fn jump_wall(&self, by_ns: i64) {
        self.rewrite(self.rate(), |clock, shown_ns| match clock {
            WALL => shown_ns + by_ns,
            _ => shown_ns,
        });
    }

    /// Lets all clocks run truly again. The wall clock shows the true time; the others, which may
    /// never go back, keep what they have gained, and stay behind by what they have lost.
    pub fn restore_clocks(&self) {
        let wall_ns = true_time::true_wall_ns() as i64;
        self.rewrite(1.0, |clock, shown_ns| match clock {
            WALL => wall_ns,
            _ => shown_ns,
        });
    }

    /// Shown seconds per true second.
    pub fn rate(&self) -> f64 {
        f64::from_bits(self.control.rate.load(Relaxed))
    }

    /// Begins new lines at this moment, through what is shown now as `shown` changes it.
    fn rewrite(&self, rate: f64, shown: impl Fn(usize, i64) -> i64) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let control = &*self.control;
        let sequence = control.sequence.load(Relaxed);
        control.sequence.store(sequence + 1, Relaxed);
        // Every reader sees the odd number before the clocks are read here: none goes on by the
        // old lines past the moment at which the new ones begin.
        fence(SeqCst);
        for (index, line) in control.clocks.iter().enumerate() {
            let true_ns = true_time::read(CLOCKS[index]) as i64;
            let shown_ns = shown(index, self.shown_ns(index, true_ns));
            line.true_ns.store(true_ns, Relaxed);
            line.shown_ns.store(shown_ns, Relaxed);
        }
        control.rate.store(rate.to_bits(), Relaxed);
        control.sequence.store(sequence + 2, Release);
    }

    /// What the process is shown for a reading of a true clock.
    fn shown_ns(&self, clock: usize, true_ns: i64) -> i64 {
        let line = &self.control.clocks[clock];
        let since_ns = true_ns - line.true_ns.load(Relaxed);
        let rate = self.rate();
        let since_ns = if rate == 1.0 {
            since_ns
        } else {
            (since_ns as f64 * rate) as i64
        };
        line.shown_ns.load(Relaxed) + since_ns
    }

    fn offset_ns(&self, clock: usize) -> i64 {
        let true_ns = true_time::read(CLOCKS[clock]) as i64;
        self.shown_ns(clock, true_ns) - true_ns
    }

    /// How far the process's lease clock (`CLOCK_MONOTONIC_RAW`) is ahead of true time.
    pub fn lease_offset_ns(&self) -> i64 {
        self.offset_ns(RAW)
    }

    /// How far the process's wall clock is ahead of the true one.
    pub fn wall_offset_ns(&self) -> i64 {
        self.offset_ns(WALL)
    }

    /// Whether a process has read a clock since the last change to the clocks: proof that the
    /// change reached it. A process that is asleep reads none.
    pub fn is_seen(&self) -> bool {
        let set = self.control.sequence.load(Acquire);
        set != 0 && self.control.seen.load(Acquire) == set
    }

    /// From now on `fsync`, `fdatasync` and `sync_file_range` of files below `dir` go wrong so.
    ///
    /// # Errors
    ///
    /// The path is longer than 512 bytes.
    pub fn set_sync_fault(&self, dir: &Path, fault: SyncFault) -> Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let dir = dir.canonicalize().context("find the directory to strike")?;
        let path = dir.as_os_str().as_bytes();
        ensure!(path.len() <= layout::PREFIX_BYTES, "the path is too long");
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let control = &*self.control;
        control.prefix_len.store(0, Release);
        for (to, from) in control.prefix.iter().zip(path) {
            to.store(*from, Relaxed);
        }
        let (mode, delay) = match fault {
            SyncFault::Fails => (layout::SYNC_FAILS, Duration::ZERO),
            SyncFault::Slow(delay) => (layout::SYNC_TRUE, delay),
            SyncFault::Lies => (layout::SYNC_LIES, Duration::ZERO),
        };
        control.sync_mode.store(mode, Relaxed);
        let delay_us = u32::try_from(delay.as_micros()).unwrap_or(u32::MAX);
        control.sync_delay_us.store(delay_us, Relaxed);
        control.prefix_len.store(path.len() as u32, Release);
        Ok(())
    }

    /// `fsync` does what it should again.
    pub fn restore_sync(&self) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.control.prefix_len.store(0, Release);
        self.control.sync_mode.store(layout::SYNC_TRUE, Relaxed);
        self.control.sync_delay_us.store(0, Relaxed);
    }

    /// How many times an `fsync` was struck so far.
    pub fn syncs_struck(&self) -> u64 {
        self.control.sync_struck.load(Relaxed)
    }
}

/// Where the preloaded library is: as the environment says, beside the program, or in the target
/// directory that the program was built in.
///
/// # Errors
///
/// It is nowhere; the message names the command that builds it.
pub(crate) fn library() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(LIBRARY_ENV) {
        let path = PathBuf::from(path);
        ensure!(
            path.is_file(),
            "{LIBRARY_ENV}={} is no file",
            path.display()
        );
        return path.canonicalize().context("find the preloaded library");
    }
    let program = std::env::current_exe().context("find this program")?;
    // Programs stand in `target/debug`, tests and examples one directory deeper.
    for dir in program.ancestors().skip(1).take(2) {
        let path = dir.join(LIBRARY);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!(
        "{LIBRARY} is not beside {}: build it with `cargo build -p leasehold-shim` (with the same \
         profile and target directory), or say where it is by {LIBRARY_ENV}",
        program.display()
    )
}
