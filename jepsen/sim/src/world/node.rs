//! An Assigner node: a table that lags, and while it takes itself for the leader a Grantor.

use leasehold_proto::clock::wait_after_answer;
use leasehold_proto::command::{Command, PlanStep, Reply};
use leasehold_proto::grantor::{
    Action, Grantor, GrantorConfig, Input, Output, Renewal, SessionInfo,
};
use leasehold_proto::message::{Renew, Renewed, Word};
use leasehold_proto::table::{Event, LeaseTable, SessionPhase};
use leasehold_proto::target::SessionSecret;
use leasehold_proto::{ClockClass, ClockTime, Generation, Mode, SessionId, SliceKey, Squid};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Clock, KEYS, Message, Rng, TTL, World, key, target};
use crate::coverage::Seen;
use crate::options::Fault;
use crate::planted;

pub struct Node {
    pub clock: Clock,
    pub table: LeaseTable,
    pub applied: usize,
    /// How much of what is applied would be there after a crash.
    synced: usize,
    /// Proposals on their way to Raft; they may outlive a term.
    pub queue: Vec<Command>,
    pub leading: Option<Leading>,
    /// Not scheduled, or down.
    pub asleep: bool,
    candidacy: ClockTime,
}

/// What a node keeps while it takes itself for the leader of `term`.
pub struct Leading {
    pub term: u64,
    won: ClockTime,
    pub grantor: Grantor,
    ready: bool,
    wake_at: Option<ClockTime>,
    /// Quorum rounds, with the index read once the quorum has answered.
    rounds: Vec<(u64, Option<usize>)>,
    pending: BTreeMap<Renewal, (usize, Option<Generation>, ClockTime)>,
    /// For coverage only: sessions that were answered, and those that are being expired.
    answered: BTreeSet<SessionId>,
    expiring: BTreeSet<SessionId>,
}

impl Node {
    pub fn new(rng: &mut Rng, clock_lies: bool) -> Self {
        let clock = Clock::new(rng, clock_lies);
        let candidacy = clock.now();
        Self {
            clock,
            table: LeaseTable::new(),
            applied: 0,
            synced: 0,
            queue: Vec::new(),
            leading: None,
            asleep: false,
            candidacy,
        }
    }

    pub fn wake_at(&self) -> Option<ClockTime> {
        self.leading.as_ref()?.wake_at
    }

    /// It asks for votes.
    pub fn stand(&mut self) {
        self.candidacy = self.clock.now();
    }

    /// ◆ Its memory as leader is new, and counts from after the votes.
    pub fn win(&mut self, term: u64) {
        let config = GrantorConfig {
            clock: self.clock.class(),
            granularity: Duration::ZERO,
            collect_window: Duration::ZERO,
        };
        let won = if planted("wait_counted_from_candidacy") {
            self.candidacy
        } else {
            self.clock.now()
        };
        let grantor = match self.leading.take() {
            Some(old) if planted("leader_memory_kept_across_terms") => old.grantor,
            _ => Grantor::new(term, won, config),
        };
        self.leading = Some(Leading {
            term,
            won,
            grantor,
            ready: false,
            wake_at: None,
            rounds: Vec::new(),
            pending: BTreeMap::new(),
            answered: BTreeSet::new(),
            expiring: BTreeSet::new(),
        });
    }

    pub fn restore(&mut self, table: LeaseTable) {
        self.table = table;
        (self.applied, self.synced, self.leading) = (0, 0, None);
        self.queue.clear();
    }
}

impl World {
    /// A node dies with everything that it kept in memory, and with what it had applied but not
    /// synced; it is started again, now or later.
    pub(super) fn crash_node(&mut self) {
        let at = self.rng.index(self.nodes.len());
        let node = &mut self.nodes[at];
        node.leading = None;
        node.queue.clear();
        let kept = node.synced + self.rng.index(node.applied - node.synced + 1);
        if kept < node.applied {
            self.coverage.see(Seen::AppliedAgain);
            let mut table = self.raft.base.clone();
            for (at, command) in self.raft.log.iter().take(kept) {
                if let Some(command) = command.clone() {
                    table.apply(*at, command);
                }
            }
            (node.table, node.applied) = (table, kept);
        }
        node.synced = kept;
        node.asleep = self.rng.chance(30);
        if self.raft.leader == Some(at) {
            self.raft.leader = None;
        }
        self.note(|| format!("node {at} crashes, and keeps {kept} entries applied"));
    }

