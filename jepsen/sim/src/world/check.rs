//! What must hold after every step: the invariants of the protocol.

use leasehold_proto::command::Command;
use leasehold_proto::holder::{Part, Verdict};
use leasehold_proto::router::Router;
use leasehold_proto::table::{Event, LeaseTable, Outcome, Record, RecordKey};
use leasehold_proto::view::View;
use leasehold_proto::{Epoch, FencingToken, Generation, LogId, Mode, SessionId, Slice};
use std::collections::{BTreeMap, BTreeSet};

use super::host::Host;
use super::{KEYS, Stats, World, key, target};

pub struct Checker {
    /// The table of everything that is committed.
    pub master: LeaseTable,
    pub failure: Option<String>,
    /// What a store holds that follows `touched` alone.
    stored: BTreeMap<RecordKey, Record>,
    history: BTreeMap<Generation, View>,
    users: BTreeMap<(usize, FencingToken), SessionId>,
    cancelled: BTreeSet<(usize, FencingToken)>,
    highest: [Option<Epoch>; KEYS],
    commits: u64,
}

fn keys_of(slice: Slice) -> impl Iterator<Item = usize> {
    (0..KEYS).filter(move |k| slice.contains(key(*k)))
}

impl Checker {
    pub fn new() -> Self {
        Self {
            master: LeaseTable::new(),
            failure: None,
            stored: BTreeMap::new(),
            history: BTreeMap::new(),
            users: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            highest: [None; KEYS],
            commits: 0,
        }
    }

    pub fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    fn mode(&self) -> Mode {
        self.master
            .target(&target())
            .map_or(Mode::Strong, |state| state.mode())
    }

    pub fn commit(&mut self, at: LogId, command: &Command, stats: &mut Stats) -> Outcome {
        let mode = self.mode();
        let cancelling = match command {
            Command::CancelHandoff { handoff, .. } | Command::AskCancel { handoff, .. } => self
                .master
                .target(&target())
                .and_then(|state| state.handoffs().find(|(_, _, open)| open.id == *handoff))
                .map(|(slice, _, open)| (slice, open)),
            _ => None,
        };
        let outcome = self.master.apply(at, command.clone());
        for event in &outcome.events {
            match (event, cancelling) {
                (
                    Event::HandoffEnded {
                        completed: true, ..
                    },
                    _,
                ) => stats.completed += 1,
                (
                    Event::HandoffEnded {
                        completed: false, ..
                    },
                    Some((slice, handoff)),
                ) => {
                    stats.cancelled += 1;
                    self.ban(slice, handoff.epoch.token());
                }
                (Event::SessionClosed(_), _) => stats.expired += 1,
                _ => {}
            }
        }
        if matches!(mode, Mode::Arming(_)) && self.mode() == Mode::Strong {
            stats.armed += 1;
        }
        self.store(&outcome);
        self.remember_view();
        outcome
    }

    /// (4) The epoch of a cancelled handoff is never used.
    fn ban(&mut self, slice: Slice, token: FencingToken) {
        for k in keys_of(slice) {
            self.cancelled.insert((k, token));
            if let Some(user) = self.users.get(&(k, token)) {
                self.fail(format!(
                    "the handoff at token {token} was cancelled, but {user} owned at it"
                ));
            }
        }
    }

    /// (7) The records written one by one describe the table.
    fn store(&mut self, outcome: &Outcome) {
        for key in &outcome.touched {
            match self.master.record(key) {
                Some(record) => self.stored.insert(key.clone(), record),
                None => self.stored.remove(key),
            };
        }
        self.commits += 1;
        if self.commits.is_multiple_of(8) {
            self.inspect_records();
        }
    }

