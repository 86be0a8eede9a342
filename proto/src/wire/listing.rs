//! What operators are answered: targets, slices, sessions, handoffs and the cluster.

use std::time::Duration;

use super::admin::Node;
use super::codec::{
    Address, Enum, Id, Key, Life, List, Load, Maybe, Name, Nanos, Needed, Same, Text, Ttl,
};
use super::codec::{message, wire_enum};
use super::error::WireError;
use super::pb;
use crate::clock::ClockClass;
use crate::id::{Generation, HandoffId, Incarnation, LogId, SessionId};
use crate::key::SliceKey;
use crate::limits;
use crate::slice::Slice;
use crate::table::SessionPhase;
use crate::target::{Mode, PodAddress, Squid, TargetConfig, TargetName};
use crate::view::{Assigned, Handoff, Lease};

/// A target and how many of everything it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetInfo {
    /// Its name.
    pub target: TargetName,
    /// Its configuration.
    pub config: TargetConfig,
    /// Raised by every change of the configuration.
    pub config_version: u64,
    /// What it promises.
    pub mode: Mode,
    /// Version of its assignment.
    pub generation: Generation,
    /// It was deleted and waits for its sessions to go.
    pub deleted: bool,
    /// How many slices it has.
    pub slices: u64,
    /// How many of them are vacant.
    pub vacant_slices: u64,
    /// How many handoffs are open.
    pub open_handoffs: u64,
    /// How many sessions live.
    pub live_sessions: u64,
    /// How many of them are draining.
    pub draining_sessions: u64,
    /// How many ghosts are kept by session.
    pub ghosts: u64,
    /// Ghosts of which only the number is kept.
    pub ghosts_uncounted: u32,
    /// Live sessions that have not acknowledged the present arming.
    pub unarmed_sessions: u64,
    /// Readers of the assignment at the answering Assigner.
    pub watchers: u64,
}

/// One target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OneTarget {
    /// The target.
    pub target: TargetInfo,
}

/// All targets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllTargets {
    /// In order of their names.
    pub targets: Vec<TargetInfo>,
}

/// A page of slices.
#[derive(Clone, PartialEq, Debug)]
pub struct SlicePage {
    /// Of this version of the assignment.
    pub generation: Generation,
    /// In order.
    pub slices: Vec<SliceInfo>,
    /// Addresses of the sessions that the page names.
    pub pods: Vec<(SessionId, PodAddress)>,
    /// Where the next page begins; `None` at the end.
    pub next_key: Option<SliceKey>,
}

/// One slice.
#[derive(Clone, PartialEq, Debug)]
pub struct SliceInfo {
    /// The slice.
    pub slice: Slice,
    /// Who serves it.
    pub assigned: Assigned,
    /// When that changed last.
    pub changed_at: Generation,
    /// Last reported, in the application's unit.
    pub load_per_s: Option<f64>,
    /// Last reported.
    pub state_bytes: Option<u64>,
}

/// A page of sessions.
#[derive(Clone, PartialEq, Debug)]
pub struct SessionPage {
    /// In order of their ids.
    pub sessions: Vec<SessionInfo>,
    /// Ask again behind this session; `None` at the end.
    pub next_after: Option<SessionId>,
}

/// One session.
#[derive(Clone, PartialEq, Debug)]
pub struct SessionInfo {
    /// Its id.
    pub session: SessionId,
    /// Whose it is.
    pub squid: Squid,
    /// How its process measures time.
    pub clock: ClockClass,
    /// Its time to live.
    pub ttl: Duration,
    /// The application's version, or empty.
    pub app_version: String,
    /// Where it stands.
    pub phase: SessionPhase,
    /// It is given no slices.
    pub draining: bool,
    /// The last arming that it has acknowledged.
    pub acked_arming: Option<Generation>,
    /// How many slices it owns.
    pub slices: u64,
    /// Of its slices together, in the application's unit.
    pub load_per_s: Option<f64>,
    /// Time since the leader last answered it; only the leader knows.
    pub answered_ago: Option<Duration>,
}

/// A page of open handoffs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HandoffPage {
    /// In order of their ids.
    pub handoffs: Vec<HandoffInfo>,
    /// Ask again behind this handoff; `None` at the end.
    pub next_after: Option<HandoffId>,
}

/// One open handoff.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HandoffInfo {
    /// The slice.
    pub slice: Slice,
    /// Its present owner.
    pub from: Lease,
    /// The handoff.
    pub handoff: Handoff,
    /// Time since the answering Assigner saw it begin.
    pub open_for: Option<Duration>,
}

/// Who serves a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyInfo {
    /// The key's place.
    pub slice_key: SliceKey,
    /// The version of the assignment.
    pub generation: Generation,
    /// The slice that holds it, and who serves it.
    pub slice: (Slice, Assigned),
    /// Addresses of the sessions that the slice names.
    pub pods: Vec<(SessionId, PodAddress)>,
}

/// What became of a wish to move a slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SliceMoved {
    /// The handoff begun; `None` where the slice was moved at once.
    pub handoff: Option<HandoffId>,
}

/// The Assigners and their log, as one of them sees them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterStatus {
    /// The answering Assigner.
    pub node: u64,
    /// The leader, if one is known.
    pub leader: Option<u64>,
    /// The present term.
    pub term: u64,
    /// The newest entry committed.
    pub committed_index: u64,
    /// The newest entry applied here.
    pub applied_index: u64,
    /// Which life of the replicated state.
    pub incarnation: Incarnation,
    /// After a restore, while nothing is granted.
    pub restore_wait: bool,
    /// In order of their nodes.
    pub members: Vec<Member>,
    /// The program's version.
    pub version: String,
    /// Why this Assigner grants nothing, or empty.
    pub halted: String,
}

