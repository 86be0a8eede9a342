//! What the log replicates: commands, and what each is answered.

use std::time::Duration;

use crate::clock::ClockClass;
use crate::error::Rejection;
use crate::id::{Generation, HandoffId, Incarnation, SessionId};
use crate::key::SliceKey;
use crate::message::Word;
use crate::slice::Slice;
use crate::target::{SessionSecret, Squid, TargetChange, TargetConfig, TargetName};
use crate::view::Lease;

/// The running hash over the state frames of a handoff; equal at both ends or the state is not used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// The digest of no state at all.
    pub const EMPTY: Digest = Digest([0; 16]);
}

/// A command of the replicated table. *Plans* are compare-and-set on what they touch; everything
/// else is a fact and unconditional.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Create a target, cut into `initial_slices` vacant slices of equal width.
    CreateTarget {
        /// Its name.
        target: TargetName,
        /// Its configuration.
        config: TargetConfig,
        /// How many slices it begins with.
        initial_slices: u32,
    },
    /// Change a target's configuration.
    UpdateTarget {
        /// Its name.
        target: TargetName,
        /// Refuse unless the configuration is at this version.
        expected_version: Option<u64>,
        /// What changes.
        change: TargetChange,
    },
    /// Delete a target: close its sessions, leave a tombstone until they have all gone.
    DeleteTarget {
        /// Its name.
        target: TargetName,
        /// Refuse unless the configuration is at this version.
        expected_version: Option<u64>,
    },
    /// Register a session; idempotent by Squid while that session lives.
    RegisterSession {
        /// Of which target.
        target: TargetName,
        /// Whose.
        squid: Squid,
        /// How its process measures time.
        clock: ClockClass,
        /// Drawn by the proposer; a session that exists keeps its own.
        secret: SessionSecret,
        /// The application's version, or empty.
        app_version: String,
    },
    /// The holder serves nothing any more, or its death was witnessed: ends the session at once.
    CloseSession {
        /// Of which target.
        target: TargetName,
        /// Which session.
        session: SessionId,
        /// How it is known.
        proof: CloseProof,
    },
    /// D has passed since the leader of `term` last answered the session.
    ExpireSession {
        /// Of which target.
        target: TargetName,
        /// Which session.
        session: SessionId,
        /// The term in which D was counted.
        term: u64,
        /// Who gets the slices that fall vacant, by their first key.
        successors: Vec<(SliceKey, SessionId)>,
    },
    /// The session is about to leave: the planner moves its slices away and gives it none.
    DrainSession {
        /// Of which target.
        target: TargetName,
        /// Which session.
        session: SessionId,
    },
    /// Changes of assignment that the planner or an operator proposes.
    ApplyPlan {
        /// Of which target.
        target: TargetName,
        /// The version of the configuration that the plan was made for.
        config_version: u64,
        /// Each is accepted or rejected by itself.
        steps: Vec<PlanStep>,
    },
    /// A party's word that ownership has moved.
    CompleteHandoff {
        /// Of which target.
        target: TargetName,
        /// Which handoff.
        handoff: HandoffId,
        /// Who said so, and in which part.
        word: EndWord,
        /// The digest of the state sent, where the party knows it.
        digest: Option<Digest>,
    },
    /// The source's word that it has refused.
    CancelHandoff {
        /// Of which target.
        target: TargetName,
        /// Which handoff.
        handoff: HandoffId,
        /// The source session.
        refused_by: SessionId,
    },
    /// Ask the source of a handoff to refuse it.
    AskCancel {
        /// Of which target.
        target: TargetName,
        /// Which handoff.
        handoff: HandoffId,
    },
    /// The session has applied the view of this arming and checks leases since.
    AckArming {
        /// Of which target.
        target: TargetName,
        /// Which session.
        session: SessionId,
        /// The arming, by the generation that began it.
        arming: Generation,
    },
    /// An operator's word that the process behind a ghost is dead. Without a session: behind all
    /// ghosts, counted or not.
    ForgetGhost {
        /// Of which target.
        target: TargetName,
        /// Which ghost.
        session: Option<SessionId>,
        /// Why, for the audit.
        reason: String,
    },
    /// Begin a new incarnation: close all sessions, vacate all slices, grant nothing until
    /// [`Command::EndRestoreWait`].
    Restore {
        /// Larger than any seen.
        incarnation: Incarnation,
        /// The largest ttl that a session of the lost history may have.
        max_ttl: Duration,
    },
    /// D of the largest ttl has passed since the leader of `term` was elected.
    EndRestoreWait {
        /// The term in which D was counted.
        term: u64,
    },
}

