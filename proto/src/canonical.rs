//! What decides the future of a machine, without the numbers that do not.
//!
//! A run of the machines never comes back to a state that it was in: clocks, log indexes, session
//! and handoff ids and sequence numbers only rise. Yet the rules look at them in two ways only. Of
//! times they ask whether one has come; of numbers, which of two is larger or whether they are
//! equal. So two states in which the same things fall due after the same time, and whose numbers
//! stand in the same order, have the same futures but for the names of the numbers. An exhaustive
//! search needs to follow one of them.
//!
//! [`Canonical::visit`] shows a [`Visitor`] everything that decides the future, each value under
//! the way in which the rules use it. The visitor then makes a fingerprint, by replacing each number
//! with its rank among all numbers of its class *in the whole world*, messages under way included,
//! and each time with the time that is left. What that needs to be sound:
//!
//! * Numbers are handed out in rising order: the next log index, session, handoff or sequence
//!   number is larger than any seen. `next_session`, `next_handoff` and `next_seq` are then larger
//!   than all others in every state and say nothing; they are not visited.
//! * No rule asks for the distance of two numbers. One does: the jitter of a renewal's period is
//!   mixed from its sequence number. It moves the next renewal within a tenth of a sixth of the
//!   ttl. A visitor must therefore round a time that is left up to the next reading of its clock,
//!   and clocks must move in steps of at least a sixth of the ttl: no reading then tells two
//!   jitters apart.
//! * A time is compared with readings of the same clock only, so that rounding up to the next
//!   reading changes no answer. A time that has come is as good as any other that has.
//! * Indexes derived from other fields ([`crate::table::TargetState`] keeps some, the Grantor its
//!   queue of due sessions) are not visited: their content follows from what is.
//!
//! A *remark* is what is noted about a number that may never be heard of again: a transmission that
//! is not answered, a message about a handoff that no view shows. It decides nothing unless
//! something outside remarks names the number, and a visitor may leave it out until then.

use crate::clock::ClockTime;
use crate::command::{Command, Digest, EndWord, PlanStep};
use crate::id::{Epoch, Generation, HandoffId, SessionId};
use crate::key::SliceKey;
use crate::message::{Moved, Ready, ReadyAnswer, Renew, Renewed, Surrender, Word};
use crate::slice::Slice;
use crate::target::{Mode, Squid};
use crate::view::{Assigned, Lease, View, ViewUpdate};

/// Classes of numbers. Two numbers of one class are compared; of two classes, never.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Number {
    /// Log indexes: generations and epochs.
    Index,
    /// Sessions.
    Session,
    /// Handoffs.
    Handoff,
    /// Terms of leaders.
    Term,
    /// Transmissions of renewals.
    Seq,
    /// Versions of a configuration.
    Version,
    /// Slicelet objects, by the random part of their Squid.
    Object,
}

/// How many classes of numbers there are.
pub const NUMBERS: usize = 7;

/// Is shown everything that decides a machine's future, in a fixed order.
pub trait Visitor {
    /// A value that means what it is.
    fn plain(&mut self, value: u64);

    /// A number of which only order and equality within its class matter.
    fn number(&mut self, class: Number, value: u64);

    /// A number that is compared only with numbers of its class in the same scope: a sequence
    /// number with others of its session, an object with others at its address.
    fn number_in(&mut self, class: Number, scope: u64, value: u64);

    /// A time that is only ever compared with readings of this machine's clock.
    fn due(&mut self, at: ClockTime);

    /// A time that has come, from which a wait will be counted that this machine does not know yet.
    /// What matters is how long ago it was, up to the longest such wait.
    fn since(&mut self, at: ClockTime);

    /// What follows, until the matching [`Visitor::end_remark`], matters only if `value` is named
    /// somewhere outside remarks. Remarks are not nested.
    fn begin_remark(&mut self, class: Number, value: u64);

    /// The same for a number with a scope.
    fn begin_remark_in(&mut self, class: Number, scope: u64, value: u64);

    /// Ends the remark.
    fn end_remark(&mut self);

    /// Whether to be shown what decides nothing but advice: whom the Grantor suspects. A world whose
    /// planner does not ask for it has fewer states without.
    fn wants_advice(&self) -> bool {
        true
    }

    /// A text that means what it is.
    fn text(&mut self, text: &str) {
        self.plain(xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
    }
}

/// A value whose future a [`Visitor`] can be shown.
pub trait Canonical {
    /// Shows `visitor` everything that decides the future of this value.
    fn visit<V: Visitor>(&self, visitor: &mut V);
}

impl<T: Canonical> Canonical for Option<T> {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        visitor.plain(u64::from(self.is_some()));
        if let Some(value) = self {
            value.visit(visitor);
        }
    }
}

