//! Within one life a machine applies upwards, without a gap between commands that its log holds,
//! and a snapshot never takes it back.
//!
//! Ongaro and Ousterhout 2014, figure 2 (`lastApplied` increases monotonically) and section 7.

use std::collections::BTreeMap;

use super::Invariant;
use crate::event::{Event, NodeId, What};

/// The last index of each life.
#[derive(Default)]
pub(super) struct MonotoneApply {
    last: BTreeMap<(NodeId, u64), u64>,
}

impl MonotoneApply {
    fn reach(&mut self, event: &Event, index: u64, what: &str) -> Result<(), String> {
        let last = self.last.entry((event.node, event.life)).or_default();
        if index < *last {
            return Err(format!(
                "node {} was at {last} and {what} {index}",
                event.node
            ));
        }
        *last = index;
        Ok(())
    }
}

impl Invariant for MonotoneApply {
    fn name(&self) -> &'static str {
        "monotone apply"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match &event.what {
            What::Applied { at, .. } => {
                let last = self.last.get(&(event.node, event.life));
                if last == Some(&at.index) && at.index != 0 {
                    return Err(format!("node {} applied {at} twice", event.node));
                }
                self.reach(event, at.index, "applied")
            }
            What::Published { last } => self.reach(event, last.index, "published"),
            What::Restored { at: Some(at), .. } => self.reach(event, at.index, "was restored to"),
            _ => Ok(()),
        }
    }
}
