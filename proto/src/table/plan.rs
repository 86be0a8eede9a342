//! Plans: compare-and-set on the slices that each step touches and on the configuration's version.

use super::record::{MetaRecord, RecordKey};
use super::{Applied, Entry, TargetState};
use crate::command::{PlanStep, Reply};
use crate::error::Rejection;
use crate::id::{Epoch, Generation, HandoffId, SessionId};
use crate::limits;
use crate::slice::Slice;
use crate::target::Mode;
use crate::view::{Assigned, Handoff, Lease, Provider};

type Step = Result<(), Rejection>;

impl TargetState {
    pub(super) fn apply_plan(
        &mut self,
        entry: &mut Entry,
        meta: &mut MetaRecord,
        restore_wait: bool,
        config_version: u64,
        steps: Vec<PlanStep>,
    ) -> Applied {
        self.if_leaving()?;
        self.expect_version(Some(config_version))?;
        if restore_wait {
            return Err(Rejection::RestoreWait);
        }
        if steps.len() > limits::PLAN_STEPS {
            return Err(Rejection::Limit {
                what: "steps in a plan".into(),
                most: limits::PLAN_STEPS,
            });
        }
        let results = steps
            .into_iter()
            .map(|step| self.apply_step(entry, meta, step))
            .collect();
        Ok(Reply::Plan(results))
    }

    fn apply_step(&mut self, entry: &mut Entry, meta: &mut MetaRecord, step: PlanStep) -> Step {
        match step {
            PlanStep::Grant { slice, to } => self.grant(entry, slice, to),
            PlanStep::BeginHandoff { slice, from, to } => {
                self.begin_handoff(entry, meta, slice, from, to)
            }
            PlanStep::Reassign { slice, from, to } => self.reassign(entry, slice, from, to),
            PlanStep::Split { slice, owner, at } => self.split(entry, slice, owner, at),
            PlanStep::Merge {
                left,
                right,
                owner,
                taken_in,
            } => self.merge(entry, left, right, owner, taken_in),
            PlanStep::SetReplicas {
                slice,
                owner,
                replicas,
            } => self.set_replicas(entry, slice, owner, replicas),
        }
    }

    /// The slice, if it is as the plan saw it: this range, this owner at this epoch, and
    /// ◆ no open handoff, which is never replaced, re-aimed, split or merged.
    fn unchanged(&self, slice: Slice, owner: Option<Lease>) -> Result<Assigned, Rejection> {
        let assigned = self.exactly(slice)?;
        match assigned.handoff {
            Some(handoff) if !mutant!("open_handoff_replaced") => {
                Err(Rejection::HandoffOpen(slice, handoff.id))
            }
            _ if assigned.owner != owner => Err(Rejection::SliceChanged(slice)),
            _ => Ok(assigned.clone()),
        }
    }

    fn live(&self, session: SessionId) -> Step {
        if self.is_live(session) {
            Ok(())
        } else {
            Err(Rejection::UnknownSession(session))
        }
    }

    fn grant(&mut self, entry: &mut Entry, slice: Slice, to: SessionId) -> Step {
        let assigned = self.unchanged(slice, None)?;
        self.live(to)?;
        let owner = Some(Lease {
            session: to,
            epoch: Epoch::mint(entry.generation),
        });
        // One role per session and slice: copies may have outlived their owner.
        let replicas = others(&assigned, to);
        let granted = Assigned {
            owner,
            replicas,
            ..Assigned::default()
        };
        self.put(entry, slice, granted);
        Ok(())
    }

