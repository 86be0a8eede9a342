//! Small nouns: ids, ranges, leases, words, redirects.

use super::codec::{
    Address, Codec, Enum, Id, Ids, Maybe, Needed, Same, Sixteen, message, sixteen, wire_enum,
};
use super::error::WireError;
use super::pb;
use crate::clock::ClockClass;
use crate::command::{CloseProof, Digest};
use crate::id::{Epoch, Generation, HandoffId, LogId, SessionId};
use crate::key::{KeyHash, SliceKey};
use crate::limits;
use crate::message::{Moved, Surrender, Word};
use crate::slice::Slice;
use crate::table::SessionPhase;
use crate::target::{Consistency, Mode, OnLapse, PodAddress, SessionSecret, Squid};
use crate::view::{Assigned, Handoff, Lease, Provider};

wire_enum!(ClockClass = ClockClass { Raw = Raw, Slewed = Slewed });
wire_enum!(KeyHash = KeyHash { Xxh3 = Xxh3, FarmHash64 = Farmhash64, Identity = Identity });
wire_enum!(Consistency = Consistency { Strong = Strong, Eventual = Eventual });
wire_enum!(OnLapse = OnLapse { Stop = Stop, ServeFenced = ServeFenced });
wire_enum!(CloseProof = CloseProof { OwnWord = OwnWord, Reaped = Reaped });
wire_enum!(SessionPhase = SessionPhase { Live = Live, Ghost = Ghost, Leaving = Leaving });

message!(
    LogId = LogId {
        term: Same,
        index: Same
    }
);
message!(
    Lease = Lease {
        session: Id,
        epoch: Needed
    }
);
message!(
    Handoff = Handoff {
        id: Id,
        to: Id,
        epoch: Needed,
        ask_cancel: Same,
        to_closed: Same
    }
);
message!(
    Provider = Provider {
        lease: Needed,
        digest: Sixteen
    }
);
message!(Assigned = Assigned {
    owner: Maybe,
    handoff: Maybe,
    replicas: Ids<{ limits::REPLICAS_PER_SLICE }>,
    provider: Maybe
});
message!(
    Squid = Squid {
        address: Address,
        id: Sixteen
    }
);
message!(
    Surrender = Surrender {
        handoff: Id,
        from: Id,
        to: Id,
        digest: Sixteen
    }
);
message!(
    Moved = Moved {
        slice: Needed,
        handoff: Id,
        session: Id,
        address: Address,
        epoch: Needed,
        generation: Needed,
    }
);

impl From<&Generation> for pb::Generation {
    fn from(noun: &Generation) -> Self {
        Self {
            incarnation: u32::from(noun.incarnation().get()),
            number: noun.number(),
        }
    }
}

impl TryFrom<pb::Generation> for Generation {
    type Error = WireError;

    fn try_from(wire: pb::Generation) -> Result<Self, WireError> {
        let pb::Generation {
            incarnation,
            number,
        } = wire;
        Generation::decode(incarnation, number)
            .ok_or_else(|| WireError::invalid("Generation", format_args!("{incarnation}#{number}")))
    }
}

impl From<&Epoch> for pb::Epoch {
    fn from(noun: &Epoch) -> Self {
        let generation = noun.generation();
        Self {
            incarnation: u32::from(generation.incarnation().get()),
            number: generation.number(),
        }
    }
}

impl TryFrom<pb::Epoch> for Epoch {
    type Error = WireError;

    fn try_from(wire: pb::Epoch) -> Result<Self, WireError> {
        let pb::Epoch {
            incarnation,
            number,
        } = wire;
        Epoch::decode(incarnation, number)
            .ok_or_else(|| WireError::invalid("Epoch", format_args!("{incarnation}#{number}")))
    }
}

impl From<&Slice> for pb::SliceRange {
    fn from(noun: &Slice) -> Self {
        Self {
            first: noun.first().as_u64(),
            last: noun.last().as_u64(),
        }
    }
}

impl TryFrom<pb::SliceRange> for Slice {
    type Error = WireError;

    fn try_from(wire: pb::SliceRange) -> Result<Self, WireError> {
        Slice::new(
            SliceKey::from_u64(wire.first),
            SliceKey::from_u64(wire.last),
        )
        .ok_or_else(|| WireError::invalid("SliceRange", "it ends before it begins"))
    }
}

impl From<&SessionSecret> for pb::SessionSecret {
    fn from(noun: &SessionSecret) -> Self {
        Self {
            value: noun.as_bytes().to_vec(),
        }
    }
}

impl TryFrom<pb::SessionSecret> for SessionSecret {
    type Error = WireError;

    fn try_from(wire: pb::SessionSecret) -> Result<Self, WireError> {
        sixteen("SessionSecret.value", &wire.value).map(SessionSecret::from_bytes)
    }
}

impl From<&(Slice, Assigned)> for pb::SliceEntry {
    fn from((slice, assigned): &(Slice, Assigned)) -> Self {
        Self {
            slice: Some(slice.into()),
            assigned: Some(assigned.into()),
        }
    }
}

impl TryFrom<pb::SliceEntry> for (Slice, Assigned) {
    type Error = WireError;

    fn try_from(wire: pb::SliceEntry) -> Result<Self, WireError> {
        Ok((
            Needed::take("SliceEntry.slice", wire.slice)?,
            Needed::take("SliceEntry.assigned", wire.assigned)?,
        ))
    }
}

impl From<&(SessionId, PodAddress)> for pb::PodEntry {
    fn from((session, address): &(SessionId, PodAddress)) -> Self {
        Self {
            session: session.as_u64(),
            address: Address::put(address),
        }
    }
}

