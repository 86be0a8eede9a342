//! What schedules have reached: rare situations, named as sentences. A run that never reached one
//! of them shows nothing about it.

macro_rules! sentences {
    ($($name:ident = $text:literal,)*) => {
        /// A situation that schedules must reach.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Seen {
            $(#[doc = $text] $name,)*
        }

        impl Seen {
            /// Every situation.
            pub const ALL: &'static [Seen] = &[$(Seen::$name,)*];

            /// The sentence.
            pub fn sentence(self) -> &'static str {
                match self {
                    $(Seen::$name => $text,)*
                }
            }
        }
    };
}

sentences! {
    CompletedBySource = "handoff completed by the source's word",
    CompletedByDestination = "handoff completed by the destination's word",
    CompletedByExpiry = "handoff completed by the expiry of its source",
    CompletedByClosing = "handoff completed by the closing of its source",
    CompletedToNobody = "handoff completed, but its destination was closed: vacant",
    VacatedBothClosed = "slice vacated: source and destination both closed",
    Cancelled = "handoff cancelled by the source's refusal",
    CancelledAfterAsk = "handoff cancelled after the ask",
    CancelledDestinationClosed = "handoff cancelled since its destination had closed",
    AskLost = "ask to cancel lost to a surrender",
    DestinationClosed = "destination closed while its handoff was open",
    DirectAccept = "destination accepted directly, before the commit",
    SurrenderRepeated = "surrender repeated to its destination",
    SurrenderTooLate = "surrender of a handoff that the view does not show",
    ReadyTooEarly = "source asked before its view showed the handoff",
    NotMine = "a question about another session answered: not mine",
    AcceptedLapsed = "destination accepted while its own lease had lapsed",
    WentCold = "source went cold: its destination was not ready in time",
    Stayed = "source refused: its destination was not ready in time",
    HandedBack = "slice handed back to the session that had surrendered it",
    SuspectLeft = "handoff begun away from a suspect",
    SuspectReturned = "a suspect spoke again",
    StaleView = "stale view dropped",
    GapRefused = "difference that begins after what is known refused",
    BeforeRegistration = "view from before the registration dropped",
    LateRegistration = "answer to a registration that was superseded ignored",
    AnswersReordered = "renewal answered after a later one",
    AnswerTooLate = "renewal answered after its own deadline",
    LapsedAndBack = "lease lapsed and was renewed in the same session",
    OldTime = "input handled with a time that was read before a pause",
    SleptThrough = "process slept through its deadline",
    SleptThroughExpiry = "process slept until its session was gone",
    LeaderSlept = "leader slept until another led, and woke",
    NewLeaderWaited = "new leader waited D before it expired a session it never answered",
    ExpiredAfterAnswer = "session expired D after its last answer",
    ExpiringSpoke = "an expiring session spoke and was not answered",
    ExpiryOtherTerm = "expiry rejected: other term",
    ExpiryForwarded = "expiry of a deposed leader reached the new one",
    SameLeaderAgain = "the node that led was elected again",
    OldTailInherited = "proposals of the old leader committed by the new one",
    OldTailLost = "proposals lost with their leader",
    RoundFailed = "quorum round of a deposed leader failed",
    DeposedHeard = "deposed leader collected a renewal",
    AnsweredWhenDeposed = "renewal answered after the leader was deposed",
    AppliedAgain = "node crashed and applied again what it had not synced",
    NoQuorum = "nothing committed: no quorum was awake",
    SplitSlice = "slice split",
    Merged = "slices merged",
    ReplicasSet = "replicas set",
    Reassigned = "slice given away at once in eventual mode",
    OpenHandoffKept = "plan refused: a handoff is open",
    MergedTooEarly = "plan refused: the state of a slice may be on its way to its owner",
    PlanTooLate = "plan refused: the slice or the configuration had changed",
    ToEventual = "target became eventual",
    ArmingBegan = "arming began",
    ArmingEnded = "arming ended: strong again",
    ArmingAbandoned = "arming abandoned: eventual again",
    GhostLeft = "session left a ghost",
    GhostKeptArming = "ghost kept arming open",
    GhostForgotten = "ghost forgotten by an operator",
    GhostSpoke = "ghost left by its own word",
    AckOtherArming = "acknowledgement of another arming rejected",
    BornAcknowledged = "session registered while arming",
    ClosedByWord = "session closed by its own word",
    ClosedByProof = "session closed by proof of death",
    GracefulEnd = "process ended gracefully",
    Drained = "session drained",
    TtlChanged = "ttl changed while sessions lived",
    Deleted = "target deleted",
    TombstoneWaited = "tombstone waited for its sessions",
    NameFree = "name of a deleted target free again",
    NameTaken = "creation refused: the tombstone's sessions have not gone",
    Restored = "restored with a larger incarnation",
    RestoreWaited = "plan refused after a restore: D has not passed",
    RestoreOver = "wait after a restore ended",
    HintOutranked = "moved hint outranked the map",
    HintIgnored = "moved hint older than the map ignored",
    EventualOverlap = "two passed one check at once, in eventual mode",
    HintEnded = "moved hint ended by a newer map",
    GuardVerified = "guard verified before the effect",
    VerifyLapsed = "verify failed: the lease had lapsed",
    VerifyRevoked = "verify failed: ownership was interrupted",
    GuardHeldBackSurrender = "surrender waited for a guard in flight",
    GuardCutOff = "guard cut off so that the slice could be surrendered",
    OldTokenRejected = "store rejected a write with an old token",
    OldFenceRejected = "store rejected the fence of an old owner",
    WriteUnknown = "application gave a write up without knowing its outcome",
    WriteRepeated = "write repeated, and applied once",
    WriteAckUnverified = "write took effect but its reply was withheld",
    FencedWrite = "write under a lapsed lease left to the store's fence",
    UnfencedEffect = "effect on what cannot be fenced, right after verify",
    ReadFromMemory = "read served from the owner's memory",
    ValueInherited = "new owner read what an earlier owner wrote",
    WarmByWord = "state served by the source's direct word",
    WarmByView = "state served by the proof in the view",
    ColdArrival = "owner began without state",
    ColdThoughReceived = "state received, but not proven: not served",
    StateKeptInMerge = "state kept by its owner when slices were merged",
    WithdrawnAfterFreeze = "source withdrew after the freeze: its last change was not acknowledged",
    WentColdAfterFreeze = "source gave its state up: its last change was not acknowledged",
    TransferResumed = "transfer resumed over another connection",
    TransferBegunAnew = "transfer begun anew",
    BytesDiffered = "transfer refused: its two ends did not have the same bytes",
    FrameDuplicate = "frame that had come already refused",
    FrameGap = "frame after a lost one refused",
    FrameOfOldEpoch = "frame of an older transfer refused",
    ChangedWhileSent = "value changed after it was sent, and sent again",
    AdditionRepeated = "addition in memory repeated, and made once",
}

