//! A planner without sense, and operators: what moves slices, modes and targets.

use std::collections::BTreeMap;

use leasehold_proto::command::{CloseProof, Command, PlanStep};
use leasehold_proto::holder::Part;
use leasehold_proto::table::TargetState;
use leasehold_proto::target::{Consistency, TargetChange, TargetConfig};
use leasehold_proto::{Generation, Lease, Mode, SessionId, Slice, Squid};

use super::{KEYS, Message, Rng, TTL, World, key, target};
use crate::planted;

impl World {
    pub(super) fn create(&self, consistency: Consistency) -> Command {
        let config = TargetConfig {
            consistency,
            ttl: TTL,
            ..TargetConfig::default()
        };
        Command::CreateTarget {
            target: target().clone(),
            config,
            initial_slices: self.adversity.slices,
        }
    }

    /// What each session has applied, and may have said already.
    fn known(&self) -> BTreeMap<SessionId, Generation> {
        let holders = self.hosts.iter().map(|host| &host.holder);
        holders
            .filter_map(|holder| Some((holder.session()?, holder.view()?.generation)))
            .collect()
    }

    /// An operator is quick: what has come is cut and joined before its owner knows of it.
    pub(super) fn reshape_what_has_come(&mut self) {
        let (known, Some(state)) = (self.known(), self.check.state()) else {
            return;
        };
        let hosts = &self.hosts;
        let serves = |(slice, owner): &(Slice, Lease)| {
            let holders = hosts.iter().map(|host| &host.holder);
            let mut mine = holders.filter(|holder| holder.session() == Some(owner.session));
            let mut parts = mine.next().into_iter().flat_map(|holder| holder.local());
            parts.any(|part| part.slice.contains(slice.first()) && part.part == Part::Owner)
        };
        let taken_in = |owner: Lease| known.get(&owner.session).copied();
        let fresh = |at: &&(Slice, Lease)| {
            let (slice, owner) = **at;
            !serves(at) && !state.has_taken_in(slice.first(), taken_in(owner))
        };
        let closed = state
            .slices()
            .filter(|(_, assigned)| assigned.handoff.is_none());
        let owned: Vec<(Slice, Lease)> = closed
            .filter_map(|(slice, assigned)| Some((slice, assigned.owner?)))
            .collect();
        let cut = |(slice, owner): &(Slice, Lease)| {
            let mut cuts = (1..KEYS).map(key);
            let at = cuts.find(|cut| slice.first() < *cut && slice.contains(*cut))?;
            let (slice, owner) = (*slice, Some(*owner));
            Some(PlanStep::Split { slice, owner, at })
        };
        let joined = |pair: &[(Slice, Lease)]| {
            let ((left, owner), (right, other)) = (pair[0], pair[1]);
            let fits = left.touches(right) && owner.session == other.session;
            (fits && pair.iter().any(|at| fresh(&at))).then_some(PlanStep::Merge {
                left,
                right,
                owner: owner.session,
                taken_in: taken_in(owner),
            })
        };
        let step = owned.windows(2).find_map(joined);
        let Some(step) = step.or_else(|| owned.iter().filter(fresh).find_map(cut)) else {
            return;
        };
        let config_version = state.config_version();
        self.propose_now(Command::ApplyPlan {
            target: target().clone(),
            config_version,
            steps: vec![step],
        });
    }

    /// Any step that some node's table makes look possible.
    pub(super) fn plan_any(&mut self) {
        let Some(leader) = self.raft.leader else {
            return;
        };
        let from = if self.rng.chance(85) {
            leader
        } else {
            self.rng.index(self.nodes.len())
        };
        let Some(state) = self.nodes[from].table.target(target()) else {
            return;
        };
        let config_version = state.config_version();
        let count = 1 + self.rng.below(2);
        let known = self.known();
        let steps: Vec<PlanStep> = (0..count)
            .filter_map(|_| random_step(&mut self.rng, state, &known))
            .collect();
        self.propose(Command::ApplyPlan {
            target: target().clone(),
            config_version,
            steps,
        });
    }

    pub(super) fn flip(&mut self) {
        let Some(state) = self.check.state() else {
            return;
        };
        let consistency = Some(match state.config().consistency {
            Consistency::Strong => Consistency::Eventual,
            Consistency::Eventual => Consistency::Strong,
        });
        self.change(TargetChange {
            consistency,
            ..TargetChange::default()
        });
    }

    fn change(&mut self, change: TargetChange) {
        self.propose(Command::UpdateTarget {
            target: target().clone(),
            expected_version: None,
            change,
        });
    }

    pub(super) fn delete(&mut self) {
        self.propose(Command::DeleteTarget {
            target: target().clone(),
            expected_version: None,
        });
    }

