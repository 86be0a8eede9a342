//! Once nothing goes wrong, no session expires whose process lives.
//!
//! docs/PROTOCOL.md; the expiry of a living process would repair every trap in which a slice waits
//! for a word that never comes, and so hide it.

use leasehold_proto::SessionId;
use leasehold_proto::command::Command;

use super::{Broken, Judged};

pub fn invariant_no_living_session_expires(
    command: &Command,
    lives: impl Fn(SessionId) -> bool,
) -> Judged {
    match command {
        Command::ExpireSession { session, .. } if lives(*session) => Err(Broken {
            invariant: "no living session expires while nothing goes wrong",
            what: format!("{session} expires though its process lives"),
        }),
        _ => Ok(()),
    }
}
