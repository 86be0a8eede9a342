//! Changes of targets, slices, handoffs and sessions.

use leasehold_proto::command::{CloseProof, Command, PlanStep, Reply};
use leasehold_proto::error::Rejection;
use leasehold_proto::target::Mode;
use leasehold_proto::wire::admin::{
    CancelHandoff, CloseSession, CreateTarget, DeleteTarget, DrainSession, ForgetGhost,
    MergeSlices, MoveSlice, MoveTo, SliceToMove, SplitSlice, UpdateTarget,
};
use leasehold_proto::wire::listing::SliceMoved;
use leasehold_proto::wire::pb;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::{Generation, HandoffId, Lease, SessionId, Slice, SliceKey, TargetName};
use tokio::sync::oneshot;

use super::{AdminService, audit};
use crate::leader::{LeaderHandle, ToLeader};
use leasehold_proto::table::TargetState;
use leasehold_proto::view::Assigned;

type Done<T> = Result<T, Refusal>;

impl AdminService {
    pub(super) async fn create(&self, request: CreateTarget) -> Done<pb::CreateTargetReply> {
        self.must_lead().await?;
        self.check_ttl(request.config.ttl)?;
        let CreateTarget {
            target,
            config,
            initial_slices,
            reason,
        } = request;
        audit("create target", &target, reason.as_deref());
        self.shared
            .propose(&Command::CreateTarget {
                target,
                config,
                initial_slices,
            })
            .await?;
        Ok(pb::CreateTargetReply {})
    }

    pub(super) async fn update(&self, request: UpdateTarget) -> Done<pb::UpdateTargetReply> {
        self.must_lead().await?;
        if let Some(ttl) = request.change.ttl {
            self.check_ttl(ttl)?;
        }
        let UpdateTarget {
            target,
            expected_version,
            change,
            reason,
        } = request;
        audit(
            "update target",
            &format_args!("{target} {change:?}"),
            reason.as_deref(),
        );
        self.shared
            .propose(&Command::UpdateTarget {
                target,
                expected_version,
                change,
            })
            .await?;
        Ok(pb::UpdateTargetReply {})
    }

    pub(super) async fn delete(&self, request: DeleteTarget) -> Done<pb::DeleteTargetReply> {
        self.must_lead().await?;
        let DeleteTarget {
            target,
            expected_version,
            reason,
        } = request;
        audit("delete target", &target, reason.as_deref());
        self.shared
            .propose(&Command::DeleteTarget {
                target,
                expected_version,
            })
            .await?;
        Ok(pb::DeleteTargetReply {})
    }

    pub(super) async fn forget(&self, request: ForgetGhost) -> Done<pb::ForgetGhostReply> {
        self.must_lead().await?;
        let ForgetGhost {
            target,
            session,
            reason,
        } = request;
        let which = session.map_or_else(|| "every ghost".to_owned(), |session| session.to_string());
        audit(
            "forget ghost",
            &format_args!("{target} {which}"),
            Some(&reason),
        );
        self.shared
            .propose(&Command::ForgetGhost {
                target,
                session,
                reason,
            })
            .await?;
        Ok(pb::ForgetGhostReply {})
    }

    pub(super) async fn cancel(&self, request: CancelHandoff) -> Done<pb::CancelHandoffReply> {
        self.must_lead().await?;
        let CancelHandoff {
            target,
            handoff,
            reason,
        } = request;
        audit(
            "ask to cancel",
            &format_args!("{target} {handoff}"),
            reason.as_deref(),
        );
        self.shared
            .propose(&Command::AskCancel { target, handoff })
            .await?;
        Ok(pb::CancelHandoffReply {})
    }

    pub(super) async fn drain(&self, request: DrainSession) -> Done<pb::DrainSessionReply> {
        self.must_lead().await?;
        let DrainSession {
            target,
            session,
            reason,
        } = request;
        audit(
            "drain session",
            &format_args!("{target} {session}"),
            reason.as_deref(),
        );
        self.shared
            .propose(&Command::DrainSession { target, session })
            .await?;
        Ok(pb::DrainSessionReply {})
    }

    pub(super) async fn close(&self, request: CloseSession) -> Done<pb::CloseSessionReply> {
        self.must_lead().await?;
        let CloseSession {
            target,
            session,
            reason,
        } = request;
        audit(
            "close session",
            &format_args!("{target} {session}"),
            Some(&reason),
        );
        self.shared
            .propose(&Command::CloseSession {
                target,
                session,
                proof: CloseProof::Reaped,
            })
            .await?;
        Ok(pb::CloseSessionReply {})
    }

