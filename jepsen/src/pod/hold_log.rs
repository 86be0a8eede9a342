//! What a pod could serve when, written down in true time as it happens.
//!
//! Two witnesses write here. The Slicelet's own ownership events say what it *believes*, stamped
//! in the callback; the prober says what it *does*: a guard that was asked for
//! and given is a fact. Each line is one `write`, so a kill leaves whole lines and perhaps one torn
//! one. `T` is true time, `B` the lease clock as the process believes it, slices are their first
//! and last key in hexadecimal:
//!
//! * `log TARGET T`: the first line; the time stands for the incarnation;
//! * `begin|freeze|end T B FIRST LAST TOKEN`: an ownership event; behind `end`, if probes passed
//!   until then, the time of the last round in which they did;
//! * `lease T B UNTIL`: from now on checks pass until the lease clock shows `UNTIL`;
//! * `pass T FIRST LAST TOKEN`: a check passed, asked at `T`, the first time or again;
//! * `stop T FIRST LAST TOKEN LAST`: a check asked at `T` was refused; the last that passed was
//!   asked at `LAST`;
//! * `late T FIRST LAST TOKEN`: a request that was still under way verified after the `end`;
//! * `clock T B WALL`: the lease clock, and how far the wall clock is off;
//! * `come T FIRST LAST TOKEN HOW`: a slice is about to be served, with its state in memory
//!   (`warm`) or without (`cold-handed-over`, `cold-granted`, `merging`);
//! * `gone T FIRST LAST TOKEN HOW`: a slice is not served any more: `surrendered` or `lost`;
//! * `hurry T FROM`: the process is about to end: from `FROM` on it waits for no destination.
//!
//! That every slice passing is *still* passing would be a line each millisecond. It stands in one
//! place that is overwritten instead: the file `FILE.alive` holds the time of the last round of
//! probes in which all of them passed, and the number of handoffs received.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use leasehold_client::{Arrival, Cause, OwnershipEvent, SliceInfo};
use leasehold_proto::{Slice, TargetName};
use parking_lot::Mutex;

use super::clock::{both_now_ns, true_now_ns, wall_offset_ns};

/// Ends the name of the file that is overwritten.
pub(super) const ALIVE: &str = "alive";

/// A slice at a token: one tenure, unless a lapse cuts it in two.
pub(super) type Tenure = (Slice, u64);

struct Inner {
    file: File,
    line: String,
    open: BTreeSet<Tenure>,
    /// What passed in the last round, and when that was asked.
    passing: BTreeMap<Tenure, u64>,
}

/// The open log of one Slicelet.
pub struct HoldLog {
    inner: Mutex<Inner>,
    alive: File,
}