    pub fn inspect_records(&mut self) {
        match LeaseTable::from_records(self.stored.values().cloned()) {
            Ok(loaded) if loaded == self.master => {}
            Ok(_) => self.fail("the stored records describe another table".into()),
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn remember_view(&mut self) {
        if let Some(state) = self.master.target(&target())
            && !self.history.contains_key(&state.generation())
        {
            self.history.insert(state.generation(), state.view());
        }
    }

    pub fn restored(&mut self, backup: LeaseTable) {
        self.stored = backup
            .records()
            .map(|record| (record.key(), record))
            .collect();
        self.master = backup;
    }

    /// (5), (7) A view never goes back, and one reached by differences is the whole one.
    fn view(&mut self, seen: Option<Generation>, view: &View, who: &str) {
        if seen.is_some_and(|seen| view.generation < seen) {
            self.fail(format!(
                "the view of {who} went back from {seen:?} to {}",
                view.generation
            ));
        }
        if seen == Some(view.generation) {
            return;
        }
        let live = |session: SessionId| {
            self.master
                .target(&target())
                .is_some_and(|state| state.live_sessions().any(|known| known.id == session))
        };
        let named = |session: SessionId| view.pods.contains_key(&session) || !live(session);
        match self.history.get(&view.generation) {
            Some(full) if full.mode != view.mode || full.slices != view.slices => {
                self.fail(format!(
                    "the view of {who} at {} is not the whole one",
                    view.generation
                ));
            }
            Some(full) if !full.pods.keys().all(|session| named(*session)) => {
                self.fail(format!(
                    "the view of {who} at {} lacks an address",
                    view.generation
                ));
            }
            Some(_) => {}
            None => self.fail(format!(
                "the view of {who} at {} was never committed",
                view.generation
            )),
        }
    }

    pub fn view_of_host(&mut self, host: &mut Host) {
        let seen = host.seen;
        host.seen = host.holder.view().map(|view| view.generation);
        if let Some(view) = host.holder.view() {
            // A new session begins anew.
            self.view(seen, view, "a Holder");
        }
    }

    /// Lookups lead to the hint that outranks the map, else to the owner that the map shows.
    pub fn view_of_router(&mut self, router: &Router, before: Option<Generation>) {
        let Some(view) = router.view() else { return };
        self.view(before, view, "a Router");
        let table = router.table();
        for k in (0..KEYS).map(key) {
            let hint = router
                .hints()
                .find(|hint| hint.slice.contains(k))
                .map(|hint| hint.session);
            let expected = hint.or(view.get(k).1.owner.map(|lease| lease.session));
            let found = table
                .lookup(k)
                .and_then(|route| table.pod(route.pod))
                .map(|(session, _)| *session);
            if expected != found {
                self.fail(format!("a Router leads {k} to {found:?}, not {expected:?}"));
            }
        }
    }

    fn knows(&self, session: SessionId, k: usize, epoch: Epoch) -> bool {
        let Some(state) = self
            .master
            .target(&target())
            .filter(|state| !state.is_deleted())
        else {
            return true;
        };
        let Some((_, assigned)) = state.slice_of(key(k)) else {
            return false;
        };
        self.master.restore_wait().is_some()
            || assigned.owner.is_some_and(|owner| owner.session == session)
            || assigned
                .handoff
                .is_some_and(|handoff| handoff.to == session && handoff.epoch == epoch)
    }

    fn host(&mut self, host: &Host, passing: &mut [Option<SessionId>; KEYS], stats: &mut Stats) {
        let now = host.clock.now();
        let Some(session) = host.holder.session() else {
            return;
        };
        let strong = self.mode() == Mode::Strong;
        let checks = host
            .holder
            .view()
            .is_some_and(|view| view.mode.checks_leases());
        for (k, passed) in passing.iter_mut().enumerate() {
            let Verdict::Owned(epoch) = host.holder.check(key(k), now) else {
                continue;
            };
            stats.passes += 1;
            // (6) Only before the deadline, counted from the t0 of what was answered.
            if checks
                && host
                    .may_serve
                    .get(&session)
                    .is_none_or(|until| now >= *until)
            {
                self.fail(format!("{session} passes a check after its deadline"));
            }
            let owner = host
                .holder
                .local()
                .iter()
                .any(|local| local.slice.contains(key(k)) && local.part == Part::Owner);
            let used = (k, epoch.token());
            if owner && self.cancelled.contains(&used) {
                self.fail(format!(
                    "{session} owns key {k} at {epoch}, whose handoff was cancelled"
                ));
            }
            // (3) A token has one session.
            if owner && *self.users.entry(used).or_insert(session) != session {
                self.fail(format!(
                    "{session} owns key {k} at {epoch}, as another session did"
                ));
            }
            if !strong {
                continue;
            }
            // (1) One at a time.
            if let Some(other) = passed.replace(session) {
                self.fail(format!(
                    "{other} and {session} both pass a check of key {k}"
                ));
            }
            // Stronger: the table knows whoever may pass, so that none can be given a slice beside it.
            if !self.knows(session, k, epoch) {
                self.fail(format!(
                    "{session} passes a check of key {k} at {epoch} that the table does not know of"
                ));
            }
            // (2) Epochs never fall.
            if self.highest[k].is_some_and(|highest| epoch < highest) {
                self.fail(format!(
                    "key {k} fell from {:?} to {epoch} ({session})",
                    self.highest[k]
                ));
            }
            self.highest[k] = self.highest[k].max(Some(epoch));
        }
    }
}

impl World {
    pub(super) fn inspect(&mut self) {
        let mut passing = [None; KEYS];
        for host in self.hosts.iter().filter(|host| host.alive) {
            self.check.host(host, &mut passing, &mut self.stats);
        }
    }
}
