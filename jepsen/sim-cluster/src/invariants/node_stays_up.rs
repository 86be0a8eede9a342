//! A node stops by itself only when its disk fails, and always starts on what its disk holds after
//! a crash.
//!
//! The contract of `RaftNode`: records that contradict each other stop it, so a node that stops
//! for another reason has found a contradiction that the store or the library made.

use super::Invariant;
use crate::event::{Event, What};

/// Looks at each end by itself.
#[derive(Default)]
pub(super) struct NodeStaysUp;

impl Invariant for NodeStaysUp {
    fn name(&self) -> &'static str {
        "node stays up"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match &event.what {
            What::Stopped { disk_failed: false } => Err(format!(
                "node {} stopped although its disk was sound",
                event.node
            )),
            What::NotStarted(why) => Err(format!(
                "node {} does not start on what its disk holds: {why}",
                event.node
            )),
            _ => Ok(()),
        }
    }
}