    fn begin_handoff(
        &mut self,
        entry: &mut Entry,
        meta: &mut MetaRecord,
        slice: Slice,
        from: Lease,
        to: SessionId,
    ) -> Step {
        let assigned = self.unchanged(slice, Some(from))?;
        older(slice, from, entry)?;
        self.live(to)?;
        if to == from.session {
            return Err(Rejection::BadStep(
                "a slice cannot be handed off to its owner".into(),
            ));
        }
        if self.open_handoffs() >= limits::OPEN_HANDOFFS_PER_TARGET {
            return Err(Rejection::Limit {
                what: "open handoffs".into(),
                most: limits::OPEN_HANDOFFS_PER_TARGET,
            });
        }
        let id = HandoffId::mint(meta.incarnation, meta.next_handoff)
            .ok_or(Rejection::TokensExhausted)?;
        meta.next_handoff += 1;
        entry.touched.insert(RecordKey::Meta);
        let epoch = Epoch::mint(entry.generation);
        let handoff = Some(Handoff {
            id,
            to,
            epoch,
            ask_cancel: false,
            to_closed: false,
        });
        self.put(
            entry,
            slice,
            Assigned {
                handoff,
                ..assigned
            },
        );
        Ok(())
    }

    /// ◆ Not while arming: from the commit that begins it, ownership moves only by the strong rules.
    fn reassign(
        &mut self,
        entry: &mut Entry,
        slice: Slice,
        from: Option<Lease>,
        to: SessionId,
    ) -> Step {
        self.only_eventual()?;
        let assigned = self.unchanged(slice, from)?;
        from.map_or(Ok(()), |from| older(slice, from, entry))?;
        self.live(to)?;
        if assigned.owner.is_some_and(|owner| owner.session == to) {
            return Err(Rejection::BadStep(
                "the session owns the slice already".into(),
            ));
        }
        let owner = Some(Lease {
            session: to,
            epoch: Epoch::mint(entry.generation),
        });
        let replicas = others(&assigned, to);
        let provider = assigned.owner.map(|lease| Provider {
            lease,
            digest: None,
        });
        let moved = Assigned {
            owner,
            handoff: None,
            replicas,
            provider,
        };
        self.put(entry, slice, moved);
        Ok(())
    }

    fn split(
        &mut self,
        entry: &mut Entry,
        slice: Slice,
        owner: Option<Lease>,
        at: crate::SliceKey,
    ) -> Step {
        let assigned = self.unchanged(slice, owner)?;
        let (lower, upper) = slice
            .split(at)
            .ok_or(Rejection::BadStep("the split leaves one half empty".into()))?;
        if self.slice_count() >= limits::SLICES_PER_TARGET {
            return Err(Rejection::Limit {
                what: "slices".into(),
                most: limits::SLICES_PER_TARGET,
            });
        }
        self.put(entry, lower, assigned.clone());
        self.put(entry, upper, assigned);
        Ok(())
    }

    /// A fresh epoch, so that the token of neither half can fall.
    ///
    /// ◆ Not before the owner has taken in the state that either half came with: the merged slice
    /// has no provider, so that nothing could prove that state any more.
    fn merge(
        &mut self,
        entry: &mut Entry,
        left: Slice,
        right: Slice,
        owner: SessionId,
        taken_in: Option<Generation>,
    ) -> Step {
        let of = |slice| match self.exactly(slice)?.owner {
            Some(lease) if lease.session == owner => self.unchanged(slice, Some(lease)),
            _ => Err(Rejection::SliceChanged(slice)),
        };
        let (lower, upper) = (of(left)?, of(right)?);
        let mut halves = [left, right].into_iter();
        if let Some(half) = halves.find(|half| !self.has_taken_in(half.first(), taken_in))
            && !mutant!("merge_drops_the_proof")
        {
            return Err(Rejection::NotTakenIn(half));
        }
        if !left.touches(right) || lower.replicas != upper.replicas {
            return Err(Rejection::BadStep(
                "slices that are merged must touch and have the same replicas".into(),
            ));
        }
        let merged = Slice::new(left.first(), right.last()).ok_or(Rejection::SliceChanged(left))?;
        self.remove(entry, right.first());
        let lease = Lease {
            session: owner,
            epoch: Epoch::mint(entry.generation),
        };
        self.put(
            entry,
            merged,
            Assigned {
                owner: Some(lease),
                provider: None,
                ..lower
            },
        );
        Ok(())
    }