    /// A node falls asleep, or wakes up; whether it was deposed it learns later, if at all.
    pub(super) fn doze_node(&mut self) {
        let at = self.rng.index(self.nodes.len());
        let stays_awake = self.rng.chance(60);
        let node = &mut self.nodes[at];
        if !node.asleep && stays_awake {
            return;
        }
        node.asleep = !node.asleep;
        let deposed = node
            .leading
            .as_ref()
            .is_some_and(|leading| leading.term < self.raft.term);
        if !node.asleep && deposed {
            self.coverage.see(Seen::LeaderSlept);
        }
        let what = if node.asleep {
            "falls asleep"
        } else {
            "wakes up"
        };
        self.note(|| format!("node {at} {what}"));
    }

    pub(super) fn apply_next(&mut self, at: usize) {
        let Some((log_id, command)) = self.raft.log.get(self.nodes[at].applied).cloned() else {
            return;
        };
        let sync = self.rng.chance(20);
        let node = &mut self.nodes[at];
        node.applied += 1;
        if sync {
            node.synced = node.applied;
        }
        let squid = match &command {
            Some(Command::RegisterSession { squid, .. }) => Some(squid.clone()),
            _ => None,
        };
        let outcome = command.map(|command| node.table.apply(log_id, command));
        let Some(leading) = &mut node.leading else {
            return;
        };
        let now = node.clock.now();
        let mut inputs = Vec::new();
        if leading.term == log_id.term && !leading.ready {
            leading.ready = true;
            inputs.push(Input::Ready(known_sessions(&node.table)));
        }
        let Some(outcome) = outcome else {
            return self.give_grantor(at, now, inputs);
        };
        inputs.extend(outcome.events.into_iter().filter_map(grantor_input));
        if !leading.ready {
            inputs.clear();
        }
        self.give_grantor(at, now, inputs);
        if let (Some(squid), Reply::Registered(reply)) = (squid, outcome.reply)
            && let Some(host) = self
                .hosts
                .iter()
                .position(|host| host.squid.address == squid.address)
        {
            self.home.insert(reply.session, host);
            self.send(Message::Registered { host, squid, reply });
        }
    }

    fn give_grantor(&mut self, at: usize, now: ClockTime, inputs: Vec<Input>) {
        for input in inputs {
            let Some(leading) = &mut self.nodes[at].leading else {
                return;
            };
            let out = leading.grantor.handle(now, input);
            self.grantor_says(at, out);
        }
    }

    pub(super) fn wake_node(&mut self, at: usize) {
        if self.nodes[at].asleep {
            return;
        }
        let now = self.nodes[at].clock.now();
        self.give_grantor(at, now, vec![Input::Wake]);
        let node = &mut self.nodes[at];
        let class = node.clock.class();
        let Some(leading) = &node.leading else { return };
        let over = |ttl| {
            let wait = wait_after_answer(ttl, ClockClass::Slewed, class, Duration::ZERO);
            now >= leading.won + wait || planted("restore_does_not_wait")
        };
        if node.table.restore_wait().is_some_and(over) {
            let term = leading.term;
            node.queue.push(Command::EndRestoreWait { term });
        }
    }

    fn grantor_says(&mut self, at: usize, out: Output) {
        if let Some(leading) = &mut self.nodes[at].leading {
            leading.wake_at = out.wake_at;
        }
        for action in out.actions {
            match action {
                Action::Confirm(round) => {
                    if let Some(leading) = &mut self.nodes[at].leading {
                        leading.rounds.push((round, None));
                    }
                }
                Action::Answer(renewals) => self.answer(at, renewals),
                Action::TellClosed(renewals) => self.tell_closed(at, renewals),
                Action::Expire(session) => self.expire(at, session),
                Action::Suspect(session) => self.leave_suspect(at, session),
                Action::Trust(_) => self.coverage.see(Seen::SuspectReturned),
            }
        }
    }

