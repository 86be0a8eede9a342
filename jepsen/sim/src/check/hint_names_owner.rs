//! What a former owner tells a Clerk names the session that owns at that epoch, or will.
//!
//! docs/PROTOCOL.md, "planned handoff", step 5: a hint outranks the map, so a wrong one would lead
//! requests astray until the map is newer.

use leasehold_proto::message::Moved;

use super::token_has_one_session::Tokens;
use super::{Broken, Judged, keys_of};

pub fn invariant_a_hint_names_the_owner(moved: &Moved, tokens: &Tokens) -> Judged {
    for k in keys_of(moved.slice) {
        if let Some(user) = tokens
            .user(k, moved.epoch)
            .filter(|user| *user != moved.session)
        {
            return Err(Broken {
                invariant: "a hint names the owner",
                what: format!(
                    "a Clerk is told that key {k} is with {} at {}, but {user} owned at it",
                    moved.session, moved.epoch
                ),
            });
        }
    }
    Ok(())
}
