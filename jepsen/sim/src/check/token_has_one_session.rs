//! A fencing token of a key is used by one session only.
//!
//! docs/PROTOCOL.md, "nouns": strictly larger for every later owner of a key. Two sessions with one
//! token are told apart by no store.

use leasehold_proto::{Epoch, FencingToken, SessionId};
use std::collections::BTreeMap;

use super::{Broken, Judged};

#[derive(Default)]
pub struct Tokens(BTreeMap<(usize, FencingToken), SessionId>);

impl Tokens {
    pub fn invariant_a_token_has_one_session(
        &mut self,
        session: SessionId,
        k: usize,
        epoch: Epoch,
    ) -> Judged {
        let first = *self.0.entry((k, epoch.token())).or_insert(session);
        if first != session {
            return Err(Broken {
                invariant: "a token has one session",
                what: format!("{session} owns key {k} at {epoch}, as {first} did"),
            });
        }
        Ok(())
    }

    pub fn user(&self, k: usize, epoch: Epoch) -> Option<SessionId> {
        self.0.get(&(k, epoch.token())).copied()
    }
}
