//! A small world around the machines that ship: a replicated log, Assigner nodes, Slicelet
//! processes, perhaps a Clerk, and what is under way between them. A value: every step makes
//! another world and leaves this one as it was.
//!
//! Raft is abstract, as openraft gives it to the shell: entries are committed by the leader of the
//! newest term; a deposed leader does not know that it is one; a new one may inherit what the old
//! one had appended, and knows what is committed only when an entry of its own term is.

mod assigner;
mod audit;
mod fingerprint;
mod planner;
mod slicelet;
mod step;

use std::sync::Arc;

use leasehold_proto::command::{Command, Reply};
use leasehold_proto::grantor::SessionInfo;
use leasehold_proto::message::{Ready, ReadyAnswer};
use leasehold_proto::router::Router;
use leasehold_proto::table::{Event, LeaseTable, SessionPhase, TargetState};
use leasehold_proto::target::{Consistency, TargetConfig};
use leasehold_proto::{LogId, SessionId, SliceKey, TargetName};

pub use assigner::Node;
pub use audit::{Ledger, SIGHTS, Seen};
pub use slicelet::Host;
pub use step::Step;

use crate::bounds::{Bounds, Most, UNIT};
use crate::part::Part;

/// A message from one Slicelet to another. It stays under way for as long as it can have an
/// effect: delivered late, again, or never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// To the host: a destination is ready.
    Ready(usize, Ready),
    /// To the host: what a source answered.
    Answer(usize, ReadyAnswer),
}

/// The truth that a quorum holds.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// The newest term, and the node that won it.
    pub term: u64,
    /// Who won it.
    pub leader: usize,
    /// Index of the last entry.
    pub index: u64,
}

/// One state of a small world.
#[derive(Clone, Debug)]
pub struct World {
    /// What may happen here.
    pub bounds: Arc<Bounds>,
    left: Most,
    registrations_left: u8,
    log: Log,
    /// The table of everything that is committed.
    master: Part<LeaseTable>,
    nodes: Vec<Part<Node>>,
    hosts: Vec<Part<Host>>,
    router: Option<Part<Router>>,
    peers: Part<Vec<Peer>>,
    ledger: Part<Ledger>,
    /// On which host each session was registered; never forgotten.
    homes: Arc<Vec<(SessionId, usize)>>,
    /// What the last step was seen to do.
    pub seen: Seen,
    /// The invariant that the last step broke.
    pub violation: Option<String>,
    /// Whether the last step is part of a course of events in which nothing goes wrong.
    pub benign: bool,
    /// What was done in the last step, if somebody wants to read it.
    pub notes: Option<Vec<String>>,
}

/// The one target.
pub fn target() -> TargetName {
    thread_local! {
        static NAME: Option<TargetName> = TargetName::new("cart").ok();
    }
    match NAME.with(Clone::clone) {
        Some(name) => name,
        None => unreachable!("a label"),
    }
}

/// The keys that stand for all: slices are cut only in the middle.
pub fn keys(bounds: &Bounds) -> &'static [SliceKey] {
    const KEYS: [SliceKey; 2] = [SliceKey::MIN, SliceKey::from_u64(1 << 63)];
    let cut = bounds.slices > 1 || bounds.most.splits > 0;
    if cut { &KEYS } else { &KEYS[..1] }
}

impl World {
    /// The state in which a search begins: one leader that is ready, every Slicelet registered and
    /// holding a running lease, the first owning every slice.
    pub fn new(bounds: Arc<Bounds>) -> Self {
        Self::later(bounds, 0)
    }

    /// The same after `rounds` of a past that left nothing but larger numbers: clocks have run,
    /// entries were committed, sessions came and went.
    pub fn later(bounds: Arc<Bounds>, rounds: u64) -> Self {
        let consistency = if bounds.eventual {
            Consistency::Eventual
        } else {
            Consistency::Strong
        };
        let config = TargetConfig {
            consistency,
            ttl: bounds.ttl(),
            handoff_deadline: bounds.handoff_deadline(),
            ..TargetConfig::default()
        };
        let mut world = Self {
            left: bounds.most,
            registrations_left: bounds.registrations,
            log: Log {
                term: 1,
                leader: 0,
                index: 0,
            },
            master: Part::new(LeaseTable::new()),
            nodes: (0..bounds.assigners)
                .map(|i| Part::new(Node::new(i)))
                .collect(),
            hosts: (0..bounds.slicelets)
                .map(|i| Part::new(Host::new(i, &bounds)))
                .collect(),
            router: bounds.clerk.then(|| Part::new(Router::new())),
            peers: Part::new(Vec::new()),
            ledger: Part::new(Ledger::default()),
            homes: Arc::new(Vec::new()),
            seen: Seen::default(),
            violation: None,
            benign: true,
            notes: None,
            bounds,
        };
        world.win(0);
        world.become_ready(0);
        world.commit(Command::CreateTarget {
            target: target(),
            config,
            initial_slices: world.bounds.slices as u32,
        });
        world.pass_the_past(rounds);
        for host in 0..world.hosts.len() {
            world.register(host);
        }
        world.grant_everything();
        for host in 0..world.hosts.len() {
            world.wake_host(host);
            world.settle(host);
        }
        world.left = world.bounds.most;
        world.seen = Seen::default();
        world.inspect();
        world
    }

