//! Assigner nodes: tables that lag, leaders that are deposed, proposals that wait.

use std::time::Duration;

use leasehold_proto::clock::ClockClass;
use leasehold_proto::command::Command;
use leasehold_proto::grantor::{Action, Grantor, GrantorConfig, Input, Output, Renewal};
use leasehold_proto::message::{Renewed, Word};
use leasehold_proto::table::{Event, LeaseTable};
use leasehold_proto::{ClockTime, Generation, Mode, SessionId};

use super::slicelet::Answer;
use super::{Seen, World, grantor_input, known_sessions, target};
use crate::bounds::Rounds;
use crate::part::Part;

/// A node that takes itself for the leader of a term.
#[derive(Clone, Debug)]
pub struct Leading {
    /// The term.
    pub term: u64,
    /// The machine that ships.
    pub grantor: Grantor,
    /// Whether an entry of the term is applied.
    pub ready: bool,
    /// The quorum round under way, and whether a quorum has confirmed the term.
    pub round: Option<(u64, bool)>,
    /// When its Grantor wants to be woken.
    pub wake_at: Option<ClockTime>,
    /// What is known of each renewal that is not answered.
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
struct Pending {
    renewal: Renewal,
    host: usize,
    known: Option<Generation>,
    /// Ticks since it was sent.
    age: u64,
}

/// An Assigner node.
#[derive(Clone, Debug)]
pub struct Node {
    /// What its clock shows, in nanoseconds.
    pub now: u64,
    /// What it has applied.
    pub table: Part<LeaseTable>,
    /// Proposals that its log has not appended, oldest first; they may outlive a term.
    pub queue: Vec<Command>,
    /// The term that it takes itself for the leader of.
    pub leading: Option<Leading>,
}

impl Node {
    /// A node that has applied nothing.
    pub fn new(index: usize) -> Self {
        Self {
            now: (5_000 + 100 * index as u64) * 1_000_000_000,
            table: Part::new(LeaseTable::new()),
            queue: Vec::new(),
            leading: None,
        }
    }

    /// The clock's reading.
    pub fn clock(&self) -> ClockTime {
        ClockTime::from_nanos(self.now)
    }

    /// Of the assignment that it has applied.
    pub(super) fn generation(&self) -> Option<Generation> {
        self.table.target(&target()).map(|state| state.generation())
    }

    /// A tick passes: loses what it knows of renewals that were under way for `life` ticks.
    pub(super) fn lose_older_than(&mut self, life: u64) -> bool {
        let Some(leading) = &mut self.leading else {
            return false;
        };
        let before = leading.pending.len();
        for pending in &mut leading.pending {
            pending.age += 1;
        }
        leading.pending.retain(|pending| pending.age < life);
        // What no round is under way for was dropped by the Grantor itself.
        before != leading.pending.len() && leading.round.is_some()
    }

    /// The sessions that its Grantor would expire now, or is expiring.
    pub(super) fn would_expire(&self) -> Vec<SessionId> {
        let Some(leading) = &self.leading else {
            return Vec::new();
        };
        let out = leading.grantor.clone().handle(self.clock(), Input::Wake);
        let expired = out.actions.into_iter().filter_map(|action| match action {
            Action::Expire(session) => Some(session),
            _ => None,
        });
        expired.collect()
    }

    /// Whether a renewal of the session waits here for its answer.
    pub(super) fn has_pending(&self, session: SessionId) -> bool {
        self.leading.as_ref().is_some_and(|leading| {
            leading
                .pending
                .iter()
                .any(|pending| pending.renewal.session == session)
        })
    }

