//! Abstract Raft and the Assigner nodes on it: tables that lag, leaders that are deposed.

use leasehold_proto::clock::{ClockClass, wait_after_answer};
use leasehold_proto::command::{Command, EndWord, Reply};
use leasehold_proto::grantor::{
    Action, Grantor, GrantorConfig, Input, Output, Renewal, SessionInfo,
};
use leasehold_proto::id::Incarnation;
use leasehold_proto::message::{Renew, Renewed, Word};
use leasehold_proto::table::{Event, LeaseTable, SessionPhase};
use leasehold_proto::target::SessionSecret;
use leasehold_proto::{ClockTime, Generation, LogId, Mode, SessionId, SliceKey, Squid};
use std::collections::BTreeMap;
use std::time::Duration;

use super::{Clock, Message, Rng, TTL, World, key, target};

/// The truth that a quorum holds.
pub struct Raft {
    pub term: u64,
    pub leader: Option<usize>,
    pub log: Vec<(LogId, Option<Command>)>,
    /// Entries of the newest leader that are not committed yet.
    pub tail: Vec<(u64, Option<Command>)>,
    pub next_index: u64,
    pub backup: Option<Backup>,
    pub incarnation: u64,
}

pub struct Backup {
    pub table: LeaseTable,
    pub index: u64,
}

impl Raft {
    pub fn new() -> Self {
        Self {
            term: 0,
            leader: None,
            log: Vec::new(),
            tail: Vec::new(),
            next_index: 1,
            backup: None,
            incarnation: 1,
        }
    }
}

pub struct Node {
    pub clock: Clock,
    pub table: LeaseTable,
    pub applied: usize,
    /// Proposals on their way to Raft; they may outlive a term.
    pub queue: Vec<Command>,
    pub leading: Option<Leading>,
    candidacy: ClockTime,
}

pub struct Leading {
    pub term: u64,
    won: ClockTime,
    pub grantor: Grantor,
    ready: bool,
    wake_at: Option<ClockTime>,
    /// Quorum rounds, with the index read once the quorum has answered.
    rounds: Vec<(u64, Option<usize>)>,
    pending: BTreeMap<Renewal, (usize, Option<Generation>, ClockTime)>,
}

impl Node {
    pub fn new(rng: &mut Rng) -> Self {
        let clock = Clock::new(rng);
        let candidacy = clock.now();
        Self {
            clock,
            table: LeaseTable::new(),
            applied: 0,
            queue: Vec::new(),
            leading: None,
            candidacy,
        }
    }

    pub fn wake_at(&self) -> Option<ClockTime> {
        self.leading.as_ref()?.wake_at
    }
}

/// Whether a mistake of the shell, not of a machine, is planted.
fn planted(_name: &str) -> bool {
    #[cfg(leasehold_mutants)]
    return leasehold_proto::mutants::active(_name);
    #[cfg(not(leasehold_mutants))]
    false
}

impl World {
    pub(super) fn propose(&mut self, command: Command) {
        if let Some(leader) = self.raft.leader {
            self.nodes[leader].queue.push(command);
        }
    }

    /// Past the queue and committed at this instant: for what is true only now.
    pub(super) fn propose_now(&mut self, command: Command) {
        if self.raft.leader.is_some() && self.raft.tail.is_empty() {
            self.commit(self.raft.term, Some(command));
        }
    }

    pub(super) fn elect_any(&mut self) {
        let node = self.rng.index(self.nodes.len());
        if self.rng.chance(60) {
            self.nodes[node].candidacy = self.nodes[node].clock.now();
        } else {
            self.win(node);
        }
    }

