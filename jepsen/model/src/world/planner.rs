//! What planner, operator and supervisor may want. They decide by what is committed, and their
//! plans are committed at once: a plan that comes too late is refused, which changes nothing.

use leasehold_proto::command::{CloseProof, Command, PlanStep, Reply};
use leasehold_proto::table::SessionPhase;
use leasehold_proto::target::{Consistency, TargetChange};
use leasehold_proto::view::{Assigned, Lease};
use leasehold_proto::{Generation, Mode, SessionId, Slice};

use super::{Seen, Step, World, keys, target};

impl World {
    fn live(&self) -> Vec<SessionId> {
        self.state()
            .map(|state| state.live_sessions().map(|session| session.id).collect())
            .unwrap_or_default()
    }

    fn slices(&self) -> Vec<(Slice, Assigned)> {
        let all = |state: &leasehold_proto::table::TargetState| {
            state
                .slices()
                .map(|(slice, a)| (slice, a.clone()))
                .collect()
        };
        self.state().map(all).unwrap_or_default()
    }

    /// The view that the Slicelet of this session has applied: what it may have said already.
    fn known_to(&self, session: SessionId) -> Option<Generation> {
        let mut holders = self.hosts.iter().map(|host| &host.holder);
        let holder = holders.find(|holder| holder.session() == Some(session))?;
        holder.view().map(|view| view.generation)
    }

    fn plan(&mut self, step: PlanStep) {
        let Some(config_version) = self.state().map(|state| state.config_version()) else {
            return;
        };
        let reply = self.commit(Command::ApplyPlan {
            target: target(),
            config_version,
            steps: vec![step],
        });
        debug_assert!(!matches!(reply, Some(Reply::Rejected(_))));
    }

    /// Every plan that the bounds still allow.
    pub(super) fn plans(&self, out: &mut Vec<Step>) {
        let (live, slices) = (self.live(), self.slices());
        let Some(state) = self.state() else {
            return;
        };
        let eventual = state.mode() == Mode::Eventual;
        for (slice, (range, assigned)) in slices.iter().enumerate() {
            for (to, session) in live.iter().enumerate() {
                let mine = assigned
                    .owner
                    .is_some_and(|owner| owner.session == *session);
                if assigned.owner.is_none() {
                    out.push(Step::Grant(slice, to));
                }
                if assigned.owner.is_none() || mine {
                    continue;
                }
                if self.left.handoffs > 0
                    && (assigned.handoff.is_none() || self.bounds.remember_all)
                {
                    out.push(Step::Begin(slice, to));
                }
                // Without sense for the mode: it is the table that refuses.
                if self.left.moves > 0 && assigned.handoff.is_none() {
                    out.push(Step::Move(slice, to));
                }
            }
            if self.left.cancels > 0 && assigned.handoff.is_some_and(|h| !h.ask_cancel) {
                out.push(Step::AskCancel(slice));
            }
            if self.left.copies > 0 && eventual && assigned.owner.is_some() {
                out.push(Step::Copy(slice));
            }
            let cut = keys(&self.bounds)
                .get(1)
                .is_some_and(|key| *key > range.first());
            if self.left.splits > 0 && cut && range.contains(keys(&self.bounds)[1]) {
                out.push(Step::Split(slice));
            }
            let next = slices
                .get(slice + 1)
                .and_then(|(_, assigned)| assigned.owner);
            let same = |lease: Lease| next.is_some_and(|next| next.session == lease.session);
            if self.left.merges > 0 && assigned.owner.is_some_and(same) {
                out.push(Step::Merge(slice));
            }
        }
        if self.left.flips > 0 {
            out.push(Step::Flip);
        }
        for (at, session) in state.sessions().enumerate() {
            if self.lives(session.id) {
                continue;
            }
            match session.phase {
                SessionPhase::Ghost => out.push(Step::Forget(at)),
                SessionPhase::Live if self.left.reaped > 0 => out.push(Step::Reaped(at)),
                _ => {}
            }
        }
    }