    fn set_replicas(
        &mut self,
        entry: &mut Entry,
        slice: Slice,
        owner: Lease,
        mut replicas: Vec<SessionId>,
    ) -> Step {
        self.only_eventual()?;
        let assigned = self.unchanged(slice, Some(owner))?;
        if replicas.len() > limits::REPLICAS_PER_SLICE {
            return Err(Rejection::Limit {
                what: "replicas of a slice".into(),
                most: limits::REPLICAS_PER_SLICE,
            });
        }
        replicas.sort_unstable();
        replicas.dedup();
        self.check_sessions(&replicas, &assigned)?;
        self.put(
            entry,
            slice,
            Assigned {
                replicas: replicas.into(),
                ..assigned
            },
        );
        Ok(())
    }

    fn only_eventual(&self) -> Step {
        let arming = mutant!("eventual_moves_while_arming") && matches!(self.mode, Mode::Arming(_));
        if self.mode == Mode::Eventual || arming {
            Ok(())
        } else {
            Err(Rejection::WrongMode(self.mode))
        }
    }
}

/// The replicas of a slice but for the session that will own it.
fn others(assigned: &Assigned, owner: SessionId) -> Box<[SessionId]> {
    let replicas = assigned.replicas.iter().copied();
    replicas.filter(|replica| *replica != owner).collect()
}

/// One entry mints one epoch: a lease that it gave itself would be handed on under its own token.
fn older(slice: Slice, from: Lease, entry: &Entry) -> Step {
    if from.epoch.generation() < entry.generation {
        Ok(())
    } else {
        Err(Rejection::SliceChanged(slice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockClass;
    use crate::command::{CloseProof, Command};
    use crate::id::LogId;
    use crate::table::LeaseTable;
    use crate::target::{Consistency, PodAddress, SessionSecret, Squid, TargetConfig, TargetName};

    #[test]
    fn a_replica_that_is_granted_its_slice_is_a_replica_no_more() {
        let target = TargetName::new("cart").unwrap();
        let (mut table, mut index) = (LeaseTable::new(), 0);
        let mut apply = |table: &mut LeaseTable, command| {
            index += 1;
            table.apply(LogId { term: 1, index }, command).reply
        };
        let config = TargetConfig {
            consistency: Consistency::Eventual,
            ..TargetConfig::default()
        };
        let create = Command::CreateTarget {
            target: target.clone(),
            config,
            initial_slices: 1,
        };
        apply(&mut table, create);
        let mut sessions = Vec::new();
        for pod in 1..=2u8 {
            let address = PodAddress::new(&format!("pod-{pod}:9000")).unwrap();
            let register = Command::RegisterSession {
                target: target.clone(),
                squid: Squid { address, id: 1 },
                clock: ClockClass::Raw,
                secret: SessionSecret::from_bytes([pod; 16]),
                app_version: String::new(),
            };
            if let Reply::Registered(registered) = apply(&mut table, register) {
                sessions.push(registered.session);
            }
        }
        let (first, second) = (sessions[0], sessions[1]);
        let plan = |step| Command::ApplyPlan {
            target: target.clone(),
            config_version: 1,
            steps: vec![step],
        };
        let slice = Slice::ALL;
        apply(&mut table, plan(PlanStep::Grant { slice, to: first }));
        let owned = |table: &LeaseTable| {
            let state = table.target(&target).unwrap();
            state.slices().next().unwrap().1.clone()
        };
        let owner = owned(&table).owner.unwrap();
        let replicas = vec![second];
        apply(
            &mut table,
            plan(PlanStep::SetReplicas {
                slice,
                owner,
                replicas,
            }),
        );
        let close = Command::CloseSession {
            target: target.clone(),
            session: first,
            proof: CloseProof::OwnWord,
        };
        apply(&mut table, close);
        assert_eq!(*owned(&table).replicas, [second]);
        apply(&mut table, plan(PlanStep::Grant { slice, to: second }));
        let assigned = owned(&table);
        assert_eq!(assigned.owner.map(|owner| owner.session), Some(second));
        assert!(assigned.replicas.is_empty(), "owner and replica at once");
    }
}
