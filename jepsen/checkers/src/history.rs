//! A history: every operation that a client invoked, and how it ended.
//!
//! One JSON object a line, `{"index", "time", "process", "type", "f", "key", "value", "node",
//! "epoch", "error"}`, in the order of `index`; Porcupine's command-line tool reads the same.
//!
//! # What workloads write
//!
//! The invocation's `value` is the argument; that of its `ok` line is the result. The checkers rely
//! on this table; `v` is any JSON value, a register's value before the first write is `null`.
//!
//! | `f` | `value` of `invoke` | `value` of `ok` | judged by |
//! | --- | --- | --- | --- |
//! | `read` | `null` | what was read: `v`, a number for counters, an array for lists | all |
//! | `write` | `v` | `v` or `null` | `linearizable`, `version_order` |
//! | `cas` | `[from, to]` | `[from, to]` or `null`; a mismatch is `fail` | the same |
//! | `add` | `n` or `[n, id]` | anything | `linearizable`, `counter` |
//! | `append` | `v`, unique for its key | anything | `linearizable`, `list_append` |
//! | `txn` | `[["append", k, v], ["r", k, null], …]` | the same, each `null` replaced by the array that was read; `key` names the slice | `list_append` |
//! | `serve` | `null` | anything; `epoch` and `node` say who served | `epoch_order` |
//! | `acquire`, `release` | `null` | anything; `epoch` is the token | `lock` |
//! | `act` | anything | anything; `epoch` is the token it was done under | `lock` |
//! | `view` | anything | what `node` believes; `null`: nothing complete | `convergence` |
//! | `watch` | anything | the next event of a watch, see [`watch`](crate::watch) | `watch` |
//!
//! **Versions.** Where the store numbers its writes, the value of an `ok` line is an object with
//! exactly two fields, `{"value": …, "version": [epoch, seq]}`: of a read the version of the write
//! that it saw, of any other operation the version that it made. Versions are compared epoch first.
//! What nobody wrote yet has version `[0, 0]`. `value` is what the table says.
//!
//! **Counters** that keep the ids of what they applied show them in a read:
//! `{"value": n, "applied": [id, …]}`, with an id once for each time it was applied.
//!
//! **`epoch`** is the fencing token under which an `ok` operation was answered.

use serde::{Deserialize, Serialize};
use serde_json::Value;

mod call;
mod edn;
mod lines;
mod text;
mod validate;

pub use call::{Call, End, Version, Versioned};
pub use edn::{to_edn, write_edn};
pub use lines::{LineError, MAX_LINE_BYTES, read_lines, write_lines};
pub use text::write_text;
pub use validate::{Malformed, validate};

/// What a line of a history says of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It began.
    Invoke,
    /// It took effect; the value is its result.
    Ok,
    /// It certainly took no effect, and never will.
    Fail,
    /// It may take effect at any time from its beginning on, or never. Its process is never used
    /// again.
    Info,
}

/// One line: the beginning or the end of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Op {
    /// Position in the history, from 0, without gaps.
    pub index: u64,
    /// Nanoseconds of true time since the run began.
    pub time: u64,
    /// A logical thread: it has at most one operation under way.
    pub process: u64,
    /// What the line says.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The operation, e.g. `read`, `write`, `cas`, `add`.
    pub f: String,
    /// What it is about; operations on different keys are independent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Argument on the way in, result on the way out.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub value: Value,
    /// The node that answered, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The fencing token under which it was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Why it failed or is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A whole history, in the order of `index`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History(pub Vec<Op>);
