//! What must come about once nothing goes wrong any more: every slice owned by a live session, no
//! handoff open, the wanted mode reached, every key written and read through its owner.
//!
//! ◆ Without the expiry of a session whose process lives, once what expired by earlier faults has:
//! that would repair every trap.

use leasehold_proto::command::{Command, PlanStep};
use leasehold_proto::holder::{Input, Verdict};
use leasehold_proto::table::{SessionPhase, TargetState};
use leasehold_proto::target::Consistency;
use leasehold_proto::{Mode, SessionId};

use super::planner::forget;
use super::{KEYS, Message, TTL, World, key, target, ticks};

/// The bound: everything is well within this many times the ttl, of true time.
const BOUND_TTLS: u64 = 20;
/// Within this many, sessions may still expire by what went wrong before: at most D of a doubled
/// ttl, that is 2 * 9/7 on a fast clock, and what the waits before it took.
const EXPIRY_TTLS: u64 = 4;
/// Looks at the world before it is said to be busy without getting anywhere.
const ROUNDS: usize = 2_000;
/// Messages delivered between two looks.
const BURST: usize = 100;
/// Messages delivered at all: many times what a world that heals needs.
const DELIVERIES: u64 = 10_000;

impl World {
    pub(super) fn heal(&mut self) {
        self.begin_healing();
        for round in 0..ROUNDS {
            self.benign_round(round);
            self.inspect();
            if self.check.broken.is_some()
                || self.healed()
                || self.healing > BOUND_TTLS * ticks(TTL)
                || self.delivered > DELIVERIES
            {
                break;
            }
        }
        if self.check.broken.is_some() {
            return;
        }
        if !self.healed() {
            let state = self.check.state();
            let state = state.map(|state| format!("{:?} {:?}", state.mode(), state.view()));
            self.check.fail(
                "everything heals once nothing goes wrong",
                format!("not within {BOUND_TTLS} ttl: {state:?}"),
            );
        }
        self.coverage.longest_heal_ttl_thousandths = self.healing * 1_000 / ticks(TTL);
        self.serve_every_key();
        self.check.finish();
        self.compare_tables();
    }

