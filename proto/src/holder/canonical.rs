//! What decides a Holder's future.

use super::{Holder, Local, Part};
use crate::canonical::{Canonical, Number, Visitor};
use crate::clock::ClockTime;

impl Canonical for Holder {
    /// Left out: `next_seq`, larger than every other; the configuration, but for what can change.
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        if let (None, Some(newest)) = (&self.session, self.newest_session) {
            // Refuses only an answer to an earlier registration.
            visitor.begin_remark(Number::Session, newest.as_u64());
            newest.visit(visitor);
            visitor.end_remark();
        }
        visitor.plain(
            u64::from(self.hurry.is_some())
                | u64::from(self.shut) << 1
                | u64::from(self.session.is_some()) << 2,
        );
        if let Some(until) = self.hurry {
            visitor.due(until);
        }
        if let Some(session) = &self.session {
            session.id.visit(visitor);
            visitor.plain(session.ttl.as_nanos() as u64);
            let view = self.view.as_ref().map(|view| view.generation);
            // Refuses nothing any more that a view as new does not refuse.
            if view.is_none_or(|known| known < session.not_before) {
                session.not_before.visit(visitor);
            }
            // None is as good as one that is past.
            visitor.due(session.deadline.unwrap_or(ClockTime::from_nanos(0)));
            visitor.due(session.next_renewal);
            for (seq, t0) in &session.sent {
                visitor.begin_remark_in(Number::Seq, session.id.as_u64(), *seq);
                visitor.number_in(Number::Seq, session.id.as_u64(), *seq);
                // Of a transmission only the deadline matters that its answer would give.
                visitor.due(*t0 + session.ttl);
                visitor.end_remark();
            }
        }
        self.view.visit(visitor);
        self.floors.visit(visitor);
        self.visit_handoffs(visitor);
        for (handoff, surrender) in &self.early_surrenders {
            visitor.begin_remark(Number::Handoff, handoff.as_u64());
            surrender.visit(visitor);
            visitor.end_remark();
        }
        for (handoff, ready) in &self.early_ready {
            visitor.begin_remark(Number::Handoff, handoff.as_u64());
            ready.visit(visitor);
            visitor.end_remark();
        }
        self.local.visit(visitor);
        #[cfg(leasehold_mutants)]
        for (session, word) in &self.said {
            visitor.begin_remark(Number::Handoff, word.handoff().as_u64());
            session.visit(visitor);
            word.visit(visitor);
            visitor.end_remark();
        }
    }
}

impl Canonical for Local {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.slice.visit(visitor);
        self.epoch.visit(visitor);
        match &self.part {
            Part::Owner => visitor.plain(0),
            Part::Frozen(handoff) => {
                visitor.plain(1);
                handoff.visit(visitor);
            }
            Part::Replica => visitor.plain(2),
            Part::Arriving(handoff) => {
                visitor.plain(3);
                handoff.visit(visitor);
            }
            Part::Gone(moved) => {
                visitor.plain(4);
                moved.visit(visitor);
            }
        }
    }
}
