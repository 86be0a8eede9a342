//! A proposal bound to a term is never committed in another one.
//!
//! Rule ◆ of docs/PROTOCOL.md ("decided in a term, proposed in that term only"); what etcd lacked
//! when a deposed leader revoked live leases (etcd issues 12528 and 15247).

use super::Invariant;
use crate::event::{Event, What};

/// Looks at each applied command by itself.
#[derive(Default)]
pub(super) struct TermBinding;

impl Invariant for TermBinding {
    fn name(&self) -> &'static str {
        "term binding"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match event.what {
            What::Applied {
                at,
                serial,
                in_term: Some(bound),
                ..
            } if at.term != bound => Err(format!(
                "proposal {serial} was bound to term {bound} and is committed as {at}"
            )),
            _ => Ok(()),
        }
    }
}
