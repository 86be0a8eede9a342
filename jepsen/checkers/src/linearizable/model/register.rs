//! A register: `read`, `write`, `cas`.

use std::collections::HashSet;

use serde_json::Value;

use super::{Model, Names, Timed};
use crate::history::{Call, Version, Versioned};

/// A register. Where results carry versions they count: a write makes a version larger than all
/// before it, a read sees the version that the register has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Register {
    /// What it holds at first.
    pub initial: Value,
}

/// What a register holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    value: u32,
    /// Its version, or, if it was written without one, the largest before it.
    version: Version,
    is_exact: bool,
}

/// An operation on a register.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegisterOp {
    kind: Kind,
    version: Option<Version>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Read(u32),
    Write(u32),
    Cas(u32, u32),
}

impl RegisterOp {
    /// The value that must be there for it.
    fn sees(&self) -> Option<u32> {
        match self.kind {
            Kind::Read(value) | Kind::Cas(value, _) => Some(value),
            Kind::Write(_) => None,
        }
    }

    /// The value that it leaves.
    fn leaves(&self) -> Option<u32> {
        match self.kind {
            Kind::Write(value) | Kind::Cas(_, value) => Some(value),
            Kind::Read(_) => None,
        }
    }
}

impl Model for Register {
    type State = Held;
    type Op = RegisterOp;

    fn name(&self) -> &'static str {
        "register"
    }

    fn initial(&self, names: &mut Names) -> Held {
        Held {
            value: names.number(&self.initial),
            version: (0, 0),
            is_exact: true,
        }
    }

    fn op(&self, call: &Call<'_>, names: &mut Names) -> Result<Option<RegisterOp>, String> {
        let result = call.ok().map(|op| Versioned::of(&op.value));
        let version = result.and_then(|result| result.version);
        let kind = match call.f() {
            "read" => match result {
                Some(result) => Kind::Read(names.number(result.value)),
                None => return Ok(None),
            },
            "write" => Kind::Write(names.number(&call.invoke.value)),
            "cas" => match call.invoke.value.as_array().map(Vec::as_slice) {
                Some([from, to]) => Kind::Cas(names.number(from), names.number(to)),
                _ => return Err(format!("a cas of {}, not [from, to]", call.invoke.value)),
            },
            _ => return Ok(None),
        };
        Ok(Some(RegisterOp { kind, version }))
    }

    fn step(&self, state: &Held, op: &RegisterOp) -> Option<Held> {
        if op.sees().is_some_and(|value| value != state.value) {
            return None;
        }
        match (op.leaves(), op.version) {
            (Some(value), Some(version)) => (version > state.version).then_some(Held {
                value,
                version,
                is_exact: true,
            }),
            (Some(value), None) => Some(Held {
                value,
                version: state.version,
                is_exact: false,
            }),
            (None, None) => Some(state.clone()),
            (None, Some(version)) => {
                let fits = match state.is_exact {
                    true => version == state.version,
                    false => version > state.version,
                };
                fits.then_some(Held {
                    value: state.value,
                    version,
                    is_exact: true,
                })
            }
        }
    }

    fn is_read(&self, op: &RegisterOp) -> bool {
        matches!(op.kind, Kind::Read(_))
    }

    /// A value that nobody saw before it was overwritten need never have been there.
    fn is_idle(&self, _unknown: &RegisterOp, next: &RegisterOp, _next_is_unknown: bool) -> bool {
        matches!(next.kind, Kind::Write(_))
    }

    /// A value that no operation sees need never have been there.
    fn drop_unseen(&self, ops: &mut Vec<Timed<RegisterOp>>) {
        loop {
            let seen: HashSet<u32> = ops.iter().filter_map(|timed| timed.op.sees()).collect();
            let before = ops.len();
            ops.retain(|timed| {
                timed.return_ns.is_some()
                    || timed.op.leaves().is_none_or(|value| seen.contains(&value))
            });
            if ops.len() == before {
                return;
            }
        }
    }

    fn show(&self, state: &Held, names: &Names) -> String {
        match (state.version, state.is_exact) {
            ((0, 0), _) => names.value(state.value).to_string(),
            ((epoch, seq), true) => format!("{} at {epoch}.{seq}", names.value(state.value)),
            ((epoch, seq), false) => {
                format!("{} past {epoch}.{seq}", names.value(state.value))
            }
        }
    }

    fn needs(&self, op: &RegisterOp, state: &Held, names: &Names) -> String {
        match op.sees().filter(|value| *value != state.value) {
            Some(value) => format!(
                "needs {} where {} is",
                names.value(value),
                names.value(state.value)
            ),
            None => {
                let (epoch, seq) = op.version.unwrap_or_default();
                format!(
                    "has version {epoch}.{seq} where {} is",
                    self.show(state, names)
                )
            }
        }
    }
}
