//! What operators ask: the requests of the command line, checked.
//!
//! Answers with content stand in [`listing`](super::listing); the others are empty messages.

use super::codec::{Address, Codec, Id, Key, Name, Needed, Same, Text, message};
use super::error::{Problem, WireError};
use super::pb;
use crate::id::{HandoffId, SessionId};
use crate::key::SliceKey;
use crate::limits;
use crate::slice::Slice;
use crate::target::{PodAddress, TargetChange, TargetConfig, TargetName};

type Reason = Text<{ limits::TEXT_BYTES }>;

/// Creates a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateTarget {
    /// Its name.
    pub target: TargetName,
    /// Its configuration.
    pub config: TargetConfig,
    /// How many slices it begins with.
    pub initial_slices: u32,
    /// For the audit.
    pub reason: Option<String>,
}

/// Changes a target's configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpdateTarget {
    /// Its name.
    pub target: TargetName,
    /// Refuse unless the configuration is at this version.
    pub expected_version: Option<u64>,
    /// What changes.
    pub change: TargetChange,
    /// For the audit.
    pub reason: Option<String>,
}

/// Deletes a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteTarget {
    /// Its name.
    pub target: TargetName,
    /// Refuse unless the configuration is at this version.
    pub expected_version: Option<u64>,
    /// For the audit.
    pub reason: Option<String>,
}

/// Asks for one target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GetTarget {
    /// Its name.
    pub target: TargetName,
    /// Only what a quorum confirms to be the newest, which only the leader can tell; else what the
    /// node has applied.
    pub linearizable: bool,
}

/// Asks for a page of slices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListSlices {
    /// Of which target.
    pub target: TargetName,
    /// Begin with the slice that holds this key.
    pub from_key: SliceKey,
    /// Most slices to return; 0 for as many as a page may have.
    pub limit: u32,
    /// Only slices that this session owns or is to own.
    pub session: Option<SessionId>,
    /// Only slices with an open handoff.
    pub with_handoff: bool,
    /// Only vacant slices.
    pub vacant: bool,
}

/// Asks for a page of sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListSessions {
    /// Of which target.
    pub target: TargetName,
    /// Begin behind this session.
    pub after: Option<SessionId>,
    /// Most sessions to return; 0 for as many as a page may have.
    pub limit: u32,
}

/// Asks for a page of open handoffs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListHandoffs {
    /// Of which target.
    pub target: TargetName,
    /// Begin behind this handoff.
    pub after: Option<HandoffId>,
    /// Most handoffs to return; 0 for as many as a page may have.
    pub limit: u32,
}

/// Asks who serves a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LookupKey {
    /// Of which target.
    pub target: TargetName,
    /// Which key.
    pub key: KeyToLookUp,
}

/// A key as the operator has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyToLookUp {
    /// As the application has it; hashed as the target is configured.
    Application(Vec<u8>),
    /// Hashed already.
    Hashed(SliceKey),
}

/// The operator's word that the process behind a ghost is dead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForgetGhost {
    /// Of which target.
    pub target: TargetName,
    /// Which ghost; `None` for all, counted or not.
    pub session: Option<SessionId>,
    /// How the operator knows, for the audit; not empty.
    pub reason: String,
}

/// Hands a slice to another session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MoveSlice {
    /// Of which target.
    pub target: TargetName,
    /// Which slice.
    pub which: SliceToMove,
    /// To whom.
    pub to: MoveTo,
    /// For the audit.
    pub reason: Option<String>,
}

/// How an operator names a slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SliceToMove {
    /// Exactly this one.
    Exactly(Slice),
    /// The one that holds this key.
    Holding(SliceKey),
}

/// How an operator names a destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MoveTo {
    /// This session.
    Session(SessionId),
    /// The live session at this address.
    Address(PodAddress),
}

/// Cuts a slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SplitSlice {
    /// Of which target.
    pub target: TargetName,
    /// First key of the upper half; the slice that holds it is cut.
    pub at: SliceKey,
    /// For the audit.
    pub reason: Option<String>,
}

/// Joins a slice and the one behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MergeSlices {
    /// Of which target.
    pub target: TargetName,
    /// A key in the lower slice.
    pub slice_key: SliceKey,
    /// For the audit.
    pub reason: Option<String>,
}