    fn begin_healing(&mut self) {
        self.benign = true;
        self.note(|| "from here on nothing goes wrong".into());
        for at in 0..self.hosts.len() {
            self.hosts[at].cut = Default::default();
            self.hosts[at].asleep = false;
            if !self.hosts[at].alive {
                self.restart(at);
            }
        }
        for node in &mut self.nodes {
            node.asleep = false;
        }
        if self.raft.leader.is_none() {
            self.win(0);
        }
        let leader = self.raft.leader;
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if Some(at) != leader {
                node.queue.clear();
                node.leading = None;
            }
        }
    }

    fn benign_round(&mut self, round: usize) {
        for _ in 0..BURST {
            self.pump();
            if self.messages.is_empty() {
                break;
            }
            let message = self.messages.remove(0);
            self.deliver(message);
            self.delivered += 1;
        }
        for at in 0..self.hosts.len() {
            self.finish_operations(at);
            self.finish_transfers(at, round);
            while let Some(handoff) = self.next_prepared(at) {
                self.give(at, Input::Prepared(handoff));
            }
            for _ in 0..self.hosts[at].draining.len() {
                self.drain(at);
            }
        }
        if round % 4 == 3 {
            self.benign_operator();
            self.tell_routers();
        }
        // What expires early expired by what went wrong before.
        self.expiry_allowed = self.healing < EXPIRY_TTLS * ticks(TTL);
        let wait = self.until_next_wake().min(ticks(TTL) / 10);
        self.healing += wait;
        self.advance(wait);
        self.inspect();
        for at in 0..self.hosts.len() {
            let host = &self.hosts[at];
            if host.wake_at.is_some_and(|wake| wake <= host.clock.now()) {
                self.wake_host(at);
            }
        }
        for at in 0..self.nodes.len() {
            self.wake_node(at);
        }
    }

    fn tell_routers(&mut self) {
        for router in 0..self.routers.len() {
            let known = self.routers[router].generation();
            let state = self.check.state();
            if let Some(update) = state.and_then(|state| state.update_since(known)) {
                self.deliver(Message::Route { router, update });
            }
        }
    }

    fn until_next_wake(&self) -> u64 {
        let hosts = self
            .hosts
            .iter()
            .filter_map(|host| Some((&host.clock, host.wake_at?)));
        let nodes = self
            .nodes
            .iter()
            .filter_map(|node| Some((&node.clock, node.wake_at()?)));
        let waits = hosts.chain(nodes).map(|(clock, at)| clock.until(at));
        waits.min().unwrap_or(u64::MAX)
    }

    /// Grants what is vacant, creates what was deleted, forgets the ghosts of dead processes.
    fn benign_operator(&mut self) {
        let create = self.create(Consistency::Strong);
        let Some(state) = self.check.state() else {
            return self.propose(create);
        };
        let hosts = &self.hosts;
        let holds = |id: SessionId| hosts.iter().any(|host| host.holder.session() == Some(id));
        let ghosts = state
            .sessions()
            .filter(|session| session.phase == SessionPhase::Ghost && !holds(session.id));
        let mut commands: Vec<Command> = ghosts.map(|session| forget(Some(session.id))).collect();
        let known = |id: SessionId| state.live_sessions().any(|session| session.id == id);
        let all_known = hosts
            .iter()
            .all(|host| host.holder.session().is_none_or(known));
        if state.ghosts_uncounted() > 0 && all_known {
            commands.push(forget(None));
        }
        let steps = self.grants(state, holds);
        if !steps.is_empty() {
            commands.push(Command::ApplyPlan {
                target: target().clone(),
                config_version: state.config_version(),
                steps,
            });
        }
        for command in commands {
            self.propose(command);
        }
    }

    /// What is vacant goes to whoever was answered.
    fn grants(&self, state: &TargetState, holds: impl Fn(SessionId) -> bool) -> Vec<PlanStep> {
        let leading = self
            .raft
            .leader
            .and_then(|at| self.nodes[at].leading.as_ref());
        let may = |id: &SessionId| {
            leading.is_some_and(|leading| leading.grantor.may_receive(*id)) && holds(*id)
        };
        let Some(to) = state.live_sessions().map(|session| session.id).find(may) else {
            return Vec::new();
        };
        let vacant = state
            .slices()
            .filter(|(_, assigned)| assigned.owner.is_none());
        vacant
            .map(|(slice, _)| PlanStep::Grant { slice, to })
            .collect()
    }

    fn healed(&self) -> bool {
        let Some(state) = self.check.state().filter(|state| !state.is_deleted()) else {
            return false;
        };
        let wanted = match state.config().consistency {
            Consistency::Strong => Mode::Strong,
            Consistency::Eventual => Mode::Eventual,
        };
        let live = |id| state.live_sessions().any(|session| session.id == id);
        let settled = |assigned: &leasehold_proto::Assigned| {
            assigned.handoff.is_none() && assigned.owner.is_some_and(|owner| live(owner.session))
        };
        // Its owner serves it at its epoch, as do copies, nobody else does, and every Clerk's map
        // says so: in eventual mode an old view serves too, for as long as it is believed.
        let served = |k: usize| {
            let owner = state
                .slice_of(key(k))
                .and_then(|(_, assigned)| assigned.owner);
            self.hosts.iter().all(|host| {
                let session = host.holder.session();
                let copy = state.slice_of(key(k)).is_some_and(|(_, assigned)| {
                    assigned.replicas.iter().any(|id| session == Some(*id))
                });
                let part = owner.filter(|owner| session == Some(owner.session) || copy);
                let verdict = host.holder.check(key(k), host.clock.now());
                match part {
                    Some(owner) => verdict == Verdict::Owned(owner.epoch),
                    None => !matches!(verdict, Verdict::Owned(_)),
                }
            }) && self.routers.iter().all(|router| {
                let shown = router.view().and_then(|view| view.get(key(k)).1.owner);
                shown == owner && router.epoch(key(k)) == owner.map(|owner| owner.epoch)
            })
        };
        state.mode() == wanted
            && state.slices().all(|(_, assigned)| settled(assigned))
            && (0..KEYS).all(served)
    }

    /// One write and one read of every key are acknowledged by its owner.
    fn serve_every_key(&mut self) {
        for at in 0..self.hosts.len() {
            self.hosts[at].application.abandon();
        }
        // Writes that were given up may still arrive: before, not between.
        while let Some(message) = self.messages.pop() {
            self.deliver(message);
        }
        for k in 0..KEYS {
            let owner = |host: &super::Host| host.holding.owns >> k & 1 == 1;
            let Some(at) = self.hosts.iter().position(owner) else {
                continue;
            };
            for write in [true, false] {
                let served = self.serve(at, k, write)
                    && (!self.adversity.stateful || self.serve_from_memory(at, k));
                if !served && self.check.broken.is_none() {
                    let what = format!("an operation on key {k} is not served by host {at}");
                    self.check
                        .fail("every key is served once nothing goes wrong", what);
                }
            }
        }
    }

    fn compare_tables(&mut self) {
        self.pump();
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            if node.applied == self.raft.log.len() && node.table != self.check.master {
                self.check.fail(
                    "the same log gives the same table",
                    format!("node {at} applied the log to another table"),
                );
            }
        }
    }
}