    pub(super) fn grant(&mut self, slice: usize, to: usize) {
        let (live, slices) = (self.live(), self.slices());
        if let (Some(to), Some((slice, _))) = (live.get(to), slices.get(slice)) {
            self.plan(PlanStep::Grant {
                slice: *slice,
                to: *to,
            });
        }
    }

    /// Carries out a step of [`Self::plans`].
    pub(super) fn carry_out(&mut self, step: Step) {
        let (live, slices) = (self.live(), self.slices());
        let of = |at: usize| {
            slices
                .get(at)
                .cloned()
                .unwrap_or((Slice::ALL, Assigned::default()))
        };
        match step {
            Step::Grant(slice, to) => self.grant(slice, to),
            Step::Begin(slice, to) => {
                self.left.handoffs -= 1;
                self.benign = false;
                let (slice, assigned) = of(slice);
                if let Some(from) = assigned.owner {
                    let to = live[to];
                    self.plan(PlanStep::BeginHandoff { slice, from, to });
                }
            }
            Step::Move(slice, to) => {
                self.left.moves -= 1;
                self.benign = false;
                let (slice, assigned) = of(slice);
                let (from, to) = (assigned.owner, live[to]);
                self.plan(PlanStep::Reassign { slice, from, to });
            }
            Step::AskCancel(slice) => {
                self.left.cancels -= 1;
                self.benign = false;
                if let Some(handoff) = of(slice).1.handoff {
                    self.commit(Command::AskCancel {
                        target: target(),
                        handoff: handoff.id,
                    });
                }
            }
            Step::Copy(slice) => self.copy(of(slice)),
            Step::Split(slice) => {
                self.left.splits -= 1;
                self.benign = false;
                let (slice, assigned) = of(slice);
                let at = keys(&self.bounds)[1];
                let owner = assigned.owner;
                self.seen.mark(Seen::SPLIT);
                self.plan(PlanStep::Split { slice, owner, at });
            }
            Step::Merge(slice) => {
                self.left.merges -= 1;
                self.benign = false;
                let (left, right) = (of(slice), of(slice + 1));
                if let Some(owner) = left.1.owner.map(|owner| owner.session) {
                    let (left, right) = (left.0, right.0);
                    let taken_in = self.known_to(owner);
                    self.plan(PlanStep::Merge {
                        left,
                        right,
                        owner,
                        taken_in,
                    });
                }
            }
            Step::Flip => self.flip(),
            Step::Forget(at) => self.of_session(at, true),
            Step::Reaped(at) => {
                self.left.reaped -= 1;
                self.of_session(at, false);
            }
            _ => {}
        }
    }

    /// Every other session serves a copy, or none any more.
    fn copy(&mut self, (slice, assigned): (Slice, Assigned)) {
        self.left.copies -= 1;
        self.benign = false;
        let Some(owner) = assigned.owner else { return };
        let others = self.live().into_iter().filter(|id| *id != owner.session);
        let replicas = if assigned.replicas.is_empty() {
            others.collect()
        } else {
            Vec::new()
        };
        self.seen.mark(Seen::COPIED);
        self.plan(PlanStep::SetReplicas {
            slice,
            owner,
            replicas,
        });
    }

    fn flip(&mut self) {
        self.left.flips -= 1;
        self.benign = false;
        let Some(state) = self.state() else { return };
        let consistency = Some(match state.config().consistency {
            Consistency::Strong => Consistency::Eventual,
            Consistency::Eventual => Consistency::Strong,
        });
        let change = TargetChange {
            consistency,
            ..TargetChange::default()
        };
        self.commit(Command::UpdateTarget {
            target: target(),
            expected_version: None,
            change,
        });
    }

    /// Somebody who knows says that the process of a session is gone.
    fn of_session(&mut self, at: usize, ghost: bool) {
        let found = self.state().and_then(|state| state.sessions().nth(at));
        let Some(session) = found.map(|session| session.id) else {
            return;
        };
        let target = target();
        self.commit(if ghost {
            Command::ForgetGhost {
                target,
                session: Some(session),
                reason: String::new(),
            }
        } else {
            Command::CloseSession {
                target,
                session,
                proof: CloseProof::Reaped,
            }
        });
    }
}