/// Asks the source of a handoff to refuse it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CancelHandoff {
    /// Of which target.
    pub target: TargetName,
    /// Which handoff.
    pub handoff: HandoffId,
    /// For the audit.
    pub reason: Option<String>,
}

/// Moves the slices of a session away and gives it none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrainSession {
    /// Of which target.
    pub target: TargetName,
    /// Which session.
    pub session: SessionId,
    /// For the audit.
    pub reason: Option<String>,
}

/// The word of one who has reaped the session's process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloseSession {
    /// Of which target.
    pub target: TargetName,
    /// Which session.
    pub session: SessionId,
    /// How it is known, for the audit; not empty.
    pub reason: String,
}

/// Adds an Assigner as a learner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddMember {
    /// Its node id, not 0.
    pub node: u64,
    /// Where its peers reach it.
    pub peer_address: PodAddress,
    /// Where Slicelets, Clerks and operators reach it.
    pub service_address: PodAddress,
    /// For the audit.
    pub reason: Option<String>,
}

/// Makes a learner a voter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PromoteMember {
    /// Its node id.
    pub node: u64,
    /// For the audit.
    pub reason: Option<String>,
}

/// Removes an Assigner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoveMember {
    /// Its node id.
    pub node: u64,
    /// For the audit.
    pub reason: Option<String>,
}

/// Asks another voter to lead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransferLeader {
    /// Its node id.
    pub node: u64,
    /// For the audit.
    pub reason: Option<String>,
}

message!(
    CreateTarget = CreateTargetRequest {
        target: Name,
        config: Needed,
        initial_slices: Cuts,
        reason: Reason
    }
);
message!(
    UpdateTarget = UpdateTargetRequest {
        target: Name,
        expected_version: Same,
        change: Needed,
        reason: Reason
    }
);
message!(
    DeleteTarget = DeleteTargetRequest {
        target: Name,
        expected_version: Same,
        reason: Reason
    }
);
message!(
    GetTarget = GetTargetRequest {
        target: Name,
        linearizable: Same
    }
);
message!(
    ListSlices = ListSlicesRequest {
        target: Name,
        from_key: Key,
        limit: Page,
        session: Id,
        with_handoff: Same,
        vacant: Same,
    }
);
message!(
    ListSessions = ListSessionsRequest {
        target: Name,
        after: Id,
        limit: Page
    }
);
message!(
    ListHandoffs = ListHandoffsRequest {
        target: Name,
        after: Id,
        limit: Page
    }
);
message!(
    LookupKey = LookupKeyRequest {
        target: Name,
        key: Needed
    }
);
message!(
    ForgetGhost = ForgetGhostRequest {
        target: Name,
        session: Id,
        reason: Audit
    }
);
message!(
    MoveSlice = MoveSliceRequest {
        target: Name,
        which: Needed,
        to: Needed,
        reason: Reason
    }
);
message!(
    SplitSlice = SplitSliceRequest {
        target: Name,
        at: Key,
        reason: Reason
    }
);
message!(
    MergeSlices = MergeSlicesRequest {
        target: Name,
        slice_key: Key,
        reason: Reason
    }
);
message!(
    CancelHandoff = CancelHandoffRequest {
        target: Name,
        handoff: Id,
        reason: Reason
    }
);
message!(
    DrainSession = DrainSessionRequest {
        target: Name,
        session: Id,
        reason: Reason
    }
);
message!(
    CloseSession = CloseSessionRequest {
        target: Name,
        session: Id,
        reason: Audit
    }
);
message!(
    AddMember = AddMemberRequest {
        node: Node,
        peer_address: Address,
        service_address: Address,
        reason: Reason
    }
);
message!(
    PromoteMember = PromoteMemberRequest {
        node: Node,
        reason: Reason
    }
);
message!(
    RemoveMember = RemoveMemberRequest {
        node: Node,
        reason: Reason
    }
);
message!(
    TransferLeader = TransferLeaderRequest {
        node: Node,
        reason: Reason
    }
);

/// How many slices a target begins with.
struct Cuts;
/// How many items a page may have; 0 for as many as it may.
struct Page;
/// A node id, not 0.
pub(super) struct Node;
/// A reason that must be given.
struct Audit;

