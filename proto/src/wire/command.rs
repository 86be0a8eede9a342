//! Commands in the replicated log and what they are answered.

use super::codec::{
    Codec, Enum, Id, Ids, Key, Life, List, Maybe, Name, Nanos, Needed, Same, Sixteen, Text, Ttl,
};
use super::codec::{message, one_of};
use super::error::WireError;
use super::pb;
use crate::command::{Command, EndWord, PlanStep, Registered, Reply};
use crate::error::Rejection;
use crate::id::SessionId;
use crate::key::SliceKey;
use crate::limits;

one_of!(Command = Command.command: command::Command {
    CreateTarget(CreateTargetCommand) { target: Name, config: Needed, initial_slices: Same },
    UpdateTarget(UpdateTargetCommand) { target: Name, expected_version: Same, change: Needed },
    DeleteTarget(DeleteTargetCommand) { target: Name, expected_version: Same },
    RegisterSession(RegisterSessionCommand) {
        target: Name, squid: Needed, clock: Enum, secret: Needed, app_version: Text<{ limits::APP_VERSION_BYTES }>,
    },
    CloseSession(CloseSessionCommand) { target: Name, session: Id, proof: Enum },
    ExpireSession(ExpireSessionCommand) {
        target: Name, session: Id, term: Same, successors: List<{ limits::SUCCESSORS }>,
    },
    DrainSession(DrainSessionCommand) { target: Name, session: Id },
    ApplyPlan(ApplyPlanCommand) { target: Name, config_version: Same, steps: List<{ limits::PLAN_STEPS }> },
    CompleteHandoff(CompleteHandoffCommand) { target: Name, handoff: Id, word: Needed, digest: Sixteen },
    CancelHandoff(CancelHandoffCommand) { target: Name, handoff: Id, refused_by: Id },
    AskCancel(AskCancelCommand) { target: Name, handoff: Id },
    AckArming(AckArmingCommand) { target: Name, session: Id, arming: Needed },
    ForgetGhost(ForgetGhostCommand) { target: Name, session: Id, reason: Text<{ limits::TEXT_BYTES }> },
    Restore(RestoreCommand) { incarnation: Life, max_ttl_nanos = max_ttl: Nanos },
    EndRestoreWait(EndRestoreWaitCommand) { term: Same },
});

one_of!(PlanStep = PlanStep.step: plan_step::Step {
    Grant(GrantStep) { slice: Needed, to: Id },
    BeginHandoff(BeginHandoffStep) { slice: Needed, from: Needed, to: Id },
    Reassign(ReassignStep) { slice: Needed, from: Maybe, to: Id },
    Split(SplitStep) { slice: Needed, owner: Maybe, at: Key },
    Merge(MergeStep) { left: Needed, right: Needed, owner: Id, taken_in: Maybe },
    SetReplicas(SetReplicasStep) { slice: Needed, owner: Needed, replicas: Ids<{ limits::REPLICAS_PER_SLICE }> },
});

message!(Registered = Registered { session: Id, secret: Needed, ttl_nanos = ttl: Ttl, not_before: Needed });

impl From<&(SliceKey, SessionId)> for pb::Successor {
    fn from((first, session): &(SliceKey, SessionId)) -> Self {
        Self {
            first: first.as_u64(),
            session: session.as_u64(),
        }
    }
}

impl TryFrom<pb::Successor> for (SliceKey, SessionId) {
    type Error = WireError;

    fn try_from(wire: pb::Successor) -> Result<Self, WireError> {
        Ok((
            SliceKey::from_u64(wire.first),
            Id::take("Successor.session", wire.session)?,
        ))
    }
}

impl From<&EndWord> for pb::complete_handoff_command::Word {
    fn from(noun: &EndWord) -> Self {
        match noun {
            EndWord::Surrendered(session) => Self::Surrendered(Id::put(session)),
            EndWord::Accepted(session) => Self::Accepted(Id::put(session)),
        }
    }
}

impl TryFrom<pb::complete_handoff_command::Word> for EndWord {
    type Error = WireError;

    fn try_from(wire: pb::complete_handoff_command::Word) -> Result<Self, WireError> {
        use pb::complete_handoff_command::Word;
        Ok(match wire {
            Word::Surrendered(session) => {
                EndWord::Surrendered(Id::take("CompleteHandoffCommand.surrendered", session)?)
            }
            Word::Accepted(session) => {
                EndWord::Accepted(Id::take("CompleteHandoffCommand.accepted", session)?)
            }
        })
    }
}

impl From<&Reply> for pb::Reply {
    fn from(noun: &Reply) -> Self {
        use pb::reply::Reply as Wire;
        let reply = match noun {
            Reply::Done => Wire::Done(pb::Done {}),
            Reply::Registered(registered) => Wire::Registered(registered.into()),
            Reply::Plan(steps) => {
                let steps = steps.iter().map(|step| pb::StepReply {
                    rejected: step.as_ref().err().map(Into::into),
                });
                Wire::Plan(pb::PlanReply {
                    steps: steps.collect(),
                })
            }
            Reply::Rejected(rejection) => Wire::Rejected(rejection.into()),
        };
        Self { reply: Some(reply) }
    }
}

impl TryFrom<pb::Reply> for Reply {
    type Error = WireError;

    fn try_from(wire: pb::Reply) -> Result<Self, WireError> {
        use pb::reply::Reply as Wire;
        Ok(match wire.reply.ok_or(WireError::missing("Reply.reply"))? {
            Wire::Done(pb::Done {}) => Reply::Done,
            Wire::Registered(registered) => Reply::Registered(registered.try_into()?),
            Wire::Plan(plan) => {
                super::codec::at_most(
                    "PlanReply.steps",
                    plan.steps.len(),
                    limits::PLAN_STEPS,
                    "items",
                )?;
                let step = |step: pb::StepReply| {
                    let rejected: Option<Rejection> =
                        step.rejected.map(TryInto::try_into).transpose()?;
                    Ok(rejected.map_or(Ok(()), Err))
                };
                Reply::Plan(
                    plan.steps
                        .into_iter()
                        .map(step)
                        .collect::<Result<_, WireError>>()?,
                )
            }
            Wire::Rejected(rejection) => Reply::Rejected(rejection.try_into()?),
        })
    }
}