impl TryFrom<pb::PodEntry> for (SessionId, PodAddress) {
    type Error = WireError;

    fn try_from(wire: pb::PodEntry) -> Result<Self, WireError> {
        Ok((
            Id::take("PodEntry.session", wire.session)?,
            Address::take("PodEntry.address", wire.address)?,
        ))
    }
}

impl From<&Mode> for pb::Mode {
    fn from(noun: &Mode) -> Self {
        let (kind, arming) = match noun {
            Mode::Strong => (pb::ModeKind::Strong, None),
            Mode::Eventual => (pb::ModeKind::Eventual, None),
            Mode::Arming(generation) => (pb::ModeKind::Arming, Some(generation.into())),
        };
        Self {
            kind: kind as i32,
            arming,
        }
    }
}

impl TryFrom<pb::Mode> for Mode {
    type Error = WireError;

    fn try_from(wire: pb::Mode) -> Result<Self, WireError> {
        let kind = match pb::ModeKind::try_from(wire.kind) {
            Ok(pb::ModeKind::Unspecified) => return Err(WireError::missing("Mode.kind")),
            Err(_) => return Err(WireError::unknown("Mode.kind", wire.kind)),
            Ok(kind) => kind,
        };
        match (kind, wire.arming) {
            (pb::ModeKind::Arming, arming) => Needed::take("Mode.arming", arming).map(Mode::Arming),
            (_, Some(_)) => Err(WireError::invalid(
                "Mode.arming",
                "it is there in a mode that is not arming",
            )),
            (pb::ModeKind::Eventual, None) => Ok(Mode::Eventual),
            (_, None) => Ok(Mode::Strong),
        }
    }
}

impl From<&Word> for pb::Word {
    fn from(noun: &Word) -> Self {
        let (kind, digest) = match noun {
            Word::Surrendered(_, digest) => (pb::WordKind::Surrendered, digest.0.to_vec()),
            Word::Refused(_) => (pb::WordKind::Refused, Vec::new()),
            Word::Accepted(_) => (pb::WordKind::Accepted, Vec::new()),
        };
        Self {
            handoff: noun.handoff().as_u64(),
            kind: kind as i32,
            digest,
        }
    }
}

impl TryFrom<pb::Word> for Word {
    type Error = WireError;

    fn try_from(wire: pb::Word) -> Result<Self, WireError> {
        let handoff: HandoffId = Id::take("Word.handoff", wire.handoff)?;
        let word = match pb::WordKind::try_from(wire.kind) {
            Ok(pb::WordKind::Surrendered) => {
                return Ok(Word::Surrendered(
                    handoff,
                    Digest(sixteen("Word.digest", &wire.digest)?),
                ));
            }
            Ok(pb::WordKind::Refused) => Word::Refused(handoff),
            Ok(pb::WordKind::Accepted) => Word::Accepted(handoff),
            Ok(pb::WordKind::Unspecified) => return Err(WireError::missing("Word.kind")),
            Err(_) => return Err(WireError::unknown("Word.kind", wire.kind)),
        };
        if wire.digest.is_empty() {
            Ok(word)
        } else {
            Err(WireError::invalid(
                "Word.digest",
                "only a surrender has one",
            ))
        }
    }
}

/// Why a pod cannot serve a key that may be its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum UnavailableReason {
    /// Its lease has run out and is not renewed yet.
    Lapsed,
    /// The slice is being handed over and the wait was given up.
    HandingOver,
    /// It has no view yet.
    Starting,
    /// It is shutting down.
    Stopping,
    /// Ownership was lost while the request was served: what became of it is not known.
    Interrupted,
}

wire_enum!(UnavailableReason = UnavailableReason {
    Lapsed = Lapsed, HandingOver = HandingOver, Starting = Starting, Stopping = Stopping, Interrupted = Interrupted,
});

/// What a pod answers an application request that it does not serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Redirect {
    /// The slice is elsewhere since a handoff: go there.
    Moved(Moved),
    /// Not this pod's: look the key up again, in a map at least as new.
    NotOwner {
        /// The pod's view, if it has one.
        generation: Option<Generation>,
    },
    /// Perhaps this pod's, but not now.
    Unavailable(UnavailableReason),
}

impl From<&Redirect> for pb::Redirect {
    fn from(noun: &Redirect) -> Self {
        use pb::redirect::Redirect as Wire;
        let redirect = match noun {
            Redirect::Moved(moved) => Wire::Moved(moved.into()),
            Redirect::NotOwner { generation } => Wire::NotOwner(pb::NotOwner {
                generation: Maybe::put(generation),
            }),
            Redirect::Unavailable(reason) => Wire::Unavailable(Enum::put(reason)),
        };
        Self {
            redirect: Some(redirect),
        }
    }
}

impl TryFrom<pb::Redirect> for Redirect {
    type Error = WireError;

    fn try_from(wire: pb::Redirect) -> Result<Self, WireError> {
        use pb::redirect::Redirect as Wire;
        Ok(
            match wire
                .redirect
                .ok_or(WireError::missing("Redirect.redirect"))?
            {
                Wire::Moved(moved) => Redirect::Moved(moved.try_into()?),
                Wire::NotOwner(wire) => Redirect::NotOwner {
                    generation: Maybe::take("NotOwner.generation", wire.generation)?,
                },
                Wire::Unavailable(reason) => {
                    Redirect::Unavailable(Enum::take("Redirect.unavailable", reason)?)
                }
            },
        )
    }
}
