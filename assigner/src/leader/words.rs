//! What sessions say of handoffs and of arming, turned into proposals.
//!
//! Every word is repeated in every renewal until the view shows the handoff ended, so what is
//! remembered here saves proposals and nothing else: forgetting all of it would be safe.

use std::collections::BTreeSet;

use leasehold_proto::command::{Command, Reply};
use leasehold_proto::message::Word;
use leasehold_proto::target::Mode;
use leasehold_proto::{Generation, HandoffId, SessionId, TargetName};
use leasehold_raft_store::ProposeError;

use super::{Leader, Proposal};

/// A word that was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    /// The handoff took effect.
    Completed(HandoffId),
    /// Its source refused.
    Refused(HandoffId),
    /// The session checks leases since this arming.
    Armed(SessionId, Generation),
}

/// The words that are being proposed.
#[derive(Default)]
pub(super) struct Words {
    proposed: BTreeSet<Said>,
}

impl Words {
    pub(super) fn ended(&mut self, handoff: HandoffId) {
        self.proposed.remove(&Said::Completed(handoff));
        self.proposed.remove(&Said::Refused(handoff));
    }

    /// An applied word needs no memory: the table shows it. One that failed may be said again.
    pub(super) fn proposed(&mut self, said: Said, _result: &Result<Reply, ProposeError>) {
        self.proposed.remove(&said);
    }
}

impl Leader {
    /// Proposes what a session says, unless the table shows it or it is being proposed.
    pub(super) fn listen(&mut self, session: SessionId, words: &[Word], armed: Option<Generation>) {
        let Some(target) = self.plans.home_of(session) else {
            return;
        };
        for word in words {
            if let Some((said, command)) = self.understand(&target, session, *word)
                && self.words.proposed.insert(said)
            {
                self.propose(Proposal::Word(said), command);
            }
        }
        if let Some(arming) = armed.filter(|arming| self.wants_ack(&target, session, *arming)) {
            let said = Said::Armed(session, arming);
            if self.words.proposed.insert(said) {
                self.propose(
                    Proposal::Word(said),
                    Command::AckArming {
                        target,
                        session,
                        arming,
                    },
                );
            }
        }
    }

    /// A word about a handoff that is not open, or from one who is no party to it, means nothing.
    fn understand(
        &self,
        target: &TargetName,
        session: SessionId,
        word: Word,
    ) -> Option<(Said, Command)> {
        let table = self.shared.replica.table();
        let (_, from, handoff) = table.target(target)?.handoff(word.handoff())?;
        let (speaker, said) = match word {
            Word::Surrendered(id, _) => (from.session, Said::Completed(id)),
            Word::Refused(id) => (from.session, Said::Refused(id)),
            Word::Accepted(id) => (handoff.to, Said::Completed(id)),
        };
        (speaker == session).then(|| (said, Command::of_word(target.clone(), session, word)))
    }

    fn wants_ack(&self, target: &TargetName, session: SessionId, arming: Generation) -> bool {
        let table = self.shared.replica.table();
        let Some(state) = table.target(target) else {
            return false;
        };
        state.mode() == Mode::Arming(arming)
            && state
                .session(session)
                .is_some_and(|record| record.acked_arming != Some(arming))
    }
}
