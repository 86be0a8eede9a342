//! Slicelets among themselves.

use super::codec::{Codec, Id, message};
use super::error::WireError;
use super::pb;
use crate::message::{Ready, ReadyAnswer};

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
