//! Histories for tests, written as intervals.

use serde_json::Value;

use crate::history::{History, Kind, Op};

/// One operation: what, when and how it ended.
#[derive(Clone, Debug)]
pub struct Did {
    pub f: &'static str,
    pub key: &'static str,
    pub from: u64,
    pub to: u64,
    pub argument: Value,
    pub end: Option<(Kind, Value)>,
    pub node: Option<&'static str>,
    pub epoch: Option<u64>,
}

/// An operation that succeeded.
pub fn ok(
    f: &'static str,
    argument: impl Into<Value>,
    from: u64,
    to: u64,
    result: impl Into<Value>,
) -> Did {
    Did {
        f,
        key: "k",
        from,
        to,
        argument: argument.into(),
        end: Some((Kind::Ok, result.into())),
        node: None,
        epoch: None,
    }
}

/// An operation whose outcome is not known.
pub fn unknown(f: &'static str, argument: impl Into<Value>, from: u64, to: u64) -> Did {
    Did {
        end: Some((Kind::Info, Value::Null)),
        ..ok(f, argument, from, to, Value::Null)
    }
}

/// An operation that certainly did not happen.
pub fn failed(f: &'static str, argument: impl Into<Value>, from: u64, to: u64) -> Did {
    Did {
        end: Some((Kind::Fail, Value::Null)),
        ..ok(f, argument, from, to, Value::Null)
    }
}

impl Did {
    /// On another key than `k`.
    pub fn on(self, key: &'static str) -> Self {
        Self { key, ..self }
    }

    /// Answered by a node under an epoch.
    pub fn by(self, node: &'static str, epoch: u64) -> Self {
        Self {
            node: Some(node),
            epoch: Some(epoch),
            ..self
        }
    }
}

/// The history of these operations, each by a process of its own. At equal times invocations come
/// first; the `n`-th operation given is process `n`.
pub fn history(did: &[Did]) -> History {
    let mut lines: Vec<(u64, bool, Op)> = Vec::new();
    for (process, did) in did.iter().enumerate() {
        let line = |time, kind, value| Op {
            index: 0,
            time,
            process: process as u64,
            kind,
            f: did.f.to_owned(),
            key: Some(did.key.to_owned()),
            value,
            node: None,
            epoch: None,
            error: None,
        };
        let begin = line(did.from, Kind::Invoke, did.argument.clone());
        lines.push((did.from, false, begin));
        if let Some((kind, value)) = &did.end {
            let mut end = line(did.to, *kind, value.clone());
            if *kind == Kind::Ok {
                end.node = did.node.map(str::to_owned);
                end.epoch = did.epoch;
            }
            lines.push((did.to, true, end));
        }
    }
    lines.sort_by_key(|(time, end, _)| (*time, *end));
    let numbered = lines.into_iter().enumerate().map(|(at, (_, _, op))| Op {
        index: at as u64,
        ..op
    });
    History(numbered.collect())
}

/// Indices of the lines on which these processes began.
pub fn begun(history: &History, processes: &[u64]) -> Vec<u64> {
    processes
        .iter()
        .flat_map(|process| {
            let begins = history
                .0
                .iter()
                .filter(|op| op.kind == Kind::Invoke && op.process == *process);
            begins.map(|op| op.index).collect::<Vec<_>>()
        })
        .collect()
}
