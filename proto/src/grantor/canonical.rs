//! What decides a Grantor's future.

use super::Grantor;
use crate::canonical::{Canonical, Number, Visitor};

impl Canonical for Grantor {
    /// `due` and each `queued` are left out: a session is looked at no later than what it waits for
    /// comes, whatever they say; only the order in which decisions of one instant are told follows
    /// from them, and its owner must make nothing of that. Rounds are told apart only from rounds of this Grantor that were
    /// given up, whose answer is ignored: whether one is under way is all that matters, provided
    /// that its owner gives no answer to a round that it was told to give up.
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        visitor.number(Number::Term, self.term);
        visitor.plain(u64::from(self.ready));
        if !self.ready {
            // D of every session counts from here when the term's first entry is applied.
            visitor.since(self.won);
        }
        visitor.plain(self.sessions.len() as u64);
        for (session, slot) in &self.sessions {
            session.visit(visitor);
            visitor.plain(u64::from(slot.expiring) | u64::from(slot.leaving) << 1);
            visitor.plain(slot.wait.as_nanos() as u64);
            // Its expiry was decided once and is not decided again.
            if !slot.expiring {
                visitor.due(slot.expires());
            }
            if visitor.wants_advice() {
                visitor.plain(u64::from(slot.renewed) | u64::from(slot.suspected) << 1);
                visitor.due(slot.suspicious());
            }
        }
        for renewals in [Some(&self.collected), self.in_flight.as_ref()] {
            visitor.plain(renewals.map_or(u64::MAX, |renewals| renewals.len() as u64));
            for renewal in renewals.into_iter().flatten() {
                renewal.session.visit(visitor);
                let scope = renewal.session.as_u64();
                visitor.begin_remark_in(Number::Seq, scope, renewal.seq);
                visitor.number_in(Number::Seq, scope, renewal.seq);
                visitor.end_remark();
            }
        }
        if let Some(last) = self.last_round {
            visitor.due(last + self.config.collect_window);
        }
    }
}
