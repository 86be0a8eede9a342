//! What a schedule may do.

use std::fmt;
use std::str::FromStr;

/// Events of one schedule before it is healed, unless told otherwise.
pub const EVENTS: u64 = 1_000;

macro_rules! faults {
    ($($name:ident = $text:literal, $doc:literal;)*) => {
        /// One kind of what goes wrong, or of what operators and planners do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $(#[doc = $doc] $name,)*
        }

        impl Fault {
            /// Every kind.
            pub const ALL: &'static [Fault] = &[$(Fault::$name,)*];

            /// Its name, as `--without` takes it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Fault::$name => $text,)*
                }
            }
        }
    };
}

faults! {
    Loss = "loss", "Messages are lost.";
    Duplication = "duplication", "Messages arrive twice.";
    Reorder = "reorder", "Messages overtake each other.";
    Cuts = "cuts", "Links are cut, one way or both: to the Assigner, from it, between Slicelets.";
    Pauses = "pauses", "Processes sleep, perhaps through their deadlines.";
    Elections = "elections", "Leaders change, perhaps to the same node; the deposed do not know.";
    HostCrashes = "host-crashes", "Slicelet processes die, end gracefully, start anew.";
    NodeCrashes = "node-crashes", "Assigner nodes die and lose what they had not synced.";
    Flips = "flips", "The target is switched between strong and eventual.";
    Deletes = "deletes", "The target is deleted.";
    Restores = "restores", "The cluster is lost and restored from a backup.";
    Plans = "plans", "A planner without sense changes the assignment.";
    Suspicion = "suspicion", "Handoffs away from suspects are begun.";
    Operator = "operator", "Operators ask to cancel, drain, forget, change the ttl, prove deaths.";
    Lag = "lag", "Nodes apply late.";
    SlowRounds = "slow-rounds", "Quorum rounds take their time.";
    LateAppends = "late-appends", "Proposals reach Raft late, perhaps in another term.";
    Forwarding = "forwarding", "Proposals of a deposed leader reach the new one.";
    Wander = "wander", "Clocks change their rate within its bound.";
    WallJumps = "wall-jumps", "Wall clocks are set.";
    Impatience = "impatience", "Applications cut guards off and give up writes.";
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no kind of fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownFault(String);

impl fmt::Display for UnknownFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        write!(
            f,
            "{:?} is no kind of fault; there are {}",
            self.0,
            names.join(", ")
        )
    }
}

impl std::error::Error for UnknownFault {}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let found = Fault::ALL.iter().find(|fault| fault.name() == text);
        found
            .copied()
            .ok_or_else(|| UnknownFault(text.chars().take(64).collect()))
    }
}

/// How a schedule is played. The same seed and options give the same schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Events before it is healed.
    pub events: u64,
    /// Kinds of faults that are left out; everything else is drawn as with them.
    pub without: Vec<Fault>,
    /// Clocks may run wrong beyond their bound. What rests on clocks is then not judged; what a
    /// store's fence promises is.
    pub clocks_lie: bool,
    /// Only these of its events, by number, happen; `None` for all.
    pub only: Option<Vec<u64>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            events: EVENTS,
            without: Vec::new(),
            clocks_lie: false,
            only: None,
        }
    }
}

impl Options {
    /// The events that happen, by number.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        match &self.only {
            Some(only) => only
                .iter()
                .copied()
                .filter(|at| *at < self.events)
                .collect(),
            None => (0..self.events).collect(),
        }
    }

    /// The command line that replays this with `seed`.
    pub fn replay(&self, seed: u64) -> String {
        let mut command = format!("leasehold-sim run --seed {seed} --events {}", self.events);
        if !self.without.is_empty() {
            let names: Vec<&str> = self.without.iter().map(|fault| fault.name()).collect();
            command += &format!(" --without {}", names.join(","));
        }
        if self.clocks_lie {
            command += " --clocks-lie";
        }
        if let Some(only) = &self.only {
            let numbers: Vec<String> = only.iter().map(u64::to_string).collect();
            command += &format!(" --only {}", numbers.join(","));
        }
        command + " --trace"
    }
}
