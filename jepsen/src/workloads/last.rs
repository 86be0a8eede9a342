//! What is done at the end of workloads on the target, when all faults are healed: everybody must
//! agree who serves what, and every part of the key space must be served.

use std::time::Duration;

use serde_json::{Value, json};

use super::{DEADLINE, Settings};
use crate::system::Invocation;

/// How long everybody may take to agree.
const AGREEMENT: Duration = Duration::from_secs(20);

/// An operation.
pub(super) fn op(f: &str, key: &str, value: Value) -> Invocation {
    Invocation {
        f: f.into(),
        key: Some(key.into()),
        value,
        deadline: DEADLINE,
    }
}

/// Who is asked for their view at the end.
pub(super) fn observers(settings: &Settings) -> Vec<String> {
    let assigners = (1..=settings.assigners).map(|number| format!("a{number}"));
    assigners.chain(["pods".into(), "clerk".into()]).collect()
}

/// The views of all observers.
pub(super) fn views(settings: &Settings) -> Vec<Invocation> {
    observers(settings)
        .into_iter()
        .map(|observer| Invocation {
            deadline: AGREEMENT,
            ..op("view", crate::leasehold::TARGET, json!(observer))
        })
        .collect()
}

/// A value of an `ok` line without its version.
pub(super) fn plain(value: &Value) -> &Value {
    match value.as_object() {
        Some(fields) if fields.len() == 2 && fields.contains_key("version") => {
            fields.get("value").unwrap_or(value)
        }
        _ => value,
    }
}