/// How it is known that a session serves nothing any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseProof {
    /// Its own word, said after its checks fail for ever.
    OwnWord,
    /// A supervising parent has reaped its process.
    Reaped,
}

impl Command {
    /// What the leader proposes when `session` says `word`. Whether the session has that part, and
    /// whether the handoff is open, is for the table to decide.
    pub fn of_word(target: TargetName, session: SessionId, word: Word) -> Self {
        let complete = |handoff, word, digest| Command::CompleteHandoff {
            target: target.clone(),
            handoff,
            word,
            digest,
        };
        match word {
            Word::Surrendered(handoff, digest) => {
                complete(handoff, EndWord::Surrendered(session), Some(digest))
            }
            Word::Accepted(handoff) => complete(handoff, EndWord::Accepted(session), None),
            Word::Refused(handoff) => Command::CancelHandoff {
                target,
                handoff,
                refused_by: session,
            },
        }
    }
}

/// A party's word that a handoff took effect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EndWord {
    /// The source has surrendered.
    Surrendered(SessionId),
    /// The destination has accepted.
    Accepted(SessionId),
}

/// One change of assignment: compare-and-set on the slices that it names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlanStep {
    /// Give a vacant slice to a live session.
    Grant {
        /// The slice, vacant.
        slice: Slice,
        /// Its owner to be.
        to: SessionId,
    },
    /// Begin to hand a slice off.
    BeginHandoff {
        /// The slice, without an open handoff.
        slice: Slice,
        /// Its owner.
        from: Lease,
        /// Its owner to be.
        to: SessionId,
    },
    /// Give a slice to another session at once; eventual mode only.
    Reassign {
        /// The slice, without an open handoff.
        slice: Slice,
        /// Its owner, if it has one.
        from: Option<Lease>,
        /// Its owner to be.
        to: SessionId,
    },
    /// Cut a slice; both halves keep owner and epoch.
    Split {
        /// The slice, without an open handoff.
        slice: Slice,
        /// Its owner, if it has one.
        owner: Option<Lease>,
        /// First key of the upper half.
        at: SliceKey,
    },
    /// Join a slice and the one behind it; the owner gets a fresh epoch.
    Merge {
        /// The lower slice.
        left: Slice,
        /// The upper one, touching.
        right: Slice,
        /// The owner of both.
        owner: SessionId,
        /// Up to which view the owner has taken in the state that its slices came with, as it has
        /// said itself; `None` where it has not.
        taken_in: Option<Generation>,
    },
    /// Say which sessions serve copies; eventual mode only.
    SetReplicas {
        /// The slice, without an open handoff.
        slice: Slice,
        /// Its owner.
        owner: Lease,
        /// The sessions, the owner not among them.
        replicas: Vec<SessionId>,
    },
}

/// What a command is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Done; nothing to tell.
    Done,
    /// The session, new or found.
    Registered(Registered),
    /// What became of each step of a plan.
    Plan(Vec<Result<(), Rejection>>),
    /// Refused; nothing changed.
    Rejected(Rejection),
}

/// A registered session. It carries no lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registered {
    /// Its number.
    pub session: SessionId,
    /// What every later message of it must carry.
    pub secret: SessionSecret,
    /// Fixed for its life.
    pub ttl: Duration,
    /// The view at registration: no older one may be applied.
    pub not_before: Generation,
}