    fn answer(&mut self, at: usize, renewals: Vec<Renewal>) {
        let node = &mut self.nodes[at];
        let Some(leading) = &mut node.leading else {
            return;
        };
        let deposed = leading.term < self.raft.term;
        let state = node.table.target(target());
        let mut sent = Vec::new();
        for renewal in renewals {
            let Some((host, known, t0)) = leading.pending.remove(&renewal) else {
                continue;
            };
            leading.answered.insert(renewal.session);
            let session = state.and_then(|state| state.session(renewal.session));
            let renewed = Renewed {
                session: renewal.session,
                seq: renewal.seq,
                ttl: session.map_or(TTL, |session| session.ttl),
                update: state.and_then(|state| state.update_since(known)),
            };
            sent.push(Message::Renewed { host, renewed, t0 });
        }
        if deposed && !sent.is_empty() {
            self.coverage.see(Seen::AnsweredWhenDeposed);
        }
        for message in sent {
            self.send(message);
        }
    }

    fn tell_closed(&mut self, at: usize, renewals: Vec<Renewal>) {
        for renewal in renewals {
            let Some(leading) = &mut self.nodes[at].leading else {
                return;
            };
            let session = renewal.session;
            if let Some((host, ..)) = leading.pending.remove(&renewal) {
                self.send(Message::Closed { host, session });
            }
        }
    }

    fn expire(&mut self, at: usize, session: SessionId) {
        let node = &mut self.nodes[at];
        let Some(leading) = &mut node.leading else {
            return;
        };
        self.coverage.see(if leading.answered.contains(&session) {
            Seen::ExpiredAfterAnswer
        } else {
            Seen::NewLeaderWaited
        });
        leading.expiring.insert(session);
        let state = node.table.target(target());
        let live: Vec<SessionId> = state
            .into_iter()
            .flat_map(|state| state.live_sessions())
            .map(|session| session.id)
            .filter(|id| *id != session)
            .collect();
        let mut successors: Vec<(SliceKey, SessionId)> = Vec::new();
        if !live.is_empty() && self.rng.chance(80) {
            for k in 0..KEYS {
                successors.push((key(k), *self.rng.pick(&live)));
            }
        }
        let term = leading.term;
        node.queue.push(Command::ExpireSession {
            target: target().clone(),
            session,
            term,
            successors,
        });
    }

    /// Successors warm up while D runs: handoffs away from the suspect, to whoever may receive.
    fn leave_suspect(&mut self, at: usize, session: SessionId) {
        if !self.rng.chance(self.adversity.chance(Fault::Suspicion)) {
            return;
        }
        let node = &self.nodes[at];
        let (Some(leading), Some(state)) = (&node.leading, node.table.target(target())) else {
            return;
        };
        let may = |id: &SessionId| leading.grantor.may_receive(*id);
        let to: Vec<SessionId> = state
            .live_sessions()
            .map(|session| session.id)
            .filter(may)
            .collect();
        if to.is_empty() {
            return;
        }
        let to = *self.rng.pick(&to);
        let begin = |(slice, assigned): (_, leasehold_proto::Assigned)| {
            let from = assigned.owner.filter(|_| assigned.handoff.is_none())?;
            Some(PlanStep::BeginHandoff { slice, from, to })
        };
        let steps: Vec<PlanStep> = state.owned_slices(session).filter_map(begin).collect();
        if !steps.is_empty() {
            self.coverage.see(Seen::SuspectLeft);
            let config_version = state.config_version();
            self.nodes[at].queue.push(Command::ApplyPlan {
                target: target().clone(),
                config_version,
                steps,
            });
        }
    }

