//! What is seen of a cluster while it runs. Invariants, coverage and the trace all read these.

use leasehold_raft_store::{Contents, LogPosition};

/// Number of a simulated node.
pub type NodeId = u64;

/// Something that was seen.
#[derive(Clone, Debug)]
pub struct Event {
    /// Since the world began, in milliseconds.
    pub at_ms: u64,
    /// Where.
    pub node: NodeId,
    /// Which start of that node, from 1.
    pub life: u64,
    /// What.
    pub what: What,
}

/// How a proposal ended for its proposer: three outcomes, never two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Committed and applied there.
    Ok {
        /// At this position.
        at: LogPosition,
        /// Hash of the reply.
        reply: u64,
    },
    /// It certainly has no effect, now or later.
    Failed(&'static str),
    /// It may have an effect.
    Indeterminate,
}

/// What was seen.
#[derive(Clone, Debug)]
pub enum What {
    /// The node runs; it shows this term.
    Started {
        /// The newest term it knows.
        term: u64,
    },
    /// The node could not start on what its disk holds.
    NotStarted(String),
    /// Its machine ended, and its disk lost a part of what was not synced.
    Crashed {
        /// Batches that were written and are lost.
        lost: usize,
        /// Batches that were not synced and are on the disk all the same.
        kept: usize,
    },
    /// What the node says of its own role.
    Role {
        /// In this term.
        term: u64,
        /// It says that it leads.
        leads: bool,
    },
    /// The replica has ended by itself.
    Stopped {
        /// Its disk had been told to fail.
        disk_failed: bool,
    },
    /// The state machine was loaded from its records.
    Restored {
        /// Which hold the effects of all entries up to here.
        at: Option<LogPosition>,
        /// Fingerprint of the records.
        state: u64,
    },
    /// A command was applied.
    Applied {
        /// Its position.
        at: LogPosition,
        /// Number of the proposal.
        serial: u64,
        /// The term it was bound to.
        in_term: Option<u64>,
        /// Hash of the command.
        command: u64,
        /// Hash of the reply.
        reply: u64,
        /// Fingerprint of the records after it.
        state: u64,
    },
    /// The effects of everything up to here are written.
    Published {
        /// The last position.
        last: LogPosition,
    },
    /// A proposal begins.
    Proposed {
        /// Its number.
        serial: u64,
        /// The term it is bound to.
        in_term: Option<u64>,
    },
    /// A proposal has ended.
    Answered {
        /// Its number.
        serial: u64,
        /// How.
        outcome: Outcome,
    },
    /// A confirmation was asked for.
    ConfirmBegan {
        /// Its number.
        call: u64,
    },
    /// It was given.
    Confirmed {
        /// Its number.
        call: u64,
        /// What a read must see.
        at: LogPosition,
        /// How far this node's machine is.
        applied: u64,
    },
    /// It was refused.
    NotConfirmed {
        /// Its number.
        call: u64,
    },
    /// Who serves a key now, with which token: told when it changes.
    Owners {
        /// Number of the key.
        key: usize,
        /// Pods whose check of the key passes.
        owners: Vec<(String, u64)>,
    },
    /// A look at the disk.
    Disk(Contents),
    /// A fault began or ended, or an operator did something.
    Fault(String),
    /// All faults are gone.
    Healed,
    /// The cluster must agree by now: what each running member has applied.
    Settled {
        /// This node's members, by its own account.
        members: Vec<NodeId>,
        /// How far its machine is.
        applied: u64,
        /// Fingerprint of its records.
        state: u64,
        /// Its own entry is among the members of the leader.
        is_member: bool,
    },
}