/// How often each situation was reached, and how much was played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    counts: Vec<u64>,
    /// Schedules.
    pub schedules: u64,
    /// Events, those of the healing not counted.
    pub events: u64,
    /// Entries that were committed.
    pub commits: u64,
    /// True time that passed in the schedules, in microseconds.
    pub simulated_us: u64,
    /// Ownership checks that passed and were judged.
    pub checks_passed: u64,
    /// Instants at which two passed one check of a strong target, where clocks lie.
    pub overlaps_of_lying_clocks: u64,
    /// Longest true time that a schedule needed to heal, in thousandths of the ttl.
    pub longest_heal_ttl_thousandths: u64,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            counts: vec![0; Seen::ALL.len()],
            schedules: 0,
            events: 0,
            commits: 0,
            simulated_us: 0,
            checks_passed: 0,
            overlaps_of_lying_clocks: 0,
            longest_heal_ttl_thousandths: 0,
        }
    }
}

impl Coverage {
    pub(crate) fn see(&mut self, what: Seen) {
        self.counts[what as usize] += 1;
    }

    /// How often it was reached.
    pub fn count(&self, what: Seen) -> u64 {
        self.counts[what as usize]
    }

    /// Adds what other schedules reached.
    pub fn add(&mut self, other: &Coverage) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.schedules += other.schedules;
        self.events += other.events;
        self.commits += other.commits;
        self.simulated_us += other.simulated_us;
        self.checks_passed += other.checks_passed;
        self.overlaps_of_lying_clocks += other.overlaps_of_lying_clocks;
        self.longest_heal_ttl_thousandths = self
            .longest_heal_ttl_thousandths
            .max(other.longest_heal_ttl_thousandths);
    }

    /// Situations that were never reached.
    pub fn unmet(&self) -> Vec<Seen> {
        let never = |seen: &&Seen| self.count(**seen) == 0;
        Seen::ALL.iter().filter(never).copied().collect()
    }
}
