//! The epoch of a cancelled handoff is never used, neither before nor after it is cancelled.
//!
//! docs/PROTOCOL.md, "cancelling": only the source's word ends a handoff without effect, and a
//! source that has said *refused* never surrenders.

use leasehold_proto::{Epoch, FencingToken, SessionId, Slice};
use std::collections::BTreeSet;

use super::token_has_one_session::Tokens;
use super::{Broken, Judged, keys_of};

const NAME: &str = "a cancelled epoch is never used";

#[derive(Default)]
pub struct Cancelled(BTreeSet<(usize, FencingToken)>);

impl Cancelled {
    pub fn cancel(&mut self, slice: Slice, epoch: Epoch, tokens: &Tokens) -> Judged {
        for k in keys_of(slice) {
            self.0.insert((k, epoch.token()));
            if let Some(user) = tokens.user(k, epoch) {
                let what =
                    format!("the handoff at {epoch} was cancelled, but {user} owned key {k} at it");
                return Err(Broken {
                    invariant: NAME,
                    what,
                });
            }
        }
        Ok(())
    }

    pub fn invariant_a_cancelled_epoch_is_never_used(
        &self,
        session: SessionId,
        k: usize,
        epoch: Epoch,
    ) -> Judged {
        if self.0.contains(&(k, epoch.token())) {
            let what = format!("{session} owns key {k} at {epoch}, whose handoff was cancelled");
            return Err(Broken {
                invariant: NAME,
                what,
            });
        }
        Ok(())
    }
}
