//! A history: every operation that a client invoked, and how it ended.
//!
//! One JSON object a line, `{"index", "time", "process", "type", "f", "key", "value", "node",
//! "epoch", "error"}`, in the order of `index`; Porcupine's command-line tool reads the same.

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