impl<T: Canonical> Canonical for [T] {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        visitor.plain(self.len() as u64);
        for value in self {
            value.visit(visitor);
        }
    }
}

impl Canonical for SliceKey {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        visitor.plain(self.as_u64());
    }
}

impl Canonical for Slice {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        visitor.plain(self.first().as_u64());
        visitor.plain(self.last().as_u64());
    }
}

impl Canonical for Generation {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        // Ordered as generations are: by incarnation first.
        visitor.number(Number::Index, Epoch::mint(*self).token().as_u64());
    }
}

impl Canonical for Epoch {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.generation().visit(visitor);
    }
}

impl Canonical for SessionId {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        visitor.number(Number::Session, self.as_u64());
    }
}

impl Canonical for HandoffId {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        visitor.number(Number::Handoff, self.as_u64());
    }
}

impl Canonical for Digest {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        visitor.plain(xxhash_rust::xxh3::xxh3_64(&self.0));
    }
}

impl Canonical for Squid {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        visitor.text(self.address.as_str());
        let scope = xxhash_rust::xxh3::xxh3_64(self.address.as_str().as_bytes());
        visitor.number_in(Number::Object, scope, self.id as u64);
    }
}

impl Canonical for Mode {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        match self {
            Mode::Strong => visitor.plain(0),
            Mode::Eventual => visitor.plain(1),
            Mode::Arming(generation) => {
                visitor.plain(2);
                generation.visit(visitor);
            }
        }
    }
}

impl Canonical for Lease {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.session.visit(visitor);
        self.epoch.visit(visitor);
    }
}

impl Canonical for Assigned {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.owner.visit(visitor);
        visitor.plain(u64::from(self.handoff.is_some()));
        if let Some(handoff) = &self.handoff {
            handoff.id.visit(visitor);
            handoff.to.visit(visitor);
            handoff.epoch.visit(visitor);
            visitor.plain(u64::from(handoff.ask_cancel) | u64::from(handoff.to_closed) << 1);
        }
        self.replicas.visit(visitor);
        visitor.plain(u64::from(self.provider.is_some()));
        if let Some(provider) = &self.provider {
            provider.lease.visit(visitor);
            provider.digest.visit(visitor);
        }
    }
}

impl Canonical for (Slice, Assigned) {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.0.visit(visitor);
        self.1.visit(visitor);
    }
}

impl Canonical for View {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.generation.visit(visitor);
        self.mode.visit(visitor);
        visitor.plain(self.slices.len() as u64);
        for (slice, assigned) in self.slices.iter() {
            slice.visit(visitor);
            assigned.visit(visitor);
        }
        // The address of a session that no slice names any more can be asked for by nobody.
        for (_, assigned) in self.slices.iter() {
            for session in assigned.sessions() {
                visitor.plain(u64::from(self.pods.contains_key(&session)));
            }
        }
    }
}

impl Canonical for ViewUpdate {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        match self {
            ViewUpdate::Full(view) => {
                visitor.plain(0);
                view.visit(visitor);
            }
            ViewUpdate::Diff(diff) => {
                visitor.plain(1);
                diff.base.visit(visitor);
                diff.generation.visit(visitor);
                diff.mode.visit(visitor);
                diff.changed.visit(visitor);
                visitor.plain(diff.pods.len() as u64);
                for (session, _) in &diff.pods {
                    session.visit(visitor);
                }
            }
        }
    }
}

impl Canonical for Word {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        match self {
            Word::Surrendered(id, digest) => {
                visitor.plain(0);
                id.visit(visitor);
                digest.visit(visitor);
            }
            Word::Refused(id) => {
                visitor.plain(1);
                id.visit(visitor);
            }
            Word::Accepted(id) => {
                visitor.plain(2);
                id.visit(visitor);
            }
        }
    }
}

impl Canonical for Renew {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.session.visit(visitor);
        visitor.number_in(Number::Seq, self.session.as_u64(), self.seq);
        self.known.visit(visitor);
        for word in &self.words {
            visitor.begin_remark(Number::Handoff, word.handoff().as_u64());
            word.visit(visitor);
            visitor.end_remark();
        }
        self.armed.visit(visitor);
        self.merging.visit(visitor);
    }
}

impl Canonical for Renewed {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.session.visit(visitor);
        visitor.number_in(Number::Seq, self.session.as_u64(), self.seq);
        visitor.plain(self.ttl.as_nanos() as u64);
        self.update.visit(visitor);
    }
}

