//! The system under test, as its owner describes it to the harness.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::{BoxFuture, LocalBoxFuture};
use leasehold_checkers::run::{ClockSample, Hold, Passage};
use serde_json::Value;

use crate::nemesis::ClusterControl;

/// A host that the system wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSpec {
    /// Unique in the run, e.g. `a1`, `p3`.
    pub name: String,
    /// Decides which faults may strike it: `assigner`, `pod`, `server`, …
    pub role: String,
}

/// What a client is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    /// The operation, e.g. `read`.
    pub f: String,
    /// What it is about.
    pub key: Option<String>,
    /// Its argument.
    pub value: Value,
    /// How long it may take.
    pub deadline: Duration,
}

/// How an operation ended: three outcomes, never two.
#[derive(Clone, Debug, PartialEq)]
pub enum Completion {
    /// It took effect.
    Ok {
        /// Its result.
        value: Value,
        /// Who answered.
        node: Option<String>,
        /// Under which fencing token.
        epoch: Option<u64>,
    },
    /// It certainly took no effect and never will; why.
    Fail(String),
    /// It may take effect yet; why that is not known.
    Unknown(String),
}

/// One worker's client. It lives on a thread of its own, inside its host's network, with a
/// single-threaded runtime.
pub trait Client {
    /// Carries out one operation. Must end by itself within the deadline of the invocation, or
    /// little later.
    fn invoke<'a>(&'a mut self, invocation: &'a Invocation) -> LocalBoxFuture<'a, Completion>;
}

/// How the harness starts a process of the system on a host.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Where it runs.
    pub host: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to its environment.
    pub env: Vec<(String, String)>,
}

/// Where a host is, and where its process keeps its data.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its specification.
    pub spec: HostSpec,
    /// The address that the others reach it at.
    pub ip: std::net::IpAddr,
    /// A directory of its own, on a disk of its own where disk faults are possible.
    pub data_dir: PathBuf,
    /// Where its logs go.
    pub log_dir: PathBuf,
}

/// What the processes of a system tell of themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Witness {
    /// When each certainly could serve what.
    pub holds: Vec<Hold>,
    /// How their clocks stood.
    pub clocks: Vec<ClockSample>,
    /// Which slices came with their state in memory, and how they went.
    pub passages: Vec<Passage>,
    /// How often ownership moved, if it is known. A system that knows it must also have told who
    /// held what: a run of it without holds is unknown.
    pub handoffs: Option<u64>,
    /// Hosts that should have told and left nothing at all: what they held nobody knows.
    pub silent: Vec<String>,
    /// What `holds` leaves out because it is not certain.
    pub trimmed: Trimmed,
}

/// How much of the time in which a process may have served is missing from its
/// [holds](Witness::holds): an overlap within that time cannot be found.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Trimmed {
    /// Holds whose end was not taken from what the process said, but from the last check that
    /// passed: it said so after its deadline, or its clock is not to be believed.
    pub holds_by_probe_only: u64,
    /// Holds left out: nothing shows that anything was served.
    pub holds_dropped: u64,
    /// The longest time between the last check that passed and the end of what was possible by
    /// the process's word, or its deadline where its clock is to be believed. In milliseconds.
    pub trim_ms_max: f64,
}

impl Trimmed {
    /// Counts one that is kept or not, certain until one time and possible until another.
    pub fn add(&mut self, kept: bool, certain_ns: u64, possible_ns: u64) {
        match kept {
            true => self.holds_by_probe_only += 1,
            false => self.holds_dropped += 1,
        }
        let trim_ms = possible_ns.saturating_sub(certain_ns) as f64 / 1e6;
        self.trim_ms_max = self.trim_ms_max.max(trim_ms);
    }

    /// Adds what another counted.
    pub fn merge(&mut self, other: &Self) {
        self.holds_by_probe_only += other.holds_by_probe_only;
        self.holds_dropped += other.holds_dropped;
        self.trim_ms_max = self.trim_ms_max.max(other.trim_ms_max);
    }
}

/// A service that the harness can start, talk to and judge.
///
/// `all` holds the system's own hosts in the order of [`hosts`](System::hosts), not the clients'.
pub trait System: Send + Sync {
    /// The hosts that it wants, in the order in which they are started. May be empty, for a
    /// service that runs elsewhere; it then suffers no faults.
    fn hosts(&self) -> Vec<HostSpec>;

    /// How to start, or start again, the process of this host; `all` tells where the others are.
    fn launch(&self, host: &Host, all: &[Host]) -> anyhow::Result<Launch>;

    /// Ends when the system can be used: after the first start, and again after every fault was
    /// healed. The harness bounds the wait; an error is asked again until then, so that it may
    /// mean "not yet". Called, as `who_is` is, on a thread inside a network of the harness's own,
    /// which no fault strikes, with a single-threaded runtime.
    fn ready<'a>(&'a self, all: &'a [Host]) -> BoxFuture<'a, anyhow::Result<()>>;

    /// Makes a client for a worker of a workload. Called on the worker's own thread, and again
    /// after each operation that ended unknown: nothing of the old client may live on in the new.
    fn client<'a>(
        &'a self,
        workload: &'a str,
        worker: usize,
        all: &'a [Host],
    ) -> LocalBoxFuture<'a, anyhow::Result<Box<dyn Client>>>;

    /// Hosts with a special part now, e.g. `leader`: what faults that aim at it strike.
    fn who_is<'a>(&'a self, part: &'a str, all: &'a [Host]) -> BoxFuture<'a, Vec<String>>;

    /// Role of the hosts that replicate the system's state and vote: faults of majorities, leaders
    /// and disks strike these. Pods, which own what clients use, have the role `pod`.
    fn core(&self) -> &str {
        "assigner"
    }

    /// An operator's hand on the system, for faults that need one; `None`: they are skipped.
    fn operator<'a>(&'a self, all: &'a [Host]) -> Option<Box<dyn ClusterControl + 'a>> {
        let _ = all;
        None
    }

    /// Moves ownership about as fast as it goes, with `at_once` slices on their way at any time.
    /// Dropped when the run's time is over. Ends at once for a system that has no such operation.
    fn storm<'a>(&'a self, all: &'a [Host], at_once: usize, seed: u64) -> BoxFuture<'a, ()> {
        let _ = (all, at_once, seed);
        Box::pin(async {})
    }

    /// What the processes tell of themselves, read from what they left in their hosts'
    /// directories, after all of them have ended. `origin_ns` is the true time
    /// (`CLOCK_MONOTONIC_RAW`) of the run's beginning, to subtract. Empty for a system that tells
    /// nothing.
    fn witness(&self, all: &[Host], origin_ns: u64) -> anyhow::Result<Witness> {
        let _ = (all, origin_ns);
        Ok(Witness::default())
    }

    /// How often ownership has moved so far, for the progress line; `None` if it is not known.
    /// Cheap: called every few seconds while the system runs.
    fn handoffs(&self, all: &[Host]) -> Option<u64> {
        let _ = all;
        None
    }
}
