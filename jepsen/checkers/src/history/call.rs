//! Operations as intervals: an invocation together with its end.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::{History, Kind, Op};

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End<'a> {
    /// It took effect between its two times; the line with its result.
    Ok(&'a Op),
    /// It took no effect.
    Fail(&'a Op),
    /// It may have taken effect, or may yet. Without a line when the history ends before it does.
    Unknown(Option<&'a Op>),
}

/// One operation, from its invocation to its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call<'a> {
    /// Where it began.
    pub invoke: &'a Op,
    /// How it ended.
    pub end: End<'a>,
}

/// The order of a store's writes: epoch, then number within the epoch.
pub type Version = (u64, u64);

/// A result and the version of it, if the store tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Versioned<'a> {
    /// What was read or done.
    pub value: &'a Value,
    /// Its version.
    pub version: Option<Version>,
}

impl<'a> Versioned<'a> {
    /// Takes a result apart; one in another form than `{"value", "version"}` has no version.
    pub fn of(result: &'a Value) -> Self {
        let plain = Self {
            value: result,
            version: None,
        };
        let Some(fields) = result.as_object().filter(|fields| fields.len() == 2) else {
            return plain;
        };
        let version = fields.get("version").and_then(version);
        match (fields.get("value"), version) {
            (Some(value), Some(version)) => Self {
                value,
                version: Some(version),
            },
            _ => plain,
        }
    }
}

fn version(value: &Value) -> Option<Version> {
    match value.as_array()?.as_slice() {
        [epoch, seq] => Some((epoch.as_u64()?, seq.as_u64()?)),
        _ => None,
    }
}

impl<'a> Call<'a> {
    /// What it did.
    pub fn f(&self) -> &'a str {
        &self.invoke.f
    }

    /// What it is about; empty when the workload has one thing only.
    pub fn key(&self) -> &'a str {
        self.invoke.key.as_deref().unwrap_or_default()
    }

    /// When it began.
    pub fn call_ns(&self) -> u64 {
        self.invoke.time
    }

    /// When it ended; `u64::MAX` of one that may take effect at any later time.
    pub fn return_ns(&self) -> u64 {
        match self.end {
            End::Ok(op) | End::Fail(op) => op.time,
            End::Unknown(_) => u64::MAX,
        }
    }

    /// The line with its result, if it certainly took effect.
    pub fn ok(&self) -> Option<&'a Op> {
        match self.end {
            End::Ok(op) => Some(op),
            _ => None,
        }
    }

    /// Whether it may have taken effect without that being known.
    pub fn is_unknown(&self) -> bool {
        matches!(self.end, End::Unknown(_))
    }

    /// Whether it had ended before `other` began. Intervals are closed: at the same instant
    /// neither is before the other.
    pub fn precedes(&self, other: &Call<'_>) -> bool {
        self.return_ns() < other.call_ns()
    }
}

impl History {
    /// Every operation, in the order of invocation. An invocation without an end is unknown, and so
    /// is one whose process begins another; an end without an invocation is left out (see
    /// [`validate`](super::validate), which tells of both).
    pub fn calls(&self) -> Vec<Call<'_>> {
        let mut calls: Vec<Call<'_>> = Vec::with_capacity(self.0.len() / 2);
        let mut open: HashMap<u64, usize> = HashMap::new();
        for op in &self.0 {
            let end = match op.kind {
                Kind::Invoke => {
                    open.insert(op.process, calls.len());
                    calls.push(Call {
                        invoke: op,
                        end: End::Unknown(None),
                    });
                    continue;
                }
                Kind::Ok => End::Ok(op),
                Kind::Fail => End::Fail(op),
                Kind::Info => End::Unknown(Some(op)),
            };
            let call = open.remove(&op.process).and_then(|at| calls.get_mut(at));
            if let Some(call) = call {
                call.end = end;
            }
        }
        calls
    }

    /// The same, by key.
    pub fn calls_by_key(&self) -> BTreeMap<&str, Vec<Call<'_>>> {
        let mut keys: HashMap<&str, Vec<Call<'_>>> = HashMap::new();
        for call in self.calls() {
            keys.entry(call.key()).or_default().push(call);
        }
        keys.into_iter().collect()
    }
}
