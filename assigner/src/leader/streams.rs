//! The sessions attached in this term, the streams they are attached to, and what they are sent.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use bytes::Bytes;
use leasehold_proto::message::Renew;
use leasehold_proto::target::PodAddress;
use leasehold_proto::view::{Lease, ViewUpdate};
use leasehold_proto::wire::{self, AssignerMessage, ClosedReason, RefusedReason, pb};
use leasehold_proto::{Epoch, Generation, SessionId, TargetName};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Leader;
use crate::metrics::Metrics;
use crate::replica::Replica;

/// Batches that may wait in a stream's outbox.
pub(crate) const OUTBOX: usize = 64;
/// Batches that must remain free for answers: pushes never take the last ones.
const FREE_FOR_ANSWERS: usize = OUTBOX / 2;
/// A target with more attached sessions than this pushes a change only to those that take part;
/// the others get it with their next renewal.
const PUSH_TO_ALL: usize = 256;
/// Serialised updates kept for one generation of a target.
const UPDATES_KEPT: usize = 64;

/// Number of one stream at this node, never reused.
pub(crate) type StreamId = u64;
/// Where a stream's messages are put, in batches.
pub(crate) type Outbox = mpsc::Sender<Vec<pb::AssignerMessage>>;

/// Ids are handed out one after the other; they need spreading, not protection.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

pub(super) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// A session that was introduced on a stream.
pub(super) struct Attached {
    pub(super) stream: StreamId,
    /// Its target, as a place in `targets`.
    target: usize,
    pub(super) ttl: Duration,
    /// What its last renewal said it knows.
    pub(super) known: Option<Generation>,
    /// The oldest epoch whose slice it still merges, by its last renewal.
    merging: Option<Epoch>,
    /// The newest view sent on this stream; `None` before the first.
    sent: Option<Generation>,
}

impl Attached {
    /// Notes what a renewal says. Whether more may have been taken in than before.
    pub(super) fn note(&mut self, renew: &Renew) -> bool {
        let said = (renew.known, renew.merging);
        let news = (self.known, self.merging) != said;
        (self.known, self.merging) = said;
        news
    }
}

struct Stream {
    out: Outbox,
    /// Ends the stream's other half.
    ended: CancellationToken,
    sessions: BTreeSet<SessionId>,
    /// To be sent at the end of this wake.
    batch: Vec<pb::AssignerMessage>,
}

/// What is sent to the sessions of one target.
struct TargetViews {
    name: TargetName,
    generation: Option<Generation>,
    sessions: BTreeSet<SessionId>,
    /// Updates to `generation`, serialised, by what they begin at.
    updates: HashMap<Option<Generation>, Bytes>,
    changed: bool,
    /// Up to here every session that takes part was sent what changed.
    pushed: Option<Generation>,
}

/// See the file.
#[derive(Default)]
pub(super) struct Streams {
    sessions: IdMap<SessionId, Attached>,
    streams: IdMap<StreamId, Stream>,
    targets: Vec<TargetViews>,
    places: HashMap<TargetName, usize>,
    /// Places in `targets` whose target is gone.
    free: Vec<usize>,
    changed: Vec<usize>,
    /// Streams with a batch.
    pending: Vec<StreamId>,
}

impl Streams {
    pub(super) fn attached(&mut self, session: SessionId) -> Option<&mut Attached> {
        self.sessions.get_mut(&session)
    }

    /// Up to which view the owner has taken in the state of what it has by this lease or an older
    /// one; `None` when it has not said, or still merges some of that.
    pub(super) fn taken_in(&self, owner: Lease) -> Option<Generation> {
        let merging = self.sessions.get(&owner.session)?.merging;
        let known = self.known(owner.session)?;
        merging
            .is_none_or(|oldest| owner.epoch < oldest)
            .then_some(known)
    }

    /// Which view the session knows; `None` when it has not said.
    pub(super) fn known(&self, session: SessionId) -> Option<Generation> {
        self.sessions.get(&session)?.known
    }

    pub(super) fn open(&mut self, stream: StreamId, out: Outbox, ended: CancellationToken) {
        self.streams.insert(
            stream,
            Stream {
                out,
                ended,
                sessions: BTreeSet::new(),
                batch: Vec::new(),
            },
        );
    }