impl HoldLog {
    /// Makes the log of an incarnation that begins now: `PATH-TARGET-T`.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn create(path: &Path, target: &TargetName) -> io::Result<Self> {
        let now = true_now_ns();
        let name = |end: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!("-{target}-{now}{end}"));
            PathBuf::from(name)
        };
        let file = File::create_new(name(""))?;
        let alive = File::create_new(name(&format!(".{ALIVE}")))?;
        let log = Self {
            inner: Mutex::new(Inner {
                file,
                line: String::new(),
                open: BTreeSet::new(),
                passing: BTreeMap::new(),
            }),
            alive,
        };
        log.write(|line| write!(line, "log {target} {now}"));
        Ok(log)
    }

    /// Writes an ownership event down, before it takes effect where it gives and after where it
    /// takes.
    pub fn event(&self, event: OwnershipEvent) {
        let (now, believed) = both_now_ns();
        let (verb, slice, token) = match event {
            OwnershipEvent::Begin { slice, token, .. } => ("begin", slice, token.as_u64()),
            OwnershipEvent::Frozen { slice, token, .. } => ("freeze", slice, token.as_u64()),
            OwnershipEvent::End { slice, token, .. } => ("end", slice, token.as_u64()),
            OwnershipEvent::Extended { until_ns } => {
                return self.write(|line| write!(line, "lease {now} {believed} {until_ns}"));
            }
        };
        let mut inner = self.inner.lock();
        let (first, last) = ends(slice);
        let mut passed = None;
        match verb {
            "begin" => {
                inner.open.insert((slice, token));
            }
            "end" => {
                inner.open.remove(&(slice, token));
                passed = inner.passing.remove(&(slice, token));
            }
            _ => {}
        }
        inner.write(|line| {
            write!(line, "{verb} {now} {believed} {first:x} {last:x} {token}")?;
            passed.map_or(Ok(()), |passed| write!(line, " {passed}"))
        });
    }

    /// A request's guard verified, asked at `asked_ns`: worth a line if the slice is said to have
    /// gone.
    pub(super) fn verified(&self, slice: Slice, token: u64, asked_ns: u64) {
        let mut inner = self.inner.lock();
        if !inner.open.contains(&(slice, token)) {
            let (first, last) = ends(slice);
            inner.write(|line| write!(line, "late {asked_ns} {first:x} {last:x} {token}"));
        }
    }

    /// A slice came, and nothing of it is served yet.
    pub(super) fn come(&self, slice: &SliceInfo) {
        let how = match (slice.arrival, slice.cause) {
            (Arrival::Warm, _) => "warm",
            (Arrival::Merging, _) => "merging",
            (Arrival::Cold, Cause::HandedOver) => "cold-handed-over",
            (Arrival::Cold, _) => "cold-granted",
        };
        self.passage("come", slice, how);
    }

    /// A slice went, and nothing of it is served any more.
    pub(super) fn gone(&self, slice: &SliceInfo) {
        let how = match slice.cause {
            Cause::Surrendered => "surrendered",
            _ => "lost",
        };
        self.passage("gone", slice, how);
    }

    fn passage(&self, verb: &str, slice: &SliceInfo, how: &str) {
        let now = true_now_ns();
        let (first, last) = ends(slice.slice);
        let token = slice.token.as_u64();
        self.write(|line| write!(line, "{verb} {now} {first:x} {last:x} {token} {how}"));
    }

    /// The process is about to end, and waits for destinations for so long.
    pub(super) fn hurry(&self, patience: Duration) {
        let now = true_now_ns();
        let from = now.saturating_add(u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX));
        self.write(|line| write!(line, "hurry {now} {from}"));
    }

    /// A round of probes that began at `began_ns`: what passed, and when each was asked.
    pub(super) fn round(&self, began_ns: u64, passed: BTreeMap<Tenure, u64>, handoffs: u64) {
        let refused_ns = true_now_ns();
        let mut inner = self.inner.lock();
        let before = std::mem::take(&mut inner.passing);
        for ((slice, token), asked) in &passed {
            if !before.contains_key(&(*slice, *token)) {
                let (first, last) = ends(*slice);
                inner.write(|line| write!(line, "pass {asked} {first:x} {last:x} {token}"));
            }
        }
        for ((slice, token), asked) in &before {
            if !passed.contains_key(&(*slice, *token)) {
                let (first, last) = ends(*slice);
                inner.write(|line| {
                    write!(line, "stop {refused_ns} {first:x} {last:x} {token} {asked}")
                });
            }
        }
        inner.passing = passed;
        drop(inner);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&began_ns.to_le_bytes());
        bytes[8..].copy_from_slice(&handoffs.to_le_bytes());
        or_abort(self.alive.write_all_at(&bytes, 0));
    }

    /// How the clocks stand.
    pub(super) fn clocks(&self) {
        let (now, believed) = both_now_ns();
        let wall = wall_offset_ns();
        self.write(|line| write!(line, "clock {now} {believed} {wall}"));
    }

    fn write(&self, put: impl FnOnce(&mut String) -> std::fmt::Result) {
        self.inner.lock().write(put);
    }
}

impl Inner {
    fn write(&mut self, put: impl FnOnce(&mut String) -> std::fmt::Result) {
        self.line.clear();
        or_abort(put(&mut self.line).map_err(io::Error::other));
        self.line.push('\n');
        or_abort(self.file.write_all(self.line.as_bytes()));
    }
}

fn ends(slice: Slice) -> (u64, u64) {
    (slice.first().as_u64(), slice.last().as_u64())
}

/// A pod whose evidence is incomplete must not go on: silence would look like innocence.
fn or_abort(written: io::Result<()>) {
    if let Err(error) = written {
        eprintln!("the hold log cannot be written: {error}");
        std::process::abort();
    }
}
