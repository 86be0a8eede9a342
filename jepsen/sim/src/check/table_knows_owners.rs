//! Whoever may pass a check of a strong target is named by the committed table: as owner, or as
//! destination of the open handoff at that epoch. Stronger than one owner at a time: nobody can be
//! given a slice beside one whom the table knows.
//!
//! docs/PROTOCOL.md, "planned handoff": {A owns} or {surrendered, nobody serves} or {B owns}.

use leasehold_proto::table::LeaseTable;
use leasehold_proto::{Epoch, SessionId};

use super::{Broken, Judged};
use crate::world::{key, target};

pub fn invariant_the_table_knows_who_may_pass(
    master: &LeaseTable,
    session: SessionId,
    k: usize,
    epoch: Epoch,
) -> Judged {
    // What a deleted or lost history gave runs out by itself; nothing is granted meanwhile.
    let Some(state) = master.target(target()).filter(|state| !state.is_deleted()) else {
        return Ok(());
    };
    if master.restore_wait().is_some() {
        return Ok(());
    }
    let known = state.slice_of(key(k)).is_some_and(|(_, assigned)| {
        assigned.owner.is_some_and(|owner| owner.session == session)
            || assigned
                .handoff
                .is_some_and(|handoff| handoff.to == session && handoff.epoch == epoch)
    });
    if known {
        return Ok(());
    }
    Err(Broken {
        invariant: "the table knows who may pass",
        what: format!(
            "{session} passes a check of key {k} at {epoch} that the table does not know of"
        ),
    })
}