    /// The newest stream wins; the other one is told.
    pub(super) fn attach(
        &mut self,
        stream: StreamId,
        session: SessionId,
        target: TargetName,
        ttl: Duration,
    ) {
        // Given up meanwhile.
        if !self.streams.contains_key(&stream) {
            return;
        }
        if let Some(old) = self
            .sessions
            .get(&session)
            .map(|old| old.stream)
            .filter(|old| *old != stream)
        {
            if let Some(old) = self.streams.get_mut(&old) {
                old.sessions.remove(&session);
            }
            self.refuse(old, session, RefusedReason::Superseded);
        }
        let target = self.place(target);
        self.targets[target].sessions.insert(session);
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.sessions.insert(session);
        }
        self.sessions.insert(
            session,
            Attached {
                stream,
                target,
                ttl,
                known: None,
                merging: None,
                sent: None,
            },
        );
    }

    pub(super) fn detach(&mut self, stream: StreamId) {
        let Some(gone) = self.streams.remove(&stream) else {
            return;
        };
        gone.ended.cancel();
        for session in gone.sessions {
            self.forget(session);
        }
    }

    fn forget(&mut self, session: SessionId) -> Option<Attached> {
        let gone = self.sessions.remove(&session)?;
        if let Some(target) = self.targets.get_mut(gone.target) {
            target.sessions.remove(&session);
        }
        if let Some(stream) = self.streams.get_mut(&gone.stream) {
            stream.sessions.remove(&session);
        }
        Some(gone)
    }

    /// The session has ended: it is told so, and belongs to its stream no more.
    pub(super) fn close(&mut self, session: SessionId, reason: ClosedReason) {
        if let Some(gone) = self.forget(session) {
            self.send(
                gone.stream,
                (&AssignerMessage::Closed { session, reason }).into(),
            );
        }
    }

    pub(super) fn refuse(&mut self, stream: StreamId, session: SessionId, reason: RefusedReason) {
        let leader: Option<PodAddress> = None;
        self.send(
            stream,
            (&AssignerMessage::Refused {
                session: Some(session),
                reason,
                leader,
            })
                .into(),
        );
    }

    /// Tells every stream that this node does not lead, and ends it.
    pub(super) fn turn_away(&mut self, leader: Option<PodAddress>) {
        let refused = AssignerMessage::Refused {
            session: None,
            reason: RefusedReason::NotLeader,
            leader,
        };
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            if let Some(stream) = self.streams.get(&id) {
                // The end of the stream tells a reader that cannot take this.
                let _ = stream.out.try_send(vec![(&refused).into()]);
            }
            self.detach(id);
        }
    }

    pub(super) fn send(&mut self, stream: StreamId, message: pb::AssignerMessage) {
        if let Some(to) = self.streams.get_mut(&stream) {
            if to.batch.is_empty() {
                self.pending.push(stream);
            }
            to.batch.push(message);
        }
    }

    /// Sends what was collected. A stream that cannot take its answers is given up: its sessions
    /// attach anew, and lose nothing but time.
    pub(super) fn flush(&mut self, metrics: &Metrics) {
        for id in std::mem::take(&mut self.pending) {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let batch = std::mem::take(&mut stream.batch);
            if stream.out.try_send(batch).is_err() {
                metrics.streams_given_up.inc();
                self.detach(id);
            }
        }
    }

    fn place(&mut self, name: TargetName) -> usize {
        if let Some(place) = self.places.get(&name) {
            return *place;
        }
        let views = TargetViews {
            name: name.clone(),
            generation: None,
            sessions: BTreeSet::new(),
            updates: HashMap::new(),
            changed: false,
            pushed: None,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.targets[place] = views;
                place
            }
            None => {
                self.targets.push(views);
                self.targets.len() - 1
            }
        };
        self.places.insert(name, place);
        place
    }

    pub(super) fn view_changed(&mut self, name: TargetName) {
        if let Some(place) = self.places.get(&name).copied() {
            let target = &mut self.targets[place];
            target.generation = None;
            target.updates.clear();
            if !std::mem::replace(&mut target.changed, true) {
                self.changed.push(place);
            }
        }
    }

    /// Its sessions were closed before. One that is attached belongs to another target, created
    /// under the same name since.
    pub(super) fn target_gone(&mut self, name: &TargetName) {
        let Some(place) = self.places.get(name).copied() else {
            return;
        };
        self.targets[place].generation = None;
        self.targets[place].updates.clear();
        if self.targets[place].sessions.is_empty() {
            self.places.remove(name);
            self.free.push(place);
        }
    }

    /// The targets known here that are not among `present`, which is in order.
    pub(super) fn targets_other_than(&self, present: &[TargetName]) -> Vec<TargetName> {
        self.places
            .keys()
            .filter(|name| present.binary_search(name).is_err())
            .cloned()
            .collect()
    }

    /// What a session that knows `known` lacks, serialised once for all who know the same; empty
    /// when it lacks nothing.
    pub(super) fn update_for(
        &mut self,
        session: SessionId,
        known: Option<Generation>,
        replica: &Replica,
    ) -> Bytes {
        let Some(attached) = self.sessions.get_mut(&session) else {
            return Bytes::new();
        };
        attached.sent = attached.sent.max(known);
        let target = &mut self.targets[attached.target];
        if target.generation.is_some() && target.generation == known {
            return Bytes::new();
        }
        let Some((generation, bytes)) = target.update(known, replica) else {
            return Bytes::new();
        };
        attached.sent = Some(generation);
        bytes
    }

    /// Sends the newest view of a target to those who take part in what changed.
    fn push(&mut self, place: usize, replica: &Replica, metrics: &Metrics) {
        let target = &mut self.targets[place];
        target.changed = false;
        let all = target.sessions.len() <= PUSH_TO_ALL;
        let receivers: Vec<SessionId> = if all {
            target.sessions.iter().copied().collect()
        } else {
            target.parties(replica)
        };
        for session in receivers {
            let Some(attached) = self.sessions.get_mut(&session) else {
                continue;
            };
            let Some(stream) = self.streams.get_mut(&attached.stream) else {
                continue;
            };
            // Before its first answer a session has said nothing of what it knows.
            if attached.sent.is_none() || stream.out.capacity() < FREE_FOR_ANSWERS {
                continue;
            }
            let Some((generation, bytes)) = self.targets[place].update(attached.sent, replica)
            else {
                continue;
            };
            attached.sent = Some(generation);
            if stream.batch.is_empty() {
                self.pending.push(attached.stream);
            }
            stream.batch.push(wire::pushed_message(session, bytes));
            metrics.views_pushed.inc();
        }
        let target = &mut self.targets[place];
        target.pushed = target.generation.or(target.pushed);
    }
}

