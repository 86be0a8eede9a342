//! Slicelets among themselves.

use bytes::Bytes;

use super::codec::{
    Codec, Enum, Id, Maybe, Name, Needed, Same, Sixteen, at_most, message, wire_enum,
};
use super::error::WireError;
use super::pb;
use crate::id::SessionId;
use crate::limits;
use crate::message::{Ready, ReadyAnswer};
use crate::transfer::{Ack, Frame, Mark, TransferTag};

message!(
    Ready = ReadyRequest {
        handoff: Id,
        from: Id,
        to: Id
    }
);

impl From<&ReadyAnswer> for pb::ReadyReply {
    fn from(noun: &ReadyAnswer) -> Self {
        use pb::ready_reply::Answer;
        let answer = match noun {
            ReadyAnswer::Surrendered(surrender) => Answer::Surrendered(surrender.into()),
            ReadyAnswer::Refused(handoff) => Answer::Refused(Id::put(handoff)),
            ReadyAnswer::NotMine(session) => Answer::NotMine(Id::put(session)),
        };
        Self {
            answer: Some(answer),
        }
    }
}

impl TryFrom<pb::ReadyReply> for ReadyAnswer {
    type Error = WireError;

    fn try_from(wire: pb::ReadyReply) -> Result<Self, WireError> {
        use pb::ready_reply::Answer;
        Ok(
            match wire.answer.ok_or(WireError::missing("ReadyReply.answer"))? {
                Answer::Surrendered(surrender) => ReadyAnswer::Surrendered(surrender.try_into()?),
                Answer::Refused(handoff) => {
                    ReadyAnswer::Refused(Id::take("ReadyReply.refused", handoff)?)
                }
                Answer::NotMine(session) => {
                    ReadyAnswer::NotMine(Id::take("ReadyReply.not_mine", session)?)
                }
            },
        )
    }
}

/// Destination to source: send the state of a slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PullBegin {
    /// Of what.
    pub tag: TransferTag,
    /// The source session.
    pub from: SessionId,
    /// The destination session, which speaks.
    pub to: SessionId,
    /// What was taken in over earlier connections; `None` for a transfer from the beginning.
    pub have: Option<Ack>,
    /// Nothing is to be sent yet: the destination only says that it will come.
    pub waiting: bool,
}

/// Destination to source, in a transfer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PullRequest {
    /// First.
    Begin(PullBegin),
    /// From then on.
    Ack(Ack),
}

wire_enum!(Mark = StateMark { More = More, CaughtUp = CaughtUp, Last = Last });
message!(
    TransferTag = TransferTag {
        target: Name,
        slice: Needed,
        from_epoch: Needed,
        to_epoch: Needed,
        handoff: Id
    }
);
message!(
    Ack = StateAck {
        seq: Same,
        digest: Sixteen
    }
);
message!(
    PullBegin = PullBegin {
        tag: Needed,
        from: Id,
        to: Id,
        have: Maybe,
        waiting: Same
    }
);

/// Refuses samples that are too many or too long.
fn samples(wire: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, WireError> {
    let field = "StateFrame.samples";
    at_most(field, wire.len(), limits::STATE_SAMPLES, "items")?;
    for sample in &wire {
        at_most(field, sample.len(), limits::STATE_SAMPLE_BYTES, "bytes")?;
    }
    Ok(wire)
}

impl From<&PullRequest> for pb::PullRequest {
    fn from(noun: &PullRequest) -> Self {
        use pb::pull_request::Message;
        let message = match noun {
            PullRequest::Begin(begin) => Message::Begin(begin.into()),
            PullRequest::Ack(ack) => Message::Ack(ack.into()),
        };
        Self {
            message: Some(message),
        }
    }
}

impl TryFrom<pb::PullRequest> for PullRequest {
    type Error = WireError;

    fn try_from(wire: pb::PullRequest) -> Result<Self, WireError> {
        use pb::pull_request::Message;
        Ok(
            match wire
                .message
                .ok_or(WireError::missing("PullRequest.message"))?
            {
                Message::Begin(begin) => PullRequest::Begin(begin.try_into()?),
                Message::Ack(ack) => PullRequest::Ack(ack.try_into()?),
            },
        )
    }
}

/// By value: the records are not copied.
impl From<Frame<Bytes>> for pb::StateFrame {
    fn from(noun: Frame<Bytes>) -> Self {
        Self {
            tag: Some((&noun.tag).into()),
            seq: noun.seq,
            mark: Enum::put(&noun.mark),
            records: noun.records,
            checksum: noun.checksum,
            digest: Sixteen::put(&noun.digest),
            samples: noun.samples,
            urgent: noun.urgent,
        }
    }
}

impl TryFrom<pb::StateFrame> for Frame<Bytes> {
    type Error = WireError;

    fn try_from(wire: pb::StateFrame) -> Result<Self, WireError> {
        at_most(
            "StateFrame.records",
            wire.records.len(),
            limits::STATE_FRAME_BYTES,
            "bytes",
        )?;
        Ok(Self {
            tag: Needed::take("StateFrame.tag", wire.tag)?,
            seq: wire.seq,
            mark: Enum::take("StateFrame.mark", wire.mark)?,
            records: wire.records,
            checksum: wire.checksum,
            digest: Sixteen::take("StateFrame.digest", wire.digest)?,
            samples: samples(wire.samples)?,
            urgent: wire.urgent,
        })
    }
}
