//! Election safety: at most one leader per term.
//!
//! Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014, figure 3 and
//! section 5.2. Everything that is decided "in a term" rests on it.

use std::collections::BTreeMap;

use super::Invariant;
use crate::event::{Event, NodeId, What};

/// Who has said that it leads, by term. A node that led a term before a restart does not lead it
/// again: a leadership is one unbroken life.
#[derive(Default)]
pub(super) struct ElectionSafety {
    leaders: BTreeMap<u64, (NodeId, u64)>,
}

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "election safety"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        let What::Role { term, leads: true } = event.what else {
            return Ok(());
        };
        let now = (event.node, event.life);
        let first = *self.leaders.entry(term).or_insert(now);
        if first == now {
            return Ok(());
        }
        Err(format!(
            "term {term} is led by node {} in its life {}, and by node {} in its life {}",
            first.0, first.1, now.0, now.1
        ))
    }
}