    /// Quorum rounds: confirmed iff at this instant no later term exists and a majority answers.
    /// Their answers are given to the Grantor when the table has applied what was read, however
    /// late that is.
    pub(super) fn confirm(&mut self, at: usize) {
        let quorum = self.quorum();
        let node = &mut self.nodes[at];
        let Some(leading) = &mut node.leading else {
            return;
        };
        let newest = leading.term == self.raft.term;
        // A new leader does not know what is committed before an entry of its own term is.
        let index = if leading.ready {
            self.raft.log.len()
        } else {
            node.applied
        };
        let applied = node.applied;
        let mut inputs = Vec::new();
        leading.rounds.retain_mut(|(round, read)| match read {
            None if !newest => {
                inputs.push(Input::NotConfirmed(*round));
                false
            }
            None => {
                if quorum {
                    *read = Some(index);
                }
                true
            }
            Some(index) if *index <= applied => {
                inputs.push(Input::Confirmed(*round));
                false
            }
            Some(_) => true,
        });
        if inputs
            .iter()
            .any(|input| matches!(input, Input::NotConfirmed(_)))
        {
            self.coverage.see(Seen::RoundFailed);
        }
        let now = node.clock.now();
        self.give_grantor(at, now, inputs);
    }

    pub(super) fn take_registration(&mut self, at: usize, squid: Squid) {
        let host = self
            .hosts
            .iter()
            .find(|host| host.squid.address == squid.address);
        let clock = host.map_or(ClockClass::Slewed, |host| host.clock.class());
        if self.nodes[at].leading.is_some() {
            self.nodes[at].queue.push(Command::RegisterSession {
                target: target().clone(),
                squid,
                clock,
                secret: SessionSecret::from_bytes([7; 16]),
                app_version: String::new(),
            });
        }
    }

    pub(super) fn take_renewal(&mut self, at: usize, host: usize, renew: Renew, t0: ClockTime) {
        let term = self.raft.term;
        let node = &mut self.nodes[at];
        let Some(leading) = &mut node.leading else {
            return;
        };
        if leading.term < term {
            self.coverage.see(Seen::DeposedHeard);
        }
        if leading.expiring.contains(&renew.session) {
            self.coverage.see(Seen::ExpiringSpoke);
        }
        let renewal = Renewal {
            session: renew.session,
            seq: renew.seq,
        };
        leading.pending.insert(renewal, (host, renew.known, t0));
        if let Some(state) = node.table.target(target()) {
            let open = |word: &Word| state.handoff(word.handoff()).is_some();
            for word in renew.words.into_iter().filter(open) {
                let command = Command::of_word(target().clone(), renew.session, word);
                node.queue.push(command);
            }
            let acked = state
                .session(renew.session)
                .and_then(|session| session.acked_arming);
            if let Some(arming) = renew
                .armed
                .filter(|arming| state.mode() == Mode::Arming(*arming) && acked != Some(*arming))
            {
                node.queue.push(Command::AckArming {
                    target: target().clone(),
                    session: renew.session,
                    arming,
                });
            }
        }
        let now = node.clock.now();
        self.give_grantor(at, now, vec![Input::Renewals(vec![renewal])]);
    }
}

fn grantor_input(event: Event) -> Option<Input> {
    match event {
        Event::SessionRegistered {
            session,
            ttl,
            clock,
            ..
        } => Some(Input::Registered(SessionInfo {
            session,
            ttl,
            clock,
            leaving: false,
        })),
        Event::SessionLeaving(session) => Some(Input::Leaving(session)),
        Event::SessionClosed(session) => Some(Input::Closed(session)),
        _ => None,
    }
}

fn known_sessions(table: &LeaseTable) -> Vec<SessionInfo> {
    let sessions = table.targets().flat_map(|state| state.sessions());
    let counted = sessions.filter(|session| session.phase != SessionPhase::Ghost);
    counted
        .map(|session| SessionInfo {
            session: session.id,
            ttl: session.ttl,
            clock: session.clock,
            leaving: session.phase == SessionPhase::Leaving,
        })
        .collect()
}