impl TargetViews {
    /// The update from `base` to the newest generation, and that generation; none if there is
    /// nothing newer.
    fn update(
        &mut self,
        base: Option<Generation>,
        replica: &Replica,
    ) -> Option<(Generation, Bytes)> {
        if let (Some(generation), Some(bytes)) = (self.generation, self.updates.get(&base)) {
            return (!bytes.is_empty()).then(|| (generation, bytes.clone()));
        }
        let (generation, update) = {
            let table = replica.table();
            let target = table.target(&self.name)?;
            (target.generation(), target.update_since(base))
        };
        if self.generation != Some(generation) || self.updates.len() >= UPDATES_KEPT {
            self.updates.clear();
        }
        self.generation = Some(generation);
        let bytes = update
            .as_ref()
            .map(wire::encode_view_update)
            .unwrap_or_default();
        self.updates.insert(base, bytes.clone());
        update.map(|_| (generation, bytes))
    }

    /// The attached sessions that the newest changes name.
    fn parties(&self, replica: &Replica) -> Vec<SessionId> {
        let table = replica.table();
        let Some(target) = table.target(&self.name) else {
            return Vec::new();
        };
        let mut named: BTreeSet<SessionId> = target
            .handoffs()
            .flat_map(|(_, from, handoff)| [from.session, handoff.to])
            .collect();
        // A whole view, or nothing to begin at: it may concern everyone.
        if let Some(ViewUpdate::Diff(diff)) = self
            .pushed
            .and_then(|since| target.update_since(Some(since)))
        {
            named.extend(
                diff.changed
                    .iter()
                    .flat_map(|(_, assigned)| assigned.addressed()),
            );
        } else {
            named.extend(self.sessions.iter().copied());
        }
        named.retain(|session| self.sessions.contains(session));
        named.into_iter().collect()
    }
}

impl Leader {
    pub(super) fn push_views(&mut self) {
        if self.streams.changed.is_empty() || self.is_halted() {
            return;
        }
        for place in std::mem::take(&mut self.streams.changed) {
            self.streams
                .push(place, &self.shared.replica, &self.shared.metrics);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn open(streams: &mut Streams, stream: StreamId) -> mpsc::Receiver<Vec<pb::AssignerMessage>> {
        let (out, batches) = mpsc::channel(OUTBOX);
        streams.open(stream, out, CancellationToken::new());
        batches
    }

    fn target(name: &str) -> TargetName {
        TargetName::new(name).expect("a target's name")
    }

    fn attach(streams: &mut Streams, session: u64, target: &TargetName) {
        streams.attach(
            1,
            SessionId::from_u64(session),
            target.clone(),
            Duration::from_secs(1),
        );
    }

    #[test]
    fn targets_that_are_gone_leave_nothing_behind() {
        let mut streams = Streams::default();
        let _batches = open(&mut streams, 1);
        for number in 1..=100 {
            let name = target(&format!("short-lived-{number}"));
            attach(&mut streams, number, &name);
            streams.view_changed(name.clone());
            streams.close(SessionId::from_u64(number), ClosedReason::TargetDeleted);
            streams.target_gone(&name);
        }
        assert_eq!(
            (
                streams.targets.len(),
                streams.places.len(),
                streams.sessions.len()
            ),
            (1, 0, 0)
        );
    }

    #[test]
    fn a_target_created_anew_under_the_name_keeps_its_sessions() {
        let mut streams = Streams::default();
        let _batches = open(&mut streams, 1);
        let (cart, other) = (target("cart"), target("other"));
        attach(&mut streams, 1, &cart);
        // The old target's end is read only now.
        streams.target_gone(&cart);
        attach(&mut streams, 2, &other);
        let places = [1, 2].map(|id| {
            streams
                .attached(SessionId::from_u64(id))
                .map(|attached| attached.target)
        });
        assert_eq!(places, [Some(0), Some(1)]);
        assert_eq!(streams.targets_other_than(&[other]), [cart]);
    }
}
