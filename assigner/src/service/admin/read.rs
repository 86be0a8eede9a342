//! Listings, from the table as this node has applied it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use leasehold_proto::mutant;
use leasehold_proto::table::{Record, RecordKey, SessionPhase, TargetState};
use leasehold_proto::target::{Mode, PodAddress, Squid};
use leasehold_proto::view::Assigned;
use leasehold_proto::wire::admin::{
    GetTarget, KeyToLookUp, ListHandoffs, ListSessions, ListSlices, LookupKey,
};
use leasehold_proto::wire::listing::{
    AllTargets, HandoffInfo, HandoffPage, KeyInfo, OneTarget, SessionInfo, SessionPage, SliceInfo,
    SlicePage, TargetInfo,
};
use leasehold_proto::wire::pb;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::{Generation, SessionId, Slice, TargetName, limits};
use tokio::sync::oneshot;

use super::AdminService;
use crate::leader::ToLeader;

type Done<T> = Result<T, Refusal>;

impl AdminService {
    pub(super) async fn get(&self, request: GetTarget) -> Done<pb::GetTargetReply> {
        if request.linearizable {
            self.shared.ready_leader().await?;
            if !mutant!("stale_read") {
                self.shared.confirmed().await?;
            }
        }
        let watchers = self.shared.feeds.watchers(&request.target);
        let table = self.shared.replica.table();
        let state = table
            .target(&request.target)
            .ok_or(Refusal::UnknownTarget)?;
        Ok((&OneTarget {
            target: describe(state, watchers),
        })
            .into())
    }

    pub(super) fn targets(&self) -> pb::ListTargetsReply {
        let names: Vec<TargetName> = self
            .shared
            .replica
            .table()
            .targets()
            .map(|state| state.name().clone())
            .collect();
        let watchers: BTreeMap<TargetName, usize> = names
            .into_iter()
            .map(|name| (name.clone(), self.shared.feeds.watchers(&name)))
            .collect();
        let table = self.shared.replica.table();
        let watched = |state: &TargetState| watchers.get(state.name()).copied().unwrap_or(0);
        let targets = table
            .targets()
            .map(|state| describe(state, watched(state)))
            .collect();
        (&AllTargets { targets }).into()
    }

    pub(super) async fn slices(&self, request: ListSlices) -> Done<pb::ListSlicesReply> {
        let table = self.shared.replica.table();
        let state = table
            .target(&request.target)
            .ok_or(Refusal::UnknownTarget)?;
        let wanted = |(slice, assigned): &(Slice, &Assigned)| {
            slice.last() >= request.from_key
                && request
                    .session
                    .is_none_or(|session| assigned.sessions().any(|named| named == session))
                && (!request.with_handoff || assigned.handoff.is_some())
                && (!request.vacant || assigned.owner.is_none())
        };
        let limit = page(request.limit);
        let mut found = state.slices().filter(wanted);
        let mut slices = Vec::new();
        for (slice, assigned) in found.by_ref().take(limit) {
            let record = table.record(&RecordKey::Slice(request.target.clone(), slice.first()));
            let changed_at = match record {
                Some(Record::Slice(record)) => record.changed_at,
                _ => state.generation(),
            };
            let reported = assigned
                .owner
                .and_then(|owner| self.shared.loads.of_slice(owner.session, slice));
            let load_per_s = reported.map(|reported| reported.load_per_s);
            let state_bytes = reported
                .map(|reported| reported.state_bytes)
                .filter(|bytes| *bytes > 0);
            slices.push(SliceInfo {
                slice,
                assigned: assigned.clone(),
                changed_at,
                load_per_s,
                state_bytes,
            });
        }
        let next_key = found.next().map(|(slice, _)| slice.first());
        let pods = pods(
            state,
            slices.iter().flat_map(|info| info.assigned.sessions()),
        );
        Ok((&SlicePage {
            generation: state.generation(),
            slices,
            pods,
            next_key,
        })
            .into())
    }

    pub(super) async fn sessions(&self, request: ListSessions) -> Done<pb::ListSessionsReply> {
        let mut page = self.session_page(&request)?;
        let ids = page.sessions.iter().map(|session| session.session);
        let answered = self.answered_ago(ids.collect()).await;
        for (session, ago) in page.sessions.iter_mut().zip(answered) {
            session.answered_ago = ago;
        }
        Ok((&page).into())
    }