impl Codec<u32, u32> for Cuts {
    fn put(noun: &u32) -> u32 {
        *noun
    }

    fn take(field: &'static str, wire: u32) -> Result<u32, WireError> {
        within(field, wire, 1, limits::INITIAL_SLICES)
    }
}

impl Codec<u32, u32> for Page {
    fn put(noun: &u32) -> u32 {
        *noun
    }

    fn take(field: &'static str, wire: u32) -> Result<u32, WireError> {
        within(field, wire, 0, limits::PAGE_ITEMS)
    }
}

fn within(field: &'static str, value: u32, least: u32, most: usize) -> Result<u32, WireError> {
    let found = value as usize;
    match value {
        _ if found > most => Err(WireError::new(
            field,
            Problem::TooMuch {
                found,
                most,
                unit: "items",
            },
        )),
        _ if value < least => Err(WireError::missing(field)),
        _ => Ok(value),
    }
}

impl Codec<u64, u64> for Node {
    fn put(noun: &u64) -> u64 {
        *noun
    }

    fn take(field: &'static str, wire: u64) -> Result<u64, WireError> {
        if wire == 0 {
            Err(WireError::missing(field))
        } else {
            Ok(wire)
        }
    }
}

impl Codec<String, Option<String>> for Audit {
    fn put(noun: &String) -> Option<String> {
        Some(noun.clone())
    }

    fn take(field: &'static str, wire: Option<String>) -> Result<String, WireError> {
        let given = wire
            .filter(|text| !text.trim().is_empty())
            .ok_or(WireError::missing(field))?;
        Reason::take(field, given)
    }
}

impl From<&KeyToLookUp> for pb::lookup_key_request::Key {
    fn from(noun: &KeyToLookUp) -> Self {
        match noun {
            KeyToLookUp::Application(bytes) => Self::KeyBytes(bytes.clone()),
            KeyToLookUp::Hashed(key) => Self::SliceKey(key.as_u64()),
        }
    }
}

impl TryFrom<pb::lookup_key_request::Key> for KeyToLookUp {
    type Error = WireError;

    fn try_from(wire: pb::lookup_key_request::Key) -> Result<Self, WireError> {
        match wire {
            pb::lookup_key_request::Key::KeyBytes(bytes) => {
                super::codec::at_most(
                    "LookupKeyRequest.key_bytes",
                    bytes.len(),
                    limits::KEY_BYTES,
                    "bytes",
                )?;
                Ok(KeyToLookUp::Application(bytes))
            }
            pb::lookup_key_request::Key::SliceKey(key) => {
                Ok(KeyToLookUp::Hashed(SliceKey::from_u64(key)))
            }
        }
    }
}

impl From<&SliceToMove> for pb::move_slice_request::Which {
    fn from(noun: &SliceToMove) -> Self {
        match noun {
            SliceToMove::Exactly(slice) => Self::Slice(slice.into()),
            SliceToMove::Holding(key) => Self::SliceKey(key.as_u64()),
        }
    }
}

impl TryFrom<pb::move_slice_request::Which> for SliceToMove {
    type Error = WireError;

    fn try_from(wire: pb::move_slice_request::Which) -> Result<Self, WireError> {
        Ok(match wire {
            pb::move_slice_request::Which::Slice(slice) => SliceToMove::Exactly(slice.try_into()?),
            pb::move_slice_request::Which::SliceKey(key) => {
                SliceToMove::Holding(SliceKey::from_u64(key))
            }
        })
    }
}

impl From<&MoveTo> for pb::move_slice_request::To {
    fn from(noun: &MoveTo) -> Self {
        match noun {
            MoveTo::Session(session) => Self::Session(Id::put(session)),
            MoveTo::Address(address) => Self::Address(Address::put(address)),
        }
    }
}

impl TryFrom<pb::move_slice_request::To> for MoveTo {
    type Error = WireError;

    fn try_from(wire: pb::move_slice_request::To) -> Result<Self, WireError> {
        Ok(match wire {
            pb::move_slice_request::To::Session(session) => {
                MoveTo::Session(Id::take("MoveSliceRequest.session", session)?)
            }
            pb::move_slice_request::To::Address(text) => {
                MoveTo::Address(Address::take("MoveSliceRequest.address", text)?)
            }
        })
    }
}