/// One Assigner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its node id, not 0.
    pub node: u64,
    /// Where its peers reach it.
    pub peer_address: PodAddress,
    /// Where Slicelets, Clerks and operators reach it.
    pub service_address: PodAddress,
    /// What it is.
    pub role: MemberRole,
    /// The newest entry that it holds; only the leader knows.
    pub matched_index: Option<u64>,
    /// Time since the leader last heard of it; only the leader knows.
    pub heard_ago: Option<Duration>,
}

/// What a member of the cluster is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum MemberRole {
    /// Counts for the quorum.
    Voter,
    /// Follows the log, counts for nothing.
    Learner,
}

/// What the chunks of a snapshot together are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotEnd {
    /// Length of all chunks together.
    pub total_bytes: u64,
    /// CRC-32C over all chunks together.
    pub crc32c: u32,
    /// The newest entry in it.
    pub applied: LogId,
    /// Which life of the replicated state.
    pub incarnation: Incarnation,
}

wire_enum!(MemberRole = MemberRole { Voter = Voter, Learner = Learner });

message!(
    TargetInfo = TargetInfo {
        target: Name,
        config: Needed,
        config_version: Same,
        mode: Needed,
        generation: Needed,
        deleted: Same,
        slices: Same,
        vacant_slices: Same,
        open_handoffs: Same,
        live_sessions: Same,
        draining_sessions: Same,
        ghosts: Same,
        ghosts_uncounted: Same,
        unarmed_sessions: Same,
        watchers: Same,
    }
);
message!(OneTarget = GetTargetReply { target: Needed });
message!(AllTargets = ListTargetsReply { targets: List<{ limits::TARGETS }> });
message!(
    SliceInfo = SliceInfo {
        slice: Needed,
        assigned: Needed,
        changed_at: Needed,
        load_per_s: Load,
        state_bytes: Same,
    }
);
message!(SlicePage = ListSlicesReply {
    generation: Needed, slices: List<{ limits::PAGE_ITEMS }>, pods: List<{ limits::PODS_PER_VIEW }>, next_key: Key,
});
message!(SessionInfo = SessionInfo {
    session: Id, squid: Needed, clock: Enum, ttl_nanos = ttl: Ttl,
    app_version: Text<{ limits::APP_VERSION_BYTES }>, phase: Enum, draining: Same, acked_arming: Maybe, slices: Same,
    load_per_s: Load, answered_ago_nanos = answered_ago: Nanos,
});
message!(SessionPage = ListSessionsReply { sessions: List<{ limits::PAGE_ITEMS }>, next_after: Id });
message!(HandoffInfo = HandoffInfo { slice: Needed, from: Needed, handoff: Needed, open_for_nanos = open_for: Nanos });
message!(HandoffPage = ListHandoffsReply { handoffs: List<{ limits::PAGE_ITEMS }>, next_after: Id });
message!(KeyInfo = LookupKeyReply {
    slice_key: Key, generation: Needed, slice: Needed, pods: List<{ limits::PODS_PER_VIEW }>,
});
message!(SliceMoved = MoveSliceReply { handoff: Id });
message!(Member = Member {
    node: Node, peer_address: Address, service_address: Address, role: Enum, matched_index: Same,
    heard_ago_nanos = heard_ago: Nanos,
});
message!(ClusterStatus = ClusterStatusReply {
    node: Same, leader: Same, term: Same, committed_index: Same, applied_index: Same, incarnation: Life,
    restore_wait: Same, members: List<{ limits::MEMBERS }>, version: Text<{ limits::TEXT_BYTES }>,
    halted: Text<{ limits::TEXT_BYTES }>,
});
message!(
    SnapshotEnd = SnapshotEnd {
        total_bytes: Same,
        crc32c: Same,
        applied: Needed,
        incarnation: Life
    }
);

/// A part of a saved snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotPart {
    /// The next bytes.
    Chunk(bytes::Bytes),
    /// Nothing follows. A stream without it is not a snapshot.
    End(SnapshotEnd),
}

impl From<&SnapshotPart> for pb::SaveSnapshotReply {
    fn from(noun: &SnapshotPart) -> Self {
        use pb::save_snapshot_reply::Part;
        let part = match noun {
            SnapshotPart::Chunk(bytes) => Part::Chunk(bytes.clone()),
            SnapshotPart::End(end) => Part::End(end.into()),
        };
        Self { part: Some(part) }
    }
}

impl TryFrom<pb::SaveSnapshotReply> for SnapshotPart {
    type Error = WireError;

    fn try_from(wire: pb::SaveSnapshotReply) -> Result<Self, WireError> {
        use pb::save_snapshot_reply::Part;
        match wire
            .part
            .ok_or(WireError::missing("SaveSnapshotReply.part"))?
        {
            Part::Chunk(bytes) => {
                super::codec::at_most(
                    "SaveSnapshotReply.chunk",
                    bytes.len(),
                    limits::CHUNK_BYTES,
                    "bytes",
                )?;
                Ok(SnapshotPart::Chunk(bytes))
            }
            Part::End(end) => end.try_into().map(SnapshotPart::End),
        }
    }
}
