//! At no instant do two pods both pass the ownership check of a key, and a later owner has a
//! larger token.
//!
//! The promise of docs/GUARANTEES.md for strong targets. Here it rests on the real Raft: terms,
//! confirmations and expiries bound to a term, while leaders are deposed and disks fail.

use std::collections::BTreeMap;

use super::Invariant;
use crate::event::{Event, What};

/// The last owner of each key, with its token.
#[derive(Default)]
pub(super) struct SingleOwner {
    last: BTreeMap<usize, (String, u64)>,
}

impl Invariant for SingleOwner {
    fn name(&self) -> &'static str {
        "single owner"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        let What::Owners { key, owners } = &event.what else {
            return Ok(());
        };
        if let [first, second, ..] = owners.as_slice() {
            return Err(format!(
                "{} (token {}) and {} (token {}) both serve key {key}",
                first.0, first.1, second.0, second.1
            ));
        }
        let Some(now) = owners.first() else {
            return Ok(());
        };
        match self.last.insert(*key, now.clone()) {
            Some(before) if before.0 != now.0 && before.1 >= now.1 => Err(format!(
                "key {key} went from {} to {}, but its token from {} to {}",
                before.0, now.0, before.1, now.1
            )),
            _ => Ok(()),
        }
    }
}