    pub(super) fn visit_pending(
        &self,
        mut each: impl FnMut(Renewal, usize, Option<Generation>, u64),
    ) {
        for pending in self.leading.iter().flat_map(|leading| &leading.pending) {
            each(pending.renewal, pending.host, pending.known, pending.age);
        }
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
    /// The votes are counted.
    pub(super) fn win(&mut self, node: usize) {
        let config = GrantorConfig {
            clock: ClockClass::Slewed,
            granularity: Duration::ZERO,
            collect_window: Duration::ZERO,
        };
        let step = crate::bounds::UNIT.as_nanos() as u64 * self.bounds.least_steps().1;
        let this = self.nodes[node].edit();
        let won = if planted("wait_counted_from_candidacy") {
            ClockTime::from_nanos(this.now - step)
        } else {
            this.clock()
        };
        let term = self.log.term;
        let grantor = match this.leading.take() {
            Some(old) if planted("leader_memory_kept_across_terms") => old.grantor,
            _ => Grantor::new(term, won, config),
        };
        this.leading = Some(Leading {
            term,
            grantor,
            ready: false,
            round: None,
            wake_at: None,
            pending: Vec::new(),
        });
    }

    /// A node wins the next term. Of what the old leader had not committed, the new one inherits
    /// the first `keep` proposals; the rest was never appended.
    pub(super) fn elect(&mut self, node: usize, keep: usize, stale: bool) {
        let old = self.log.leader;
        let inherited: Vec<Command> = self.nodes[old].edit().queue.drain(..keep).collect();
        for command in inherited {
            self.seen.mark(Seen::TAIL_INHERITED);
            self.commit_in(self.log.term, &command, None);
        }
        self.log.term += 1;
        self.log.leader = node;
        if !stale {
            self.nodes[node].edit().table = self.master.clone();
        }
        self.win(node);
        if old != node {
            self.retire_deposed(old);
        }
        if self.left.elections + self.left.faults == 0 {
            for (at, other) in self.nodes.iter_mut().enumerate() {
                if at != node && !other.queue.is_empty() {
                    other.edit().queue.clear();
                }
            }
        }
    }

    /// A deposed leader whose quorum round is not confirmed can do nothing any more that anybody
    /// sees: its rounds fail and its proposals are refused.
    fn retire_deposed(&mut self, node: usize) {
        let confirmed = |node: &super::Node| {
            node.leading
                .as_ref()
                .and_then(|leading| leading.round)
                .is_some_and(|(_, confirmed)| confirmed)
        };
        if !self.bounds.remember_all && !confirmed(&self.nodes[node]) {
            self.nodes[node].edit().leading = None;
        }
    }

    /// The first entry of the leader's term is committed and applied, and with it all before.
    pub(super) fn become_ready(&mut self, at: usize) {
        self.log.index += 1;
        let node = self.nodes[at].edit();
        node.table = self.master.clone();
        let known = known_sessions(&node.table);
        if let Some(leading) = &mut node.leading {
            leading.ready = true;
        }
        self.give_grantor(at, Input::Ready(known));
    }

    pub(super) fn give_grantor(&mut self, at: usize, input: Input) {
        let node = self.nodes[at].edit();
        let now = node.clock();
        let Some(leading) = &mut node.leading else {
            return;
        };
        let out = leading.grantor.handle(now, input);
        leading.wake_at = out.wake_at;
        self.grantor_says(at, out);
    }

    pub(super) fn tell_grantor_of(&mut self, at: usize, events: &[Event]) {
        for input in events.iter().filter_map(grantor_input) {
            self.give_grantor(at, input);
        }
    }

    fn grantor_says(&mut self, at: usize, mut out: Output) {
        // What is decided in one instant is proposed in the order of sessions, not in that in which
        // the Grantor came upon them, which its canonical form does not keep.
        out.actions.sort_by_key(|action| match action {
            Action::Expire(session) => Some(*session),
            _ => None,
        });
        for action in out.actions {
            self.note(|| format!("Assigner {at}: {action:?}"));
            match action {
                Action::Confirm(round) => self.begin_round(at, round),
                Action::Answer(renewals) => {
                    for renewal in renewals {
                        self.answer_renewal(at, renewal, false);
                    }
                }
                Action::TellClosed(renewals) => {
                    for renewal in renewals {
                        self.answer_renewal(at, renewal, true);
                    }
                }
                Action::Expire(session) => self.expire(at, session),
                Action::Suspect(_) | Action::Trust(_) => {}
            }
        }
    }

    fn begin_round(&mut self, at: usize, round: u64) {
        let newest = at == self.log.leader;
        let rounds = self.bounds.rounds;
        if let Some(leading) = &mut self.nodes[at].edit().leading {
            leading.round = Some((round, newest && rounds != Rounds::Apart));
        }
        match rounds {
            Rounds::Instant if newest => self.answer(at),
            Rounds::Instant | Rounds::OnArrival if !newest => self.fail_round(at),
            _ => {}
        }
    }

    /// A quorum knows of a later term.
    pub(super) fn fail_round(&mut self, at: usize) {
        if let Some(leading) = &mut self.nodes[at].edit().leading
            && let Some((round, _)) = leading.round.take()
        {
            self.give_grantor(at, Input::NotConfirmed(round));
        }
    }

    fn answer_renewal(&mut self, at: usize, renewal: Renewal, closed: bool) {
        let deposed = at != self.log.leader;
        let node = self.nodes[at].edit();
        let Some(leading) = &mut node.leading else {
            return;
        };
        let found = leading.pending.iter().position(|p| p.renewal == renewal);
        let Some(pending) = found.map(|found| leading.pending.remove(found)) else {
            return;
        };
        let state = node.table.target(&target());
        let answer = if closed {
            Answer::Closed(renewal.session)
        } else {
            let ttl = state
                .and_then(|state| state.session(renewal.session))
                .map_or(self.bounds.ttl(), |session| session.ttl);
            Answer::Renewed(Renewed {
                session: renewal.session,
                seq: renewal.seq,
                ttl,
                update: state.and_then(|state| state.update_since(pending.known)),
            })
        };
        if deposed {
            self.seen.mark(Seen::ANSWER_OF_A_DEPOSED_LEADER);
        }
        self.send_reply(pending.host, answer, pending.age);
    }

    fn expire(&mut self, at: usize, session: SessionId) {
        let Some(term) = self.nodes[at].leading.as_ref().map(|leading| leading.term) else {
            return;
        };
        self.seen.mark(if term == 1 {
            Seen::EXPIRY_DECIDED
        } else {
            Seen::NEW_LEADER_WAITED
        });
        let mut successors = Vec::new();
        if self.bounds.successors
            && let Some(state) = self.nodes[at].table.target(&target())
            && let Some(to) = state
                .live_sessions()
                .map(|s| s.id)
                .find(|id| *id != session)
        {
            successors.extend(state.slices().map(|(slice, _)| (slice.first(), to)));
        }
        self.propose_at(
            at,
            Command::ExpireSession {
                target: target(),
                session,
                term,
                successors,
            },
        );
    }

    /// A proposal of the leader of the newest term.
    pub(super) fn propose(&mut self, command: Command) {
        self.propose_at(self.log.leader, command);
    }

    fn propose_at(&mut self, at: usize, command: Command) {
        if self.bounds.queue > 0 {
            if !self.nodes[at].queue.contains(&command) {
                self.nodes[at].edit().queue.push(command);
            }
        } else if at == self.log.leader {
            self.commit(command);
        }
    }

    /// Whether a node can take another proposal: the bound of the world, not of the shell.
    pub(super) fn room(&self, at: usize) -> bool {
        self.bounds.queue == 0 || self.nodes[at].queue.len() < self.bounds.queue
    }

    /// The oldest proposal of the leader of the newest term is appended in that term, committed and
    /// applied.
    pub(super) fn commit_next(&mut self, at: usize) {
        let command = self.nodes[at].edit().queue.remove(0);
        self.commit(command);
    }

    pub(super) fn deliver_renewal(&mut self, host: usize, slot: usize, at: usize, keep: bool) {
        let Some((renew, age)) = self.hosts[host].renews.get(slot).cloned() else {
            return;
        };
        if !keep {
            self.hosts[host].edit().renews.remove(slot);
        }
        let renewal = Renewal {
            session: renew.session,
            seq: renew.seq,
        };
        let known = renew.known.filter(|_| self.bounds.differences);
        let node = self.nodes[at].edit();
        let Some(leading) = &mut node.leading else {
            return;
        };
        leading.pending.retain(|pending| pending.renewal != renewal);
        leading.pending.push(Pending {
            renewal,
            host,
            known,
            age,
        });
        let commands = self.commands_of(at, renew.session, &renew.words, renew.armed);
        for command in commands {
            self.propose_at(at, command);
        }
        self.give_grantor(at, Input::Renewals(vec![renewal]));
        self.forget_unanswered(at);
    }

    /// Where rounds are instant, what a ready leader has not answered it never will.
    fn forget_unanswered(&mut self, at: usize) {
        let instant = self.bounds.rounds == Rounds::Instant;
        let unanswered = |l: &Leading| instant && l.ready && !l.pending.is_empty();
        if self.nodes[at].leading.as_ref().is_some_and(unanswered)
            && let Some(leading) = &mut self.nodes[at].edit().leading
        {
            leading.pending.clear();
        }
    }

    /// What the shell proposes for the words of a renewal, by the table that it has.
    fn commands_of(
        &self,
        at: usize,
        session: SessionId,
        words: &[Word],
        armed: Option<Generation>,
    ) -> Vec<Command> {
        let Some(state) = self.nodes[at].table.target(&target()) else {
            return Vec::new();
        };
        let open = |word: &&Word| state.handoff(word.handoff()).is_some();
        let of_words = words
            .iter()
            .filter(open)
            .map(|word| Command::of_word(target(), session, *word));
        let mut commands: Vec<Command> = of_words.collect();
        let acked = state.session(session).and_then(|known| known.acked_arming);
        if let Some(arming) = armed
            && state.mode() == Mode::Arming(arming)
            && acked != Some(arming)
        {
            commands.push(Command::AckArming {
                target: target(),
                session,
                arming,
            });
        }
        commands
    }

    /// A quorum confirms that no later term exists at this instant.
    pub(super) fn confirm(&mut self, at: usize) {
        if let Some(leading) = &mut self.nodes[at].edit().leading
            && let Some((_, confirmed)) = &mut leading.round
        {
            *confirmed = true;
        }
    }

    /// The Grantor hears of the confirmation, however late.
    pub(super) fn answer(&mut self, at: usize) {
        let Some(leading) = &mut self.nodes[at].edit().leading else {
            return;
        };
        if let Some((round, true)) = leading.round {
            leading.round = None;
            self.give_grantor(at, Input::Confirmed(round));
        }
        if at != self.log.leader {
            self.retire_deposed(at);
        }
    }
}