    fn pass_the_past(&mut self, rounds: u64) {
        for round in 0..rounds {
            let at = round as usize % self.hosts.len();
            self.register(at);
            let session = self.hosts[at].holder.session();
            self.replace_process(at);
            for host in &mut self.hosts {
                let host = host.edit();
                host.now += 1_000_000_007;
                host.renews.clear();
            }
            if let Some(session) = session {
                self.commit(Command::CloseSession {
                    target: target(),
                    session,
                    proof: leasehold_proto::command::CloseProof::OwnWord,
                });
            }
        }
    }

    /// A renewal goes through without delay.
    fn settle(&mut self, host: usize) {
        if !self.hosts[host].renews.is_empty() {
            self.deliver_renewal(host, 0, 0, false);
        }
        let node = &self.nodes[0];
        if node.leading.as_ref().is_some_and(|l| l.round.is_some()) {
            self.confirm(0);
            self.answer(0);
        }
        if !self.hosts[host].replies.is_empty() {
            self.deliver_reply(host, 0, false);
        }
    }

    fn grant_everything(&mut self) {
        let vacant = (0..self.bounds.slices).map(|slice| (slice, 0));
        for (slice, to) in vacant.collect::<Vec<_>>() {
            self.grant(slice, to);
        }
    }

    /// The committed state of the one target.
    pub fn state(&self) -> Option<&TargetState> {
        self.master.target(&target())
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(notes) = &mut self.notes {
            notes.push(what());
        }
    }

    fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    /// The leader of the newest term, if an entry of that term is applied.
    fn ready_leader(&self) -> Option<usize> {
        let leader = self.log.leader;
        let leading = self.nodes[leader].leading.as_ref()?;
        (leading.ready && leading.term == self.log.term).then_some(leader)
    }

    /// Appends, commits and applies at the leader of the newest term, in one instant.
    fn commit(&mut self, command: Command) -> Option<Reply> {
        let leader = self.ready_leader()?;
        let reply = self.commit_in(self.log.term, &command, Some(leader));
        Some(reply)
    }

    /// Commits an entry of `term`; `leader` applies it at once.
    fn commit_in(&mut self, term: u64, command: &Command, leader: Option<usize>) -> Reply {
        let index = self.log.index + 1;
        let at = LogId { term, index };
        let mut table = self.master.clone();
        let outcome = table.edit().apply(at, command.clone());
        self.note(|| {
            format!(
                "committed at {at}: {} -> {}",
                told(command),
                answered(&outcome.reply)
            )
        });
        // Refused: nothing changed, and an index more or less tells nobody anything.
        if outcome.touched.is_empty() && outcome.events.is_empty() {
            return outcome.reply;
        }
        self.log.index = index;
        self.audit_commit(command, &outcome);
        let mode = self
            .state()
            .map_or(leasehold_proto::Mode::Strong, |state| state.mode());
        self.master = table;
        self.audit_table(mode);
        if let Some(leader) = leader {
            let node = self.nodes[leader].edit();
            node.table = self.master.clone();
            self.tell_grantor_of(leader, &outcome.events);
        }
        outcome.reply
    }

    /// Whether a process that lives holds this session.
    fn lives(&self, session: SessionId) -> bool {
        self.hosts
            .iter()
            .any(|host| host.holder.session() == Some(session))
    }

    fn home(&self, session: SessionId) -> Option<usize> {
        let found = self.homes.iter().rev().find(|(id, _)| *id == session);
        found.map(|(_, host)| *host)
    }

    /// Time passes for everybody; what was under way for too long is lost.
    fn tick(&mut self, kind: usize) {
        let (slow, fast) = self.bounds.ticks()[kind];
        let unit = UNIT.as_nanos() as u64;
        let life = self.bounds.message_ticks;
        let mut lost = false;
        for host in &mut self.hosts {
            let host = host.edit();
            host.now += slow * unit;
            lost |= host.lose_older_than(life);
        }
        for node in &mut self.nodes {
            let node = node.edit();
            node.now += fast * unit;
            lost |= node.lose_older_than(life);
        }
        // What a tick loses, or whose lease it ends though the process lives, goes wrong.
        self.benign = !lost && !self.live_session_runs_out();
    }

    /// Whether the leader would now expire a session whose process lives.
    fn live_session_runs_out(&self) -> bool {
        let Some(leader) = self.ready_leader() else {
            return true;
        };
        let expired = self.nodes[leader].would_expire();
        expired.into_iter().any(|session| self.lives(session))
    }
}

/// Everything that a Grantor must know of when its term begins.
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

/// The event's session, as the Grantor is told.
fn grantor_input(event: &Event) -> Option<leasehold_proto::grantor::Input> {
    use leasehold_proto::grantor::Input;
    match event {
        Event::SessionRegistered {
            session,
            ttl,
            clock,
            ..
        } => Some(Input::Registered(SessionInfo {
            session: *session,
            ttl: *ttl,
            clock: *clock,
            leaving: false,
        })),
        Event::SessionLeaving(session) => Some(Input::Leaving(*session)),
        Event::SessionClosed(session) => Some(Input::Closed(*session)),
        _ => None,
    }
}

/// A command as a person reads it: without the target, which is always the same.
fn told(command: &Command) -> String {
    format!("{command:?}").replace("target: cart, ", "")
}

fn answered(reply: &Reply) -> String {
    match reply {
        Reply::Rejected(why) => format!("refused: {why}"),
        Reply::Registered(registered) => format!("{}", registered.session),
        other => format!("{other:?}"),
    }
}
