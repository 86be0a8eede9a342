//! Slicelets and the Assigner's leader: registration and the messages of a session stream.

use std::time::Duration;

use bytes::Bytes;

use super::codec::{
    Address, Codec, Deadline, Enum, Id, Key, List, Load, Maybe, Name, Needed, Same, Text, Ttl,
    at_most,
};
use super::codec::{message, nanos, wire_enum};
use super::error::WireError;
use super::{decode_view_update, encode_view_update, pb};
use crate::clock::ClockClass;
use crate::id::{Generation, SessionId};
use crate::key::{KeyHash, SliceKey};
use crate::limits;
use crate::message::{Renew, Renewed};
use crate::slice::Slice;
use crate::target::{OnLapse, PodAddress, SessionSecret, Squid, TargetName};
use crate::view::ViewUpdate;

/// Asks for a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegisterRequest {
    /// Of which target.
    pub target: TargetName,
    /// Whose.
    pub squid: Squid,
    /// How the process measures time.
    pub clock: ClockClass,
    /// The application's version, or empty.
    pub app_version: String,
}

/// The session, new or found, and the settings that hold for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegisterReply {
    /// Its number.
    pub session: SessionId,
    /// What its messages are introduced with.
    pub secret: SessionSecret,
    /// Its time to live.
    pub ttl: Duration,
    /// No older view may be applied.
    pub not_before: Generation,
    /// How keys become slice keys.
    pub key_hash: KeyHash,
    /// What to do when the lease has run out.
    pub on_lapse: OnLapse,
    /// How long the source of a handoff waits.
    pub handoff_deadline: Duration,
}

/// Ends a session by its own word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloseRequest {
    /// Of which target.
    pub target: TargetName,
    /// Which session.
    pub session: SessionId,
    /// As registration gave it.
    pub secret: SessionSecret,
}

/// Announces that a session is about to leave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrainRequest {
    /// Of which target.
    pub target: TargetName,
    /// Which session.
    pub session: SessionId,
    /// As registration gave it.
    pub secret: SessionSecret,
}

/// Attaches a session to a stream: its later messages there need no secret again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Which session.
    pub session: SessionId,
    /// As registration gave it.
    pub secret: SessionSecret,
    /// Of which target.
    pub target: TargetName,
}

/// How much the slices of one session are used.
#[derive(Clone, PartialEq, Debug)]
pub struct LoadReport {
    /// Which session.
    pub session: SessionId,
    /// Slices with load.
    pub loads: Vec<SliceLoad>,
}

/// How much one slice is used.
#[derive(Clone, PartialEq, Debug)]
pub struct SliceLoad {
    /// The slice as the session knows it.
    pub slice: Slice,
    /// In the application's unit; finite, not negative.
    pub load_per_s: f64,
    /// State held for the slice; 0 when not known.
    pub state_bytes: u64,
    /// The most used keys, most used first.
    pub hot_keys: Vec<KeyLoad>,
}

/// How much one key is used.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct KeyLoad {
    /// The slice key.
    pub key: SliceKey,
    /// In the application's unit; finite, not negative.
    pub load_per_s: f64,
}

/// Slicelet to leader.
#[derive(Clone, PartialEq, Debug)]
pub enum SliceletMessage {
    /// Introduces a session to the stream.
    Hello(Hello),
    /// Extend my lease.
    Renew(Renew),
    /// How much each slice is used.
    Load(LoadReport),
}

/// Leader to Slicelet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AssignerMessage {
    /// The lease is extended.
    Renewed(Renewed),
    /// A newer view; extends no lease.
    Pushed {
        /// Whose.
        session: SessionId,
        /// The view.
        update: ViewUpdate,
    },
    /// The session has ended, never to be revived.
    Closed {
        /// Which.
        session: SessionId,
        /// Why.
        reason: ClosedReason,
    },
    /// A message of the session is not served here or now. Ends no session.
    Refused {
        /// Which; `None` when the whole stream is meant.
        session: Option<SessionId>,
        /// Why.
        reason: RefusedReason,
        /// Where the leader is, if known.
        leader: Option<PodAddress>,
    },
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ClosedReason {
    /// It was not renewed in time.
    Expired,
    /// By its own word or by proof of its process's death.
    Closed,
    /// Its target was deleted.
    TargetDeleted,
    /// The cluster was restored.
    Restored,
    /// It is not known, or no longer.
    Unknown,
}

