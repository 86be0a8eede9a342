//! Handoffs: completed, cancelled, asked to cancel. Begun in a plan.

use super::{Applied, Entry, Event, TargetState};
use crate::command::{Digest, EndWord, Reply};
use crate::error::Rejection;
use crate::id::{HandoffId, SessionId};
use crate::view::{Assigned, Lease, Provider};

impl TargetState {
    /// On the source's *surrendered* or the destination's *accepted* the slice is the
    /// destination's; ◆ if that session has closed it falls vacant instead. The digest of the
    /// surrender goes into the view: the destination may never hear it from the source, and what
    /// it has received is nothing without.
    pub(super) fn complete_handoff(
        &mut self,
        entry: &mut Entry,
        id: HandoffId,
        word: EndWord,
        digest: Option<Digest>,
    ) -> Applied {
        let (slice, assigned, from, handoff) = self.of_handoff(id)?;
        let (speaker, part) = match word {
            EndWord::Surrendered(speaker) => (speaker, from.session),
            EndWord::Accepted(speaker) => (speaker, handoff.to),
        };
        if speaker != part && !mutant!("words_of_another_session") {
            return Err(Rejection::NotAParty(speaker, id));
        }
        let mut owner = self.owner_after(handoff.to, handoff.epoch);
        if mutant!("completes_to_closed_destination") {
            owner = Some(Lease {
                session: handoff.to,
                epoch: handoff.epoch,
            });
        }
        let replicas = assigned
            .replicas
            .iter()
            .copied()
            .filter(|replica| *replica != handoff.to)
            .collect();
        let of_source = matches!(word, EndWord::Surrendered(_));
        let digest = digest.filter(|digest| of_source && *digest != Digest::EMPTY);
        let surrendered = |digest| Provider {
            lease: from,
            digest: Some(digest),
        };
        self.put(
            entry,
            slice,
            Assigned {
                owner,
                handoff: None,
                replicas,
                provider: digest.filter(|_| owner.is_some()).map(surrendered),
            },
        );
        entry.event(Event::HandoffEnded {
            target: self.name.clone(),
            handoff: id,
            slice,
            to: handoff.to,
            completed: true,
        });
        Ok(Reply::Done)
    }

    /// ◆ Only the source's word ends a handoff without effect.
    pub(super) fn cancel_handoff(
        &mut self,
        entry: &mut Entry,
        id: HandoffId,
        refused_by: SessionId,
    ) -> Applied {
        let (slice, assigned, from, handoff) = self.of_handoff(id)?;
        if refused_by != from.session && !mutant!("words_of_another_session") {
            return Err(Rejection::NotAParty(refused_by, id));
        }
        self.put(
            entry,
            slice,
            Assigned {
                handoff: None,
                ..assigned
            },
        );
        entry.event(Event::HandoffEnded {
            target: self.name.clone(),
            handoff: id,
            slice,
            to: handoff.to,
            completed: false,
        });
        Ok(Reply::Done)
    }

    /// Puts the question into the source's view. It is durable: a new leader need not remember it.
    pub(super) fn ask_cancel(&mut self, entry: &mut Entry, id: HandoffId) -> Applied {
        let (slice, assigned, from, mut handoff) = self.of_handoff(id)?;
        if mutant!("cancel_without_word_of_source") {
            return self.cancel_handoff(entry, id, from.session);
        }
        if !handoff.ask_cancel {
            handoff.ask_cancel = true;
            self.put(
                entry,
                slice,
                Assigned {
                    handoff: Some(handoff),
                    ..assigned
                },
            );
        }
        Ok(Reply::Done)
    }
}
