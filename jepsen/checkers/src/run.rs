//! The files of a run. A directory `store/NAME/TIME/` holds
//!
//! * `test.json`: [`Test`], what was run;
//! * `history.jsonl` (and `history.edn`, `history.txt`): what clients saw;
//! * `faults.jsonl`: [`Fault`] a line, what was done to the system and when it ended;
//! * `holds.jsonl`: [`Hold`] a line, which pod could serve which slice, in true time;
//! * `passages.jsonl`: [`Passage`] a line, which slices came with their state in memory;
//! * `clocks.jsonl`: [`ClockSample`] a line;
//! * `results.json` (and `results.edn`): [`Results`];
//! * `index.html`, `timeline.html`, `ownership.svg`, …: the report, made from the files above;
//! * `NODE/`: logs of that node's process, and its data when the run failed.
//!
//! All times are nanoseconds of true time (the kernel's `CLOCK_MONOTONIC_RAW`, read past any shim)
//! since the run began.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::verdict::{Outcome, Verdict};

/// What was run: enough to run it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// Workload and faults, e.g. `register+partition`.
    pub name: String,
    /// The workload.
    pub workload: String,
    /// The faults asked for.
    pub nemeses: Vec<String>,
    /// Everything random follows from it.
    pub seed: u64,
    /// How long load and faults lasted, in seconds.
    pub time_limit_s: u64,
    /// Names of the hosts, in order; each with its role, `assigner`, `pod`, `client` or another.
    pub hosts: Vec<(String, String)>,
    /// How hosts were kept apart: `namespaces`, `rootless`, `proxy`.
    pub network: String,
    /// The command line that ran it.
    pub command: String,
    /// Revision of the sources, if known.
    pub revision: Option<String>,
    /// Kernel release.
    pub kernel: String,
    /// Seconds since 1970 when it began.
    pub begun_unix_s: u64,
    /// Mutant that was planted, if one was.
    pub mutant: Option<String>,
    /// Whether a valid outcome is expected; `false` for a positive control, which must fail.
    pub expect_valid: bool,
    /// Everything else that was set.
    #[serde(default)]
    pub options: BTreeMap<String, Value>,
}

/// How an attempt at a fault went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "outcome", content = "why")]
pub enum Installed {
    /// It is in force, and was seen to be.
    Installed,
    /// It could not be had or made no sense then; nothing was done.
    Skipped(String),
    /// It may be in force.
    Indeterminate(String),
}

/// One fault, from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Its kind, e.g. `kill`, `pause`, `partition`, `clock-rate`: picks the colour of its band.
    pub kind: String,
    /// Its exact form, e.g. `isolate-leader`.
    pub mode: String,
    /// What it was done to.
    pub hosts: Vec<String>,
    /// For people.
    pub detail: String,
    /// Whether it took.
    #[serde(flatten)]
    pub installed: Installed,
    /// When it was begun.
    pub from_ns: u64,
    /// When it was undone; `None` if it never was, which fails the run.
    pub to_ns: Option<u64>,
}

/// A time in which a pod could serve a slice, as far as is certain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// Who.
    pub pod: String,
    /// Which incarnation of the pod: two with the same name are two holders.
    pub incarnation: u64,
    /// First key of the slice, 16 hexadecimal digits.
    pub first: String,
    /// Last key of the slice, 16 hexadecimal digits.
    pub last: String,
    /// Fencing token.
    pub token: u64,
    /// From when.
    pub from_ns: u64,
    /// Until when at least.
    pub to_ns: u64,
    /// When it was frozen for a handoff, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_ns: Option<u64>,
}

/// A slice came to a pod or went from it, and what became of its state in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Who.
    pub pod: String,
    /// Which incarnation of the pod.
    pub incarnation: u64,
    /// First key of the slice, 16 hexadecimal digits.
    pub first: String,
    /// Last key of the slice, 16 hexadecimal digits.
    pub last: String,
    /// Fencing token of the tenure that begins or ended.
    pub token: u64,
    /// When; before the first request is served, or after the last.
    pub time_ns: u64,
    /// What happened.
    pub what: Passing,
    /// Of what went: until when the pod's session had certainly not expired.
    #[serde(default)]
    pub alive_ns: u64,
}

/// How a slice came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Passing {
    /// It came with its state.
    Warm,
    /// It was handed over, and begins empty all the same.
    ColdHandedOver,
    /// It was vacant, and begins empty.
    ColdGranted,
    /// It begins empty, and state is merged into it: eventual mode.
    Merging,
    /// It was surrendered to another pod.
    Surrendered,
    /// It was surrendered by a pod that had so little time left that it waited for nobody.
    Hurried,
    /// It was lost.
    Lost,
}

/// How a host's clocks stood against true time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockSample {
    /// Whose.
    pub host: String,
    /// True time.
    pub time_ns: u64,
    /// Its lease clock minus true time, since the process began.
    pub lease_offset_ns: i64,
    /// Its wall clock minus the true wall clock.
    pub wall_offset_ns: i64,
}

/// What all checkers said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The worst of all.
    pub verdict: Verdict,
    /// Whether the verdict is the one expected.
    pub as_expected: bool,
    /// Each checker's.
    pub outcomes: Vec<Outcome>,
    /// Why the harness itself failed, if it did: then no verdict counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness_error: Option<String>,
}
