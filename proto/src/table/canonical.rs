//! What decides the table's future.

use super::record::SessionRecord;
use super::target::SliceState;
use super::{LeaseTable, TargetState};
use crate::canonical::{Canonical, Number, Visitor};
use crate::key::SliceKey;

impl Canonical for LeaseTable {
    /// Left out: the serials of the next session and handoff, larger than every other.
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        visitor.plain(u64::from(self.meta.incarnation.get()));
        let wait = self.meta.restore_wait;
        visitor.plain(wait.map_or(u64::MAX, |wait| wait.as_nanos() as u64));
        visitor.plain(self.targets.len() as u64);
        for state in self.targets.values() {
            state.visit(visitor);
        }
    }
}

impl Canonical for TargetState {
    /// Left out: the configuration, but for what its commands change in a small world (anything
    /// else raises only the version), the indexes, and secrets.
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        visitor.text(self.name.as_str());
        visitor.number(Number::Version, self.config_version);
        visitor.plain(self.config.consistency as u64);
        visitor.plain(self.config.ttl.as_nanos() as u64);
        self.mode.visit(visitor);
        self.generation.visit(visitor);
        visitor.plain(u64::from(self.deleted));
        visitor.plain(u64::from(self.ghosts_uncounted));
        visitor.plain(self.sessions.len() as u64);
        for session in self.sessions.values() {
            session.visit(visitor);
        }
        visitor.plain(self.slice_count() as u64);
        self.visit_slices(visitor);
    }
}

impl Canonical for SessionRecord {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.id.visit(visitor);
        self.squid.visit(visitor);
        visitor.plain(self.clock as u64);
        visitor.plain(self.ttl.as_nanos() as u64);
        visitor.plain(self.phase as u64 | u64::from(self.draining) << 4);
        self.acked_arming.visit(visitor);
    }
}

impl Canonical for (&SliceKey, &SliceState) {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.0.visit(visitor);
        self.1.last.visit(visitor);
        self.1.assigned.visit(visitor);
        self.1.changed_at.visit(visitor);
    }
}