    /// The votes are counted: whatever the old leader had not committed is inherited or lost.
    pub(super) fn win(&mut self, node: usize) {
        let keep = self.rng.index(self.raft.tail.len() + 1);
        let tail = std::mem::take(&mut self.raft.tail);
        for (term, command) in tail.into_iter().take(keep) {
            self.commit(term, command);
        }
        self.raft.term += 1;
        self.raft.leader = Some(node);
        let term = self.raft.term;
        self.raft.tail.push((term, None));
        self.stats.terms += 1;
        let config = GrantorConfig {
            clock: ClockClass::Slewed,
            granularity: Duration::ZERO,
            collect_window: Duration::ZERO,
        };
        let this = &mut self.nodes[node];
        let won = if planted("wait_counted_from_candidacy") {
            this.candidacy
        } else {
            this.clock.now()
        };
        let grantor = match this.leading.take() {
            Some(old) if planted("leader_memory_kept_across_terms") => old.grantor,
            _ => Grantor::new(term, won, config),
        };
        this.leading = Some(Leading {
            term,
            won,
            grantor,
            ready: false,
            wake_at: None,
            rounds: Vec::new(),
            pending: BTreeMap::new(),
        });
        self.note(|| format!("node {node} wins term {term}"));
    }

    /// Some of the way from a proposal to an answer.
    pub(super) fn pump_some(&mut self) {
        let late = self.rng.chance(self.adversity.late_appends);
        for node in 0..self.nodes.len() {
            if !late || self.rng.chance(30) {
                self.append(node);
            }
        }
        while !self.raft.tail.is_empty() && !self.rng.chance(10) {
            self.commit_next();
        }
        for node in 0..self.nodes.len() {
            while self.nodes[node].applied < self.raft.log.len()
                && !self.rng.chance(self.adversity.lag)
            {
                self.apply_next(node);
            }
            if !self.rng.chance(self.adversity.slow_rounds) {
                self.confirm(node);
            }
        }
    }

    /// All of it.
    pub(super) fn pump(&mut self) {
        for node in 0..self.nodes.len() {
            self.append(node);
        }
        while !self.raft.tail.is_empty() {
            self.commit_next();
        }
        for node in 0..self.nodes.len() {
            while self.nodes[node].applied < self.raft.log.len() {
                self.apply_next(node);
            }
            self.confirm(node);
            self.confirm(node);
        }
    }

    /// The queue reaches Raft: the leader of the newest term appends it in that term, all others
    /// are refused.
    fn append(&mut self, node: usize) {
        let leads = self.raft.leader == Some(node);
        if !leads && self.rng.chance(70) {
            return;
        }
        let queue = std::mem::take(&mut self.nodes[node].queue);
        if leads {
            let term = self.raft.term;
            self.raft
                .tail
                .extend(queue.into_iter().map(|command| (term, Some(command))));
        }
    }

    fn commit_next(&mut self) {
        let (term, command) = self.raft.tail.remove(0);
        self.commit(term, command);
    }

    fn commit(&mut self, term: u64, command: Option<Command>) {
        let at = LogId {
            term,
            index: self.raft.next_index,
        };
        self.raft.next_index += 1;
        self.stats.commits += 1;
        if let Some(command) = &command {
            let outcome = self.check.commit(at, command, &mut self.stats);
            self.note(|| format!("{at} {command:?} -> {:?}", outcome.reply));
            self.after_commit(command);
        }
        self.raft.log.push((at, command));
    }

    fn after_commit(&mut self, command: &Command) {
        if let Command::ExpireSession { session, .. } = command
            && !self.expiry_allowed
            && self
                .hosts
                .iter()
                .any(|host| host.alive && host.holder.session() == Some(*session))
        {
            self.check.fail(format!(
                "{session} expired though its process lives and nothing goes wrong"
            ));
        }
    }