    /// How long ago each session was last answered; nothing where that is not known: elsewhere than
    /// at the leader, or when it has too much to do to be asked.
    async fn answered_ago(&self, sessions: Vec<SessionId>) -> Vec<Option<Duration>> {
        let Ok(leader) = self.shared.leader() else {
            return Vec::new();
        };
        let (answer, answered) = oneshot::channel();
        let question = ToLeader::AnsweredAgo { sessions, answer };
        match leader.inbox.try_send(question) {
            Ok(()) => answered.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    fn session_page(&self, request: &ListSessions) -> Done<SessionPage> {
        let table = self.shared.replica.table();
        let state = table
            .target(&request.target)
            .ok_or(Refusal::UnknownTarget)?;
        let behind = |id: SessionId| request.after.is_none_or(|after| id > after);
        let mut found = state.sessions().filter(|session| behind(session.id));
        let describe = |session: &leasehold_proto::table::SessionRecord| SessionInfo {
            session: session.id,
            squid: shown(&session.squid),
            clock: session.clock,
            ttl: session.ttl,
            app_version: session.app_version.clone(),
            phase: session.phase,
            draining: session.draining,
            acked_arming: session.acked_arming,
            slices: state.owned_by(session.id) as u64,
            load_per_s: self.shared.loads.of_session(
                session.id,
                state.owned_slices(session.id).map(|(slice, _)| slice),
            ),
            answered_ago: None,
        };
        let sessions: Vec<SessionInfo> = found
            .by_ref()
            .take(page(request.limit))
            .map(describe)
            .collect();
        let next_after = found
            .next()
            .and_then(|_| sessions.last())
            .map(|last| last.session);
        Ok(SessionPage {
            sessions,
            next_after,
        })
    }

    pub(super) async fn handoffs(&self, request: ListHandoffs) -> Done<pb::ListHandoffsReply> {
        let table = self.shared.replica.table();
        let state = table
            .target(&request.target)
            .ok_or(Refusal::UnknownTarget)?;
        let mut found = state
            .handoffs()
            .filter(|(_, _, handoff)| request.after.is_none_or(|after| handoff.id > after));
        let now = Instant::now();
        let handoffs: Vec<HandoffInfo> = found
            .by_ref()
            .take(page(request.limit))
            .map(|(slice, from, handoff)| HandoffInfo {
                slice,
                from,
                handoff,
                open_for: self.shared.ages.of(&request.target, handoff.id, now),
            })
            .collect();
        let next_after = found
            .next()
            .and_then(|_| handoffs.last())
            .map(|last| last.handoff.id);
        Ok((&HandoffPage {
            handoffs,
            next_after,
        })
            .into())
    }

    pub(super) async fn lookup(&self, request: LookupKey) -> Done<pb::LookupKeyReply> {
        let table = self.shared.replica.table();
        let state = table
            .target(&request.target)
            .ok_or(Refusal::UnknownTarget)?;
        let slice_key = match request.key {
            KeyToLookUp::Application(bytes) => state.config().key_hash.slice_key(&bytes),
            KeyToLookUp::Hashed(key) => key,
        };
        let (slice, assigned) = state
            .slice_of(slice_key)
            .ok_or_else(|| Refusal::Internal(format!("no slice holds {slice_key}")))?;
        let pods = pods(state, assigned.sessions());
        let generation: Generation = state.generation();
        Ok((&KeyInfo {
            slice_key,
            generation,
            slice: (slice, assigned.clone()),
            pods,
        })
            .into())
    }
}

fn page(limit: u32) -> usize {
    if limit == 0 {
        limits::PAGE_ITEMS
    } else {
        (limit as usize).min(limits::PAGE_ITEMS)
    }
}

/// ◆ Whoever registers with a Squid is given the secret of its live session, so the whole of it is
/// a credential: a listing names only its first 32 bits.
fn shown(squid: &Squid) -> Squid {
    Squid {
        address: squid.address.clone(),
        id: squid.id >> 96 << 96,
    }
}

fn pods(
    state: &TargetState,
    sessions: impl Iterator<Item = SessionId>,
) -> Vec<(SessionId, PodAddress)> {
    let address = |id: SessionId| Some((id, state.session(id)?.squid.address.clone()));
    let named: BTreeMap<SessionId, PodAddress> = sessions.filter_map(address).collect();
    named.into_iter().collect()
}

fn describe(state: &TargetState, watchers: usize) -> TargetInfo {
    let count = |phase: SessionPhase| {
        state
            .sessions()
            .filter(|session| session.phase == phase)
            .count() as u64
    };
    let unarmed = match state.mode() {
        Mode::Arming(arming) => state
            .live_sessions()
            .filter(|session| session.acked_arming != Some(arming))
            .count() as u64,
        Mode::Strong | Mode::Eventual => 0,
    };
    TargetInfo {
        target: state.name().clone(),
        config: state.config().clone(),
        config_version: state.config_version(),
        mode: state.mode(),
        generation: state.generation(),
        deleted: state.is_deleted(),
        slices: state.slice_count() as u64,
        vacant_slices: state
            .slices()
            .filter(|(_, assigned)| assigned.owner.is_none())
            .count() as u64,
        open_handoffs: state.handoffs().count() as u64,
        live_sessions: count(SessionPhase::Live),
        draining_sessions: state
            .live_sessions()
            .filter(|session| session.draining)
            .count() as u64,
        ghosts: count(SessionPhase::Ghost),
        ghosts_uncounted: state.ghosts_uncounted(),
        unarmed_sessions: unarmed,
        watchers: watchers as u64,
    }
}
