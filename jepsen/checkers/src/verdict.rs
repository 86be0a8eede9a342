//! What a checker says: valid, invalid, or unknown, which is never a pass.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Three outcomes; the larger is the worse, so that the worst of several is their maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing prohibited was found.
    Valid,
    /// It could not be told: too little was covered, or the budget ran out.
    Unknown,
    /// Something happened that must not.
    Invalid,
}

impl Verdict {
    /// Of a program that reports this verdict: 0, 2, or 1.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Valid => 0,
            Verdict::Invalid => 1,
            Verdict::Unknown => 2,
        }
    }
}

/// One thing that a checker points at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What is wrong, or unknown, in one sentence that names the values.
    pub what: String,
    /// Operations that show it, by `index`: the smallest set the checker could find.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<u64>,
    /// The time it happened in, nanoseconds since the run began: from, to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ns: Option<(u64, u64)>,
    /// The key it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What one checker says of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The checker's name, e.g. `linearizable`.
    pub checker: String,
    /// Its verdict.
    pub verdict: Verdict,
    /// What led to it; at most a few dozen, `stats` counts the rest.
    pub findings: Vec<Finding>,
    /// What it counted, for people and for coverage.
    pub stats: BTreeMap<String, Value>,
}

impl Outcome {
    /// An outcome without findings.
    pub fn valid(checker: &str) -> Self {
        Self {
            checker: checker.to_owned(),
            verdict: Verdict::Valid,
            findings: Vec::new(),
            stats: BTreeMap::new(),
        }
    }
}

/// No outcome lists more than this many findings; `stats` has the number of all.
pub const MAX_FINDINGS: usize = 24;

impl Finding {
    /// A finding that points at nothing yet.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ops: Vec::new(),
            time_ns: None,
            key: None,
        }
    }

    /// Points at operations by `index`.
    pub fn ops(mut self, ops: impl IntoIterator<Item = u64>) -> Self {
        self.ops = ops.into_iter().collect();
        self
    }

    /// Points at a time, nanoseconds since the run began.
    pub fn time(mut self, from_ns: u64, to_ns: u64) -> Self {
        self.time_ns = Some((from_ns, to_ns));
        self
    }

    /// Says which key it is about; the empty key is none.
    pub fn key(mut self, key: &str) -> Self {
        self.key = (!key.is_empty()).then(|| key.to_owned());
        self
    }
}

impl Outcome {
    /// Records that something happened that must not.
    pub fn invalid(&mut self, finding: Finding) {
        self.record(Verdict::Invalid, "invalid_findings", finding);
    }

    /// Records that something could not be told.
    pub fn unknown(&mut self, finding: Finding) {
        self.record(Verdict::Unknown, "unknown_findings", finding);
    }

    /// Records a count.
    pub fn count(&mut self, name: &str, value: impl Into<Value>) {
        self.stats.insert(name.to_owned(), value.into());
    }

    /// Takes in what another outcome of the same checker found, e.g. of another key.
    pub(crate) fn absorb(&mut self, mut other: Outcome) {
        if other.verdict > self.verdict {
            self.verdict = other.verdict;
            std::mem::swap(&mut self.findings, &mut other.findings);
        }
        self.findings.append(&mut other.findings);
        self.findings.truncate(MAX_FINDINGS);
        for name in ["invalid_findings", "unknown_findings"] {
            let count = |stats: &BTreeMap<String, Value>| stats.get(name).and_then(Value::as_u64);
            if let Some(added) = count(&other.stats) {
                let sum = count(&self.stats).unwrap_or(0) + added;
                self.count(name, sum);
            }
        }
    }

    fn record(&mut self, verdict: Verdict, counter: &str, finding: Finding) {
        let so_far = self.stats.get(counter).and_then(Value::as_u64).unwrap_or(0);
        self.count(counter, so_far + 1);
        if verdict > self.verdict {
            // What is invalid is told before what is unknown.
            self.verdict = verdict;
            self.findings.insert(0, finding);
        } else {
            self.findings.push(finding);
        }
        self.findings.truncate(MAX_FINDINGS);
    }
}