impl Canonical for Ready {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.handoff.visit(visitor);
        self.from.visit(visitor);
        self.to.visit(visitor);
    }
}

impl Canonical for Surrender {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.handoff.visit(visitor);
        self.from.visit(visitor);
        self.to.visit(visitor);
        self.digest.visit(visitor);
    }
}

impl Canonical for ReadyAnswer {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        match self {
            ReadyAnswer::Surrendered(surrender) => {
                visitor.plain(0);
                surrender.visit(visitor);
            }
            ReadyAnswer::Refused(id) => {
                visitor.plain(1);
                id.visit(visitor);
            }
            ReadyAnswer::NotMine(session) => {
                visitor.plain(2);
                session.visit(visitor);
            }
        }
    }
}

impl Canonical for Moved {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.slice.visit(visitor);
        self.handoff.visit(visitor);
        self.session.visit(visitor);
        visitor.text(self.address.as_str());
        self.epoch.visit(visitor);
        self.generation.visit(visitor);
    }
}

impl Canonical for EndWord {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        let (part, session) = match self {
            EndWord::Surrendered(session) => (0, session),
            EndWord::Accepted(session) => (1, session),
        };
        visitor.plain(part);
        session.visit(visitor);
    }
}

impl Canonical for PlanStep {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        match self {
            PlanStep::Grant { slice, to } => {
                visitor.plain(0);
                slice.visit(visitor);
                to.visit(visitor);
            }
            PlanStep::BeginHandoff { slice, from, to } => {
                visitor.plain(1);
                slice.visit(visitor);
                from.visit(visitor);
                to.visit(visitor);
            }
            PlanStep::Reassign { slice, from, to } => {
                visitor.plain(2);
                slice.visit(visitor);
                from.visit(visitor);
                to.visit(visitor);
            }
            PlanStep::Split { slice, owner, at } => {
                visitor.plain(3);
                slice.visit(visitor);
                owner.visit(visitor);
                at.visit(visitor);
            }
            PlanStep::Merge {
                left,
                right,
                owner,
                taken_in,
            } => {
                visitor.plain(4);
                left.visit(visitor);
                right.visit(visitor);
                owner.visit(visitor);
                taken_in.visit(visitor);
            }
            PlanStep::SetReplicas {
                slice,
                owner,
                replicas,
            } => {
                visitor.plain(5);
                slice.visit(visitor);
                owner.visit(visitor);
                replicas.visit(visitor);
            }
        }
    }
}

impl Canonical for Command {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        match self {
            Command::ExpireSession {
                session,
                term,
                successors,
                ..
            } => {
                visitor.plain(0);
                session.visit(visitor);
                visitor.number(Number::Term, *term);
                for (first, to) in successors {
                    first.visit(visitor);
                    to.visit(visitor);
                }
            }
            Command::CompleteHandoff { handoff, word, .. } => {
                visitor.plain(1);
                handoff.visit(visitor);
                word.visit(visitor);
            }
            Command::CancelHandoff {
                handoff,
                refused_by,
                ..
            } => {
                visitor.plain(2);
                handoff.visit(visitor);
                refused_by.visit(visitor);
            }
            Command::AskCancel { handoff, .. } => {
                visitor.plain(3);
                handoff.visit(visitor);
            }
            Command::AckArming {
                session, arming, ..
            } => {
                visitor.plain(4);
                session.visit(visitor);
                arming.visit(visitor);
            }
            Command::ApplyPlan {
                config_version,
                steps,
                ..
            } => {
                visitor.plain(5);
                visitor.number(Number::Version, *config_version);
                steps.visit(visitor);
            }
            Command::RegisterSession { squid, .. } => {
                visitor.plain(6);
                squid.visit(visitor);
            }
            Command::CloseSession { session, .. } => {
                visitor.plain(7);
                session.visit(visitor);
            }
            Command::DrainSession { session, .. } => {
                visitor.plain(8);
                session.visit(visitor);
            }
            Command::ForgetGhost { session, .. } => {
                visitor.plain(9);
                session.visit(visitor);
            }
            Command::EndRestoreWait { term } => {
                visitor.plain(10);
                visitor.number(Number::Term, *term);
            }
            // Rare, and without numbers that are compared but for versions: as they print.
            Command::CreateTarget { .. }
            | Command::UpdateTarget { .. }
            | Command::DeleteTarget { .. }
            | Command::Restore { .. } => {
                visitor.plain(11);
                visitor.text(&format!("{self:?}"));
            }
        }
    }
}