/// Why a message of a session is not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum RefusedReason {
    /// This Assigner does not lead.
    NotLeader,
    /// The secret does not match the session.
    BadSecret,
    /// The session was not introduced on this stream.
    NotAttached,
    /// The session was attached to a newer stream.
    Superseded,
    /// Too much waits here; try again later.
    Overload,
    /// The session knows a generation of a higher incarnation: nothing is granted.
    HigherIncarnation,
    /// The message is outside its bounds.
    Invalid,
}

wire_enum!(ClosedReason = ClosedReason {
    Expired = Expired, Closed = Closed, TargetDeleted = TargetDeleted, Restored = Restored, Unknown = Unknown,
});
wire_enum!(RefusedReason = RefusedReason {
    NotLeader = NotLeader, BadSecret = BadSecret, NotAttached = NotAttached, Superseded = Superseded,
    Overload = Overload, HigherIncarnation = HigherIncarnation, Invalid = Invalid,
});

message!(RegisterRequest = RegisterRequest {
    target: Name, squid: Needed, clock: Enum, app_version: Text<{ limits::APP_VERSION_BYTES }>,
});
message!(RegisterReply = RegisterReply {
    session: Id, secret: Needed, ttl_nanos = ttl: Ttl, not_before: Needed, key_hash: Enum, on_lapse: Enum,
    handoff_deadline_nanos = handoff_deadline: Deadline,
});
message!(
    CloseRequest = CloseRequest {
        target: Name,
        session: Id,
        secret: Needed
    }
);
message!(
    DrainRequest = DrainRequest {
        target: Name,
        session: Id,
        secret: Needed
    }
);
message!(
    Hello = Hello {
        session: Id,
        secret: Needed,
        target: Name
    }
);
message!(Renew = Renew {
    session: Id, seq: Same, known: Maybe, words: List<{ limits::WORDS_PER_RENEWAL }>, armed: Maybe,
    merging: Maybe,
});
message!(
    KeyLoad = KeyLoad {
        key: Key,
        load_per_s: Load
    }
);
message!(SliceLoad = SliceLoad {
    slice: Needed, load_per_s: Load, state_bytes: Same, hot_keys: List<{ limits::HOT_KEYS_PER_SLICE }>,
});
message!(LoadReport = LoadReport { session: Id, loads: List<{ limits::LOADS_PER_REPORT }> });
message!(Renewed = Renewed { session: Id, seq: Same, ttl_nanos = ttl: Ttl, view_update = update: Update });

/// A serialised update; empty for none.
pub(super) struct Update;

impl Codec<Option<ViewUpdate>, Bytes> for Update {
    fn put(noun: &Option<ViewUpdate>) -> Bytes {
        noun.as_ref().map(encode_view_update).unwrap_or_default()
    }

    fn take(_: &'static str, wire: Bytes) -> Result<Option<ViewUpdate>, WireError> {
        if wire.is_empty() {
            Ok(None)
        } else {
            decode_view_update(&wire).map(Some)
        }
    }
}

impl From<&SliceletMessage> for pb::SliceletMessage {
    fn from(noun: &SliceletMessage) -> Self {
        use pb::slicelet_message::Message as Wire;
        let message = match noun {
            SliceletMessage::Hello(hello) => Wire::Hello(hello.into()),
            SliceletMessage::Renew(renew) => Wire::Renew(renew.into()),
            SliceletMessage::Load(report) => Wire::Load(report.into()),
        };
        Self {
            message: Some(message),
        }
    }
}

