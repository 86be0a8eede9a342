//! A counter: `add`, `read`.

use serde_json::Value;

use super::{Model, Names};
use crate::history::{Call, Versioned};

/// A counter that begins at 0. Versions do not count. 128 bits hold every sum of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter;

/// An operation on a counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CounterOp {
    /// Adds.
    Add(i64),
    /// Reads.
    Read(i64),
}

/// The amount of an `add`: `n` or `[n, id]`.
pub(crate) fn amount(argument: &Value) -> Option<i64> {
    match argument.as_array().map(Vec::as_slice) {
        Some([amount, _id]) => amount.as_i64(),
        Some(_) => None,
        None => argument.as_i64(),
    }
}

/// The number that a read returned: `n` or `{"value": n, …}`.
pub(crate) fn total(result: &Value) -> Option<i64> {
    match result.as_object() {
        Some(fields) => fields.get("value")?.as_i64(),
        None => Versioned::of(result).value.as_i64(),
    }
}

impl Model for Counter {
    type State = i128;
    type Op = CounterOp;

    fn name(&self) -> &'static str {
        "counter"
    }

    fn initial(&self, _names: &mut Names) -> i128 {
        0
    }

    fn op(&self, call: &Call<'_>, _names: &mut Names) -> Result<Option<CounterOp>, String> {
        match call.f() {
            "add" => amount(&call.invoke.value)
                .map(|amount| Some(CounterOp::Add(amount)))
                .ok_or_else(|| format!("an add of {}, not n or [n, id]", call.invoke.value)),
            "read" => match call.ok() {
                Some(ok) => total(&ok.value)
                    .map(|total| Some(CounterOp::Read(total)))
                    .ok_or_else(|| format!("a read of {}, not a number", ok.value)),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn step(&self, state: &i128, op: &CounterOp) -> Option<i128> {
        match op {
            CounterOp::Add(amount) => Some(state.saturating_add(i128::from(*amount))),
            CounterOp::Read(total) => (i128::from(*total) == *state).then_some(*state),
        }
    }

    fn is_read(&self, op: &CounterOp) -> bool {
        matches!(op, CounterOp::Read(_))
    }

    /// Additions can be exchanged, so an unknown one can wait until just before a read.
    fn is_idle(&self, _unknown: &CounterOp, next: &CounterOp, next_is_unknown: bool) -> bool {
        !next_is_unknown && matches!(next, CounterOp::Add(_))
    }

    fn show(&self, state: &i128, _names: &Names) -> String {
        state.to_string()
    }

    fn needs(&self, op: &CounterOp, state: &i128, _names: &Names) -> String {
        match op {
            CounterOp::Read(total) => format!("needs {total} where {state} is"),
            CounterOp::Add(_) => String::from("always fits"),
        }
    }
}
