//! A check that needs a lease passes only before the deadline, counted from the `t0` of the
//! transmission that was answered.
//!
//! docs/PROTOCOL.md, "renewal"; the world keeps its own account of what was answered and when it
//! was sent. Counted from receipt a lease would outlive D.

use leasehold_proto::{ClockTime, SessionId};

use super::{Broken, Judged};
use crate::world::Host;

pub fn invariant_no_check_passes_after_the_deadline(
    host: &Host,
    session: SessionId,
    now: ClockTime,
) -> Judged {
    let needs_lease = host
        .holder
        .view()
        .is_some_and(|view| view.mode.checks_leases());
    let over = || {
        host.may_serve
            .get(&session)
            .is_none_or(|until| now >= *until)
    };
    if needs_lease && over() {
        return Err(Broken {
            invariant: "no check passes after the deadline",
            what: format!("{session} passes a check at {now:?}, after its deadline"),
        });
    }
    Ok(())
}