    /// An operator's deed.
    pub(super) fn operate(&mut self) {
        let dice = self.rng.below(7);
        let consistency = *self.rng.pick(&[Consistency::Strong, Consistency::Eventual]);
        let create = self.create(consistency);
        let Some(state) = self.check.state() else {
            return self.propose(create);
        };
        if state.is_deleted() && self.rng.chance(30) {
            return self.propose(create);
        }
        let version = state.config_version();
        let handoffs: Vec<_> = state.handoffs().map(|(_, _, handoff)| handoff.id).collect();
        let live: Vec<SessionId> = state.live_sessions().map(|session| session.id).collect();
        match dice {
            0 => self.forget_all(),
            1 => self.prove_a_death(),
            2 => {
                let long = version.is_multiple_of(2);
                let ttl = Some(if long { TTL } else { TTL * 2 });
                self.change(TargetChange {
                    ttl,
                    ..TargetChange::default()
                });
            }
            3 if !live.is_empty() => {
                let session = *self.rng.pick(&live);
                self.propose(Command::DrainSession {
                    target: target().clone(),
                    session,
                });
            }
            _ if !handoffs.is_empty() => {
                let handoff = *self.rng.pick(&handoffs);
                self.propose(Command::AskCancel {
                    target: target().clone(),
                    handoff,
                });
            }
            _ => {}
        }
    }

    /// An operator says that all ghosts are dead, and is right.
    fn forget_all(&mut self) {
        let Some(state) = self.check.state() else {
            return;
        };
        let registering = self
            .messages
            .iter()
            .any(|message| matches!(message, Message::Registered { .. }));
        let live = |id| state.live_sessions().any(|session| session.id == id);
        let nothing_unknown = self
            .hosts
            .iter()
            .all(|host| host.holder.session().is_none_or(live));
        if nothing_unknown && !registering {
            self.propose_now(forget(None));
        }
    }

    /// A supervisor has reaped a process.
    fn prove_a_death(&mut self) {
        let hosts = &self.hosts;
        let lives = |squid: &Squid| hosts.iter().any(|host| host.alive && host.squid == *squid);
        let unreachable = |squid: &Squid| {
            let cut = |host: &super::Host| host.cut.to_assigner || host.cut.from_assigner;
            hosts.iter().any(|host| host.squid == *squid && cut(host))
        };
        let dead: Vec<SessionId> = self
            .check
            .state()
            .into_iter()
            .flat_map(|state| state.sessions())
            .filter(|session| {
                !lives(&session.squid)
                    || (planted("unreachable_taken_for_dead") && unreachable(&session.squid))
            })
            .map(|session| session.id)
            .collect();
        if !dead.is_empty() {
            let session = *self.rng.pick(&dead);
            self.propose(Command::CloseSession {
                target: target().clone(),
                session,
                proof: CloseProof::Reaped,
            });
        }
    }
}

pub fn forget(session: Option<SessionId>) -> Command {
    Command::ForgetGhost {
        target: target().clone(),
        session,
        reason: String::new(),
    }
}

/// `known` is what each session has applied, and may have said already.
fn random_step(
    rng: &mut Rng,
    state: &TargetState,
    known: &BTreeMap<SessionId, Generation>,
) -> Option<PlanStep> {
    let slices: Vec<(Slice, _)> = state.slices().collect();
    let sessions: Vec<SessionId> = state.live_sessions().map(|session| session.id).collect();
    if sessions.is_empty() {
        return None;
    }
    let at = rng.index(slices.len());
    let (slice, assigned) = slices[at];
    let to = *rng.pick(&sessions);
    let Some(owner) = assigned.owner else {
        return Some(PlanStep::Grant { slice, to });
    };
    // Slices of one owner that touch can be merged.
    let next = slices.get(at + 1).and_then(|(_, next)| next.owner);
    let to = match next {
        Some(next) if rng.chance(30) => next.session,
        _ => to,
    };
    Some(match rng.below(10) {
        0..5 if state.mode() != Mode::Eventual || rng.chance(30) => PlanStep::BeginHandoff {
            slice,
            from: owner,
            to,
        },
        5 => PlanStep::Split {
            slice,
            owner: Some(owner),
            at: key(rng.index(KEYS)),
        },
        6 | 7 => PlanStep::Merge {
            left: slice,
            right: slices[(at + 1) % slices.len()].0,
            owner: owner.session,
            taken_in: known.get(&owner.session).copied(),
        },
        8 => PlanStep::SetReplicas {
            slice,
            owner,
            replicas: sessions
                .into_iter()
                .filter(|id| *id != owner.session)
                .collect(),
        },
        _ => PlanStep::Reassign {
            slice,
            from: Some(owner),
            to,
        },
    })
}