impl TryFrom<pb::SliceletMessage> for SliceletMessage {
    type Error = WireError;

    fn try_from(wire: pb::SliceletMessage) -> Result<Self, WireError> {
        use pb::slicelet_message::Message as Wire;
        Ok(
            match wire
                .message
                .ok_or(WireError::missing("SliceletMessage.message"))?
            {
                Wire::Hello(hello) => SliceletMessage::Hello(hello.try_into()?),
                Wire::Renew(renew) => SliceletMessage::Renew(renew.try_into()?),
                Wire::Load(report) => SliceletMessage::Load(report.try_into()?),
            },
        )
    }
}

/// A [`Renewed`] whose update was serialised before (or is empty), ready to be sent.
pub fn renewed_message(
    session: SessionId,
    seq: u64,
    ttl: Duration,
    view_update: Bytes,
) -> pb::AssignerMessage {
    let renewed = pb::Renewed {
        session: session.as_u64(),
        seq,
        ttl_nanos: nanos(ttl),
        view_update,
    };
    pb::AssignerMessage {
        message: Some(pb::assigner_message::Message::Renewed(renewed)),
    }
}

/// A pushed view that was serialised before, ready to be sent.
pub fn pushed_message(session: SessionId, view_update: Bytes) -> pb::AssignerMessage {
    let pushed = pb::Pushed {
        session: session.as_u64(),
        view_update,
    };
    pb::AssignerMessage {
        message: Some(pb::assigner_message::Message::Pushed(pushed)),
    }
}

impl From<&AssignerMessage> for pb::AssignerMessage {
    fn from(noun: &AssignerMessage) -> Self {
        use pb::assigner_message::Message as Wire;
        let message = match noun {
            AssignerMessage::Renewed(renewed) => Wire::Renewed(renewed.into()),
            AssignerMessage::Pushed { session, update } => {
                return pushed_message(*session, encode_view_update(update));
            }
            AssignerMessage::Closed { session, reason } => Wire::Closed(pb::Closed {
                session: Id::put(session),
                reason: Enum::put(reason),
            }),
            AssignerMessage::Refused {
                session,
                reason,
                leader,
            } => Wire::Refused(pb::Refused {
                session: session.map_or(0, |session| session.as_u64()),
                reason: Enum::put(reason),
                leader: leader.as_ref().map(Address::put).unwrap_or_default(),
            }),
        };
        Self {
            message: Some(message),
        }
    }
}

impl TryFrom<pb::AssignerMessage> for AssignerMessage {
    type Error = WireError;

    fn try_from(wire: pb::AssignerMessage) -> Result<Self, WireError> {
        use pb::assigner_message::Message as Wire;
        Ok(
            match wire
                .message
                .ok_or(WireError::missing("AssignerMessage.message"))?
            {
                Wire::Renewed(renewed) => AssignerMessage::Renewed(renewed.try_into()?),
                Wire::Pushed(pushed) => AssignerMessage::Pushed {
                    session: Id::take("Pushed.session", pushed.session)?,
                    update: decode_view_update(&pushed.view_update)?,
                },
                Wire::Closed(closed) => AssignerMessage::Closed {
                    session: Id::take("Closed.session", closed.session)?,
                    reason: Enum::take("Closed.reason", closed.reason)?,
                },
                Wire::Refused(refused) => AssignerMessage::Refused {
                    session: (refused.session != 0).then(|| SessionId::from_u64(refused.session)),
                    reason: Enum::take("Refused.reason", refused.reason)?,
                    leader: optional_address("Refused.leader", refused.leader)?,
                },
            },
        )
    }
}

fn optional_address(field: &'static str, text: String) -> Result<Option<PodAddress>, WireError> {
    at_most(field, text.len(), limits::POD_ADDRESS_BYTES, "bytes")?;
    if text.is_empty() {
        Ok(None)
    } else {
        Address::take(field, text).map(Some)
    }
}