    pub(super) fn apply_next(&mut self, at: usize) {
        let Some((log_id, command)) = self.raft.log.get(self.nodes[at].applied).cloned() else {
            return;
        };
        let node = &mut self.nodes[at];
        node.applied += 1;
        let now = node.clock.now();
        let outcome = command
            .clone()
            .map(|command| node.table.apply(log_id, command));
        let Some(leading) = &mut node.leading else {
            return;
        };
        let mut inputs = Vec::new();
        if leading.term == log_id.term && !leading.ready {
            leading.ready = true;
            inputs.push(Input::Ready(known_sessions(&node.table)));
        }
        let Some(outcome) = outcome else {
            return self.give_grantor(at, now, inputs);
        };
        inputs.extend(outcome.events.into_iter().filter_map(|event| match event {
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
        }));
        if !leading.ready {
            inputs.clear();
        }
        let registered = match (command, outcome.reply) {
            (Some(Command::RegisterSession { squid, .. }), Reply::Registered(reply)) => {
                Some((squid, reply))
            }
            _ => None,
        };
        self.give_grantor(at, now, inputs);
        if let Some((squid, reply)) = registered
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
        let now = self.nodes[at].clock.now();
        self.give_grantor(at, now, vec![Input::Wake]);
        let node = &mut self.nodes[at];
        let Some(leading) = &node.leading else { return };
        let over = |ttl| {
            now >= leading.won
                + wait_after_answer(ttl, ClockClass::Slewed, ClockClass::Slewed, Duration::ZERO)
        };
        if node.table.restore_wait().is_some_and(over) {
            node.queue
                .push(Command::EndRestoreWait { term: leading.term });
        }
    }

    fn grantor_says(&mut self, at: usize, out: Output) {
        let node = &mut self.nodes[at];
        let Some(leading) = &mut node.leading else {
            return;
        };
        leading.wake_at = out.wake_at;
        let state = node.table.target(&target());
        let mut sent = Vec::new();
        for action in out.actions {
            match action {
                Action::Confirm(round) => leading.rounds.push((round, None)),
                Action::Answer(renewals) => {
                    sent.extend(renewals.into_iter().filter_map(|renewal| {
                        let (host, known, t0) = leading.pending.remove(&renewal)?;
                        let ttl = state
                            .and_then(|state| state.session(renewal.session))
                            .map_or(TTL, |session| session.ttl);
                        let update = state.and_then(|state| state.update_since(known));
                        let renewed = Renewed {
                            session: renewal.session,
                            seq: renewal.seq,
                            ttl,
                            update,
                        };
                        Some(Message::Renewed { host, renewed, t0 })
                    }))
                }
                Action::TellClosed(renewals) => {
                    sent.extend(renewals.into_iter().filter_map(|renewal| {
                        let (host, ..) = leading.pending.remove(&renewal)?;
                        Some(Message::Closed {
                            host,
                            session: renewal.session,
                        })
                    }))
                }
                Action::Expire(session) => {
                    let live: Vec<SessionId> = state
                        .into_iter()
                        .flat_map(|state| state.live_sessions())
                        .map(|s| s.id)
                        .collect();
                    let any = |rng: &mut Rng| *rng.pick(&live);
                    let named =
                        |i| Some((key(i), any(&mut self.rng))).filter(|(_, to)| *to != session);
                    let successors: Vec<(SliceKey, SessionId)> = if live.is_empty() {
                        Vec::new()
                    } else {
                        (0..super::KEYS).filter_map(named).collect()
                    };
                    node.queue.push(Command::ExpireSession {
                        target: target(),
                        session,
                        term: leading.term,
                        successors,
                    });
                }
                Action::Suspect(_) | Action::Trust(_) => {}
            }
        }
        for message in sent {
            self.send(message);
        }
    }

    /// Quorum rounds: confirmed iff at this instant no later term exists. Their answers are given
    /// to the Grantor when the table has applied what was read, however late that is.
    fn confirm(&mut self, at: usize) {
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
        let mut inputs = Vec::new();
        let applied = node.applied;
        leading.rounds.retain_mut(|(round, read)| match read {
            None if !newest => {
                inputs.push(Input::NotConfirmed(*round));
                false
            }
            None => {
                *read = Some(index);
                true
            }
            Some(index) if *index <= applied => {
                inputs.push(Input::Confirmed(*round));
                false
            }
            Some(_) => true,
        });
        let now = node.clock.now();
        self.give_grantor(at, now, inputs);
    }