    /// Strong: begins a handoff. Eventual, or vacant before: moves at once.
    pub(super) async fn relocate(&self, request: MoveSlice) -> Done<pb::MoveSliceReply> {
        let leader = self.shared.ready_leader().await?;
        let MoveSlice {
            target,
            which,
            to,
            reason,
        } = request;
        let (version, slice, to, step) = self.read(&target, |state| {
            let (slice, assigned) = find(state, which)?;
            let to = receiver(state, &to)?;
            if assigned.owner.is_some_and(|owner| owner.session == to) {
                return Err(Refusal::Rejected(format!("{to} owns {slice} already")));
            }
            let step = match (state.mode(), assigned.owner) {
                (Mode::Eventual, from) => PlanStep::Reassign { slice, from, to },
                (_, None) => PlanStep::Grant { slice, to },
                (_, Some(from)) => PlanStep::BeginHandoff { slice, from, to },
            };
            Ok((state.config_version(), slice, to, step))
        })?;
        may_receive(&leader, to).await?;
        if let PlanStep::Reassign {
            from: Some(owner), ..
        } = step
        {
            self.is_there(&leader, &target, slice, owner).await?;
        }
        audit(
            "move slice",
            &format_args!("{target} {slice} to {to}"),
            reason.as_deref(),
        );
        let begins = matches!(step, PlanStep::BeginHandoff { .. });
        self.apply_step(&target, version, step).await?;
        let handoff = if begins {
            self.open_handoff(&target, slice, to)?
        } else {
            None
        };
        Ok((&SliceMoved { handoff }).into())
    }

    pub(super) async fn split(&self, request: SplitSlice) -> Done<pb::SplitSliceReply> {
        self.must_lead().await?;
        let SplitSlice { target, at, reason } = request;
        let (version, step) = self.read(&target, |state| {
            let (slice, assigned) = find(state, SliceToMove::Holding(at))?;
            if at == slice.first() {
                return Err(Refusal::Invalid(format!(
                    "the lower half would be empty: {slice} begins at {at}; name a later key"
                )));
            }
            Ok((
                state.config_version(),
                PlanStep::Split {
                    slice,
                    owner: assigned.owner,
                    at,
                },
            ))
        })?;
        audit(
            "split slice",
            &format_args!("{target} at {at}"),
            reason.as_deref(),
        );
        self.apply_step(&target, version, step).await?;
        Ok(pb::SplitSliceReply {})
    }

    pub(super) async fn merge(&self, request: MergeSlices) -> Done<pb::MergeSlicesReply> {
        let leader = self.shared.ready_leader().await?;
        let MergeSlices {
            target,
            slice_key,
            reason,
        } = request;
        let (version, newest, mut step) =
            self.read(&target, |state| merge_step(state, slice_key))?;
        if let PlanStep::Merge { taken_in: said, .. } = &mut step {
            *said = taken_in(&leader, newest).await?;
        }
        audit(
            "merge slices",
            &format_args!("{target} at {slice_key}"),
            reason.as_deref(),
        );
        self.apply_step(&target, version, step).await?;
        Ok(pb::MergeSlicesReply {})
    }

    /// Refused early by those who cannot make the change, so that callers find the leader.
    pub(super) async fn must_lead(&self) -> Done<()> {
        self.shared.ready_leader().await.map(|_| ())
    }

    /// Eventual mode: refuses to move a slice whose owner still merges what the one before it had,
    /// unless the owner is not heard.
    async fn is_there(
        &self,
        leader: &LeaderHandle,
        target: &TargetName,
        slice: Slice,
        owner: Lease,
    ) -> Done<()> {
        if may_receive(leader, owner.session).await.is_err() {
            return Ok(());
        }
        let known = taken_in(leader, owner).await?;
        match self.read(target, |state| Ok(state.has_taken_in(slice.first(), known)))? {
            true => Ok(()),
            false => Err((&Rejection::NotTakenIn(slice)).into()),
        }
    }

    fn check_ttl(&self, ttl: std::time::Duration) -> Done<()> {
        self.shared
            .config
            .timers
            .check_ttl(ttl)
            .map_err(Refusal::Invalid)
    }

    fn read<T>(&self, target: &TargetName, look: impl FnOnce(&TargetState) -> Done<T>) -> Done<T> {
        look(
            self.shared
                .replica
                .table()
                .target(target)
                .ok_or(Refusal::UnknownTarget)?,
        )
    }

