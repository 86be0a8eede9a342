//! What must come about once nothing goes wrong any more: every slice owned by a live session, no
//! handoff open, the wanted mode reached. ◆ Without the expiry of a session whose process lives:
//! that would repair every trap.

use leasehold_proto::command::{Command, PlanStep};
use leasehold_proto::holder::{Input, Verdict};
use leasehold_proto::table::{SessionPhase, TargetState};
use leasehold_proto::target::Consistency;
use leasehold_proto::{Mode, SessionId};

use super::{KEYS, TTL, World, key, target};
use leasehold_proto::command::Digest;

const ROUNDS: usize = 1_200;

impl World {
    pub(super) fn heal(&mut self) {
        self.benign = true;
        self.note(|| "from here on nothing goes wrong".into());
        for at in 0..self.hosts.len() {
            self.hosts[at].cut = false;
            if !self.hosts[at].alive {
                self.restart(at);
            }
        }
        let leader = self.raft.leader.unwrap_or(0);
        if self.raft.leader.is_none() {
            self.win(leader);
        }
        for (at, node) in self
            .nodes
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| *at != leader)
        {
            node.queue.clear();
            node.leading = None;
            debug_assert_ne!(at, leader);
        }
        for round in 0..ROUNDS {
            self.benign_round(leader, round);
            self.inspect();
            if self.check.failure.is_some() || self.healed() {
                break;
            }
        }
        if self.check.failure.is_none() && !self.healed() {
            let state = self
                .check
                .master
                .target(&target())
                .map(|state| format!("{:?} {:?}", state.mode(), state.view()));
            self.check.fail(format!("stuck: {state:?}"));
        }
        self.check.inspect_records();
        for node in &self.nodes {
            if node.applied == self.raft.log.len() && node.table != self.check.master {
                self.check
                    .failure
                    .get_or_insert("two nodes applied the same log to different tables".into());
            }
        }
    }

    fn benign_round(&mut self, leader: usize, round: usize) {
        for _ in 0..400 {
            self.pump();
            if self.messages.is_empty() {
                break;
            }
            let message = self.messages.remove(0);
            self.deliver(message);
        }
        for at in 0..self.hosts.len() {
            while let Some(handoff) = self.hosts[at].preparing.pop_first() {
                self.give(at, Input::Prepared(handoff));
            }
            while let Some(handoff) = self.hosts[at].draining.pop_first() {
                self.give(at, Input::Drained(handoff, Digest::EMPTY));
            }
        }
        if round % 4 == 3 {
            self.operator(leader);
        }
        let until_host = |world: &World| {
            world
                .hosts
                .iter()
                .filter_map(|h| Some(h.clock.until(h.wake_at?)))
                .min()
        };
        let until_node = self.nodes[leader]
            .wake_at()
            .map(|at| self.nodes[leader].clock.until(at));
        let wait = until_host(self)
            .into_iter()
            .chain(until_node)
            .min()
            .unwrap_or(u64::MAX);
        // What expires now expired by what went wrong before.
        self.expiry_allowed = self.healing < (TTL.as_nanos() as u64 / 8) * 4;
        let wait = wait.min(TTL.as_nanos() as u64 / 80);
        self.healing += wait;
        self.advance(wait);
        self.inspect();
        for at in 0..self.hosts.len() {
            if self.hosts[at]
                .wake_at
                .is_some_and(|wake| wake <= self.hosts[at].clock.now())
            {
                self.wake_host(at);
            }
        }
        self.wake_node(leader);
    }

    /// Grants what is vacant, creates what was deleted, forgets the ghosts of dead processes.
    fn operator(&mut self, leader: usize) {
        let create = self.create(Consistency::Strong);
        let Some(state) = self.check.master.target(&target()) else {
            return self.propose(create);
        };
        let holds = |id: SessionId| {
            self.hosts
                .iter()
                .any(|host| host.holder.session() == Some(id))
        };
        let forget = super::forget;
        let ghosts = state
            .sessions()
            .filter(|session| session.phase == SessionPhase::Ghost && !holds(session.id));
        let mut commands: Vec<Command> = ghosts.map(|session| forget(Some(session.id))).collect();
        let all_known = self
            .hosts
            .iter()
            .all(|host| host.holder.session().is_none_or(|id| is_live(state, id)));
        if state.ghosts_uncounted() > 0 && all_known {
            commands.push(forget(None));
        }
        let version = state.config_version();
        let grantor = self.nodes[leader]
            .leading
            .as_ref()
            .map(|leading| &leading.grantor);
        let may =
            |id: SessionId| grantor.is_some_and(|grantor| grantor.may_receive(id)) && holds(id);
        let to: Vec<SessionId> = state
            .live_sessions()
            .map(|session| session.id)
            .filter(|id| may(*id))
            .collect();
        let vacant: Vec<_> = state
            .slices()
            .filter(|(_, assigned)| assigned.owner.is_none())
            .collect();
        let grants = vacant.iter().filter_map(|(slice, _)| {
            Some(PlanStep::Grant {
                slice: *slice,
                to: *to.first()?,
            })
        });
        let steps: Vec<PlanStep> = grants.collect();
        if !steps.is_empty() {
            commands.push(Command::ApplyPlan {
                target: target(),
                config_version: version,
                steps,
            });
        }
        for command in commands {
            self.propose(command);
        }
    }

    fn healed(&self) -> bool {
        let Some(state) = self
            .check
            .master
            .target(&target())
            .filter(|state| !state.is_deleted())
        else {
            return false;
        };
        let wanted = match state.config().consistency {
            Consistency::Strong => Mode::Strong,
            Consistency::Eventual => Mode::Eventual,
        };
        let served = |k: usize| {
            self.hosts.iter().any(|host| {
                matches!(
                    host.holder.check(key(k), host.clock.now()),
                    Verdict::Owned(_)
                )
            })
        };
        state.mode() == wanted
            && state.slices().all(|(_, a)| {
                a.handoff.is_none() && a.owner.is_some_and(|owner| is_live(state, owner.session))
            })
            && (0..KEYS).all(served)
    }
}

fn is_live(state: &TargetState, id: SessionId) -> bool {
    state.live_sessions().any(|session| session.id == id)
}