    pub(super) fn take_registration(&mut self, at: usize, squid: Squid) {
        if self.nodes[at].leading.is_some() {
            let secret = SessionSecret::from_bytes([7; 16]);
            let clock = ClockClass::Slewed;
            let command = Command::RegisterSession {
                target: target(),
                squid,
                clock,
                secret,
                app_version: String::new(),
            };
            self.nodes[at].queue.push(command);
        }
    }

    pub(super) fn take_renewal(&mut self, at: usize, host: usize, renew: Renew, t0: ClockTime) {
        let node = &mut self.nodes[at];
        let Some(leading) = &mut node.leading else {
            return;
        };
        let renewal = Renewal {
            session: renew.session,
            seq: renew.seq,
        };
        leading.pending.insert(renewal, (host, renew.known, t0));
        if let Some(state) = node.table.target(&target()) {
            let open = |word: &Word| {
                state
                    .handoffs()
                    .any(|(_, _, handoff)| handoff.id == word.handoff())
            };
            for word in renew.words.into_iter().filter(open) {
                node.queue.push(word_command(renew.session, word));
            }
            let acked = state
                .session(renew.session)
                .and_then(|session| session.acked_arming);
            if let Some(arming) = renew
                .armed
                .filter(|arming| state.mode() == Mode::Arming(*arming) && acked != Some(*arming))
            {
                node.queue.push(Command::AckArming {
                    target: target(),
                    session: renew.session,
                    arming,
                });
            }
        }
        let now = node.clock.now();
        self.give_grantor(at, now, vec![Input::Renewals(vec![renewal])]);
    }

    /// A backup of the whole state; or the loss of everything since, and the restore.
    pub(super) fn back_up_or_restore(&mut self) {
        let master = &self.check.master;
        let restorable =
            |backup: &Backup| match (backup.table.target(&target()), master.target(&target())) {
                // A switch to eventual that only the lost history knows is beyond the protocol.
                (Some(then), Some(now)) => {
                    then.mode() != Mode::Strong
                        || (now.mode() == Mode::Strong
                            && now.config_version() == then.config_version())
                }
                (None, Some(now)) => now.mode() == Mode::Strong && now.config_version() == 1,
                (_, None) => false,
            };
        match self.raft.backup.take().filter(|backup| restorable(backup)) {
            None => {
                self.raft.backup = Some(Backup {
                    table: master.clone(),
                    index: self.raft.next_index,
                })
            }
            Some(backup) => self.restore(backup),
        }
    }

    fn restore(&mut self, backup: Backup) {
        self.note(|| "everything since the backup is lost".into());
        self.stats.restores += 1;
        self.raft.incarnation += 1;
        self.raft.log.clear();
        self.raft.tail.clear();
        self.raft.leader = None;
        self.raft.next_index = backup.index;
        for node in &mut self.nodes {
            node.table = backup.table.clone();
            (node.applied, node.leading) = (0, None);
            node.queue.clear();
        }
        self.check.restored(backup.table);
        self.raft.term += 1;
        let incarnation = Incarnation::new(self.raft.incarnation).expect("small");
        self.commit(
            self.raft.term,
            Some(Command::Restore {
                incarnation,
                max_ttl: TTL * 2,
            }),
        );
        let node = self.rng.index(self.nodes.len());
        self.win(node);
    }
}

fn word_command(session: SessionId, word: Word) -> Command {
    let target = target();
    match word {
        Word::Surrendered(handoff, digest) => Command::CompleteHandoff {
            target,
            handoff,
            word: EndWord::Surrendered(session),
            digest: Some(digest),
        },
        Word::Accepted(handoff) => Command::CompleteHandoff {
            target,
            handoff,
            word: EndWord::Accepted(session),
            digest: None,
        },
        Word::Refused(handoff) => Command::CancelHandoff {
            target,
            handoff,
            refused_by: session,
        },
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