    async fn apply_step(
        &self,
        target: &TargetName,
        config_version: u64,
        step: PlanStep,
    ) -> Done<()> {
        let command = Command::ApplyPlan {
            target: target.clone(),
            config_version,
            steps: vec![step],
        };
        match self.shared.propose(&command).await? {
            Reply::Plan(results) => match results.into_iter().find_map(Result::err) {
                Some(rejection) => Err((&rejection).into()),
                None => Ok(()),
            },
            _ => Err(Refusal::Internal(
                "a plan was answered with something else".into(),
            )),
        }
    }

    /// The handoff just begun; none if it has ended already.
    fn open_handoff(
        &self,
        target: &TargetName,
        slice: Slice,
        to: SessionId,
    ) -> Done<Option<HandoffId>> {
        self.read(target, |state| {
            let handoff = state
                .slice_of(slice.first())
                .and_then(|(_, assigned)| assigned.handoff);
            Ok(handoff
                .filter(|handoff| handoff.to == to)
                .map(|handoff| handoff.id))
        })
    }
}

/// ◆ A slice is given only to a session that was answered in this term and is not suspected, by an
/// operator as by the planner: a handoff to any other stays open, or leaves the slice unserved.
async fn may_receive(leader: &LeaderHandle, session: SessionId) -> Done<()> {
    let (answer, answered) = oneshot::channel();
    let asked = leader
        .inbox
        .send(ToLeader::MayReceive { session, answer })
        .await
        .is_ok();
    match (asked, answered.await) {
        (true, Ok(true)) => Ok(()),
        (true, Ok(false)) => Err(Refusal::Rejected(format!(
            "{session} is not heard of at present; try again when it is, or move the slice elsewhere"
        ))),
        _ => Err(Refusal::NotLeader { leader: None }),
    }
}

/// Up to which view the owner has taken in the state of what it has by this lease or an older one.
async fn taken_in(leader: &LeaderHandle, owner: Lease) -> Done<Option<Generation>> {
    let (answer, answered) = oneshot::channel();
    let asked = ToLeader::TakenIn { owner, answer };
    match (leader.inbox.send(asked).await, answered.await) {
        (Ok(()), Ok(taken_in)) => Ok(taken_in),
        _ => Err(Refusal::NotLeader { leader: None }),
    }
}

fn find(state: &TargetState, which: SliceToMove) -> Done<(Slice, &Assigned)> {
    let key = match which {
        SliceToMove::Exactly(slice) => slice.first(),
        SliceToMove::Holding(key) => key,
    };
    let found = state
        .slice_of(key)
        .ok_or_else(|| Refusal::Internal(format!("no slice holds {key}")))?;
    match which {
        SliceToMove::Exactly(slice) if slice != found.0 => Err(Refusal::Conflict(format!(
            "there is no slice {slice}; the key {key} is in {}",
            found.0
        ))),
        _ => Ok(found),
    }
}

fn receiver(state: &TargetState, to: &MoveTo) -> Done<SessionId> {
    let mut found = state.live_sessions().filter(|session| match to {
        MoveTo::Session(id) => session.id == *id,
        MoveTo::Address(address) => session.squid.address == *address,
    });
    match (found.next(), found.next(), to) {
        (Some(session), None, _) if session.draining => Err(Refusal::Rejected(format!(
            "{} is draining and is given no slices; name another",
            session.id
        ))),
        (Some(session), None, _) => Ok(session.id),
        (Some(_), Some(_), MoveTo::Address(address)) => Err(Refusal::Rejected(format!(
            "several sessions live at {address}; name one"
        ))),
        (None, ..) | (_, _, MoveTo::Session(_)) => Err(Refusal::UnknownSession),
    }
}

/// The step, and the newer lease of the two halves.
fn merge_step(state: &TargetState, key: SliceKey) -> Done<(u64, Lease, PlanStep)> {
    let (left, lower) = find(state, SliceToMove::Holding(key))?;
    let behind = left
        .last()
        .next()
        .ok_or_else(|| Refusal::Invalid(format!("no slice is behind {left}")))?;
    let (right, upper) = find(state, SliceToMove::Holding(behind))?;
    let lease = lower
        .owner
        .ok_or_else(|| Refusal::Rejected(format!("{left} is vacant")))?;
    let owner = lease.session;
    let newest = match upper.owner {
        Some(upper) if upper.session == owner => upper.max(lease),
        other => {
            let other = other.map_or_else(|| "nobody".into(), |lease| lease.session.to_string());
            return Err(Refusal::Rejected(format!(
                "{owner} owns {left} and {other} owns {right}; only slices of one owner are joined: move one first"
            )));
        }
    };
    Ok((
        state.config_version(),
        newest,
        PlanStep::Merge {
            left,
            right,
            owner,
            taken_in: None,
        },
    ))
}
