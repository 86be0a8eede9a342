//! What a small world may do: how many of everything, and how time moves in it.

use std::time::Duration;

use leasehold_proto::clock::{ClockClass, wait_after_answer};
use leasehold_proto::limits::HANDOFF_DEADLINE_MAX;

/// A hundredth of the shortest ttl would do; a round number reads better in a trace.
pub const UNIT: Duration = Duration::from_millis(100);

/// How fast the clocks run, in eighths: the class of every clock allows 7 to 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rates {
    /// All clocks are right. D is then longer than the lease by two sevenths.
    Right,
    /// Slicelets as slow and Assigners as fast as the bound allows: the lease ends at the very
    /// instant at which D does.
    Tight,
    /// At each tick either side runs at either end of the bound.
    Wandering,
}

/// When the quorum round of a renewal takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounds {
    /// In the instant in which the renewal arrives, and its answer leaves in the same.
    Instant,
    /// In the instant in which the renewal arrives; the answer leaves at any later one.
    OnArrival,
    /// At any later instant, or never; and so does the answer.
    Apart,
}

/// What may happen in a world, and how often. Loss, delay and reordering are free: a message is
/// delivered at any later instant of its life, or never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Slicelet processes.
    pub slicelets: usize,
    /// Assigner nodes.
    pub assigners: usize,
    /// Slices that the target begins with.
    pub slices: usize,
    /// Whether there is a Clerk.
    pub clerk: bool,
    /// Whether the target begins in eventual mode.
    pub eventual: bool,
    /// How long a lease runs, in ticks.
    pub ttl_ticks: u64,
    /// How fast clocks run.
    pub rates: Rates,
    /// How long a renewal and its answer live, in ticks, before they are lost.
    pub message_ticks: u64,
    /// Renewals, and answers, that can be under way for one Slicelet.
    pub slots: usize,
    /// Whether a renewal arrives in the instant in which it is sent, or is lost. (Its answer takes
    /// any time.) The leader then counts D from as early as it can.
    pub prompt: bool,
    /// How often a process whose session has closed may register again.
    pub registrations: u8,
    /// When quorum rounds take place.
    pub rounds: Rounds,
    /// Whether an answer carries what changed since the view that the renewal names, not the whole
    /// view. (A pushed view always is what changed.)
    pub differences: bool,
    /// Proposals that wait between a leader and its log; none: each is committed at once.
    pub queue: usize,
    /// Whether the source of a handoff refuses it when the destination is not ready after a tick.
    pub impatient: bool,
    /// Whether messages about handoffs and deposed leaders count for ever, not only while they can
    /// have an effect by the rules.
    pub remember_all: bool,
    /// Whether a node that is elected may have a table as old as when it last led.
    pub stale_tables: bool,
    /// Whether an expiry names another session as successor.
    pub successors: bool,
    /// How often each thing that is not free may happen.
    pub most: Most,
    /// Whether liveness is checked.
    pub live: bool,
    /// Whether the search is promised to end; else it ends at this many states.
    pub cap: Option<usize>,
}

/// How often things that are not free may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Most {
    /// Handoffs begun.
    pub handoffs: u8,
    /// Cancellations asked for.
    pub cancels: u8,
    /// Slicelet processes that crash and come back under the same address.
    pub crashes: u8,
    /// Terms won, by the same node or another.
    pub elections: u8,
    /// Crashes and elections together, besides the above.
    pub faults: u8,
    /// Renewals and answers delivered twice.
    pub duplicates: u8,
    /// Splits.
    pub splits: u8,
    /// Merges.
    pub merges: u8,
    /// Changes of consistency.
    pub flips: u8,
    /// Moves at once, in eventual mode.
    pub moves: u8,
    /// Changes of replicas, in eventual mode.
    pub copies: u8,
    /// Slicelets that end in good order and come back.
    pub closes: u8,
    /// Proofs of death by a supervisor.
    pub reaped: u8,
}

impl Bounds {
    /// The smallest world: two Slicelets, one leader that stays, one slice.
    pub const SMALLEST: Bounds = Bounds {
        name: "smallest",
        about: "",
        slicelets: 2,
        assigners: 1,
        slices: 1,
        clerk: false,
        eventual: false,
        ttl_ticks: 1,
        rates: Rates::Right,
        message_ticks: 1,
        slots: 1,
        prompt: true,
        registrations: 0,
        rounds: Rounds::Instant,
        differences: false,
        queue: 0,
        impatient: false,
        remember_all: false,
        stale_tables: false,
        successors: false,
        most: Most {
            handoffs: 0,
            cancels: 0,
            crashes: 0,
            elections: 0,
            faults: 0,
            duplicates: 0,
            splits: 0,
            merges: 0,
            flips: 0,
            moves: 0,
            copies: 0,
            closes: 0,
            reaped: 0,
        },
        live: true,
        cap: None,
    };

    /// Units of local time per tick, of a Slicelet and of an Assigner; one pair per kind of tick.
    pub fn ticks(&self) -> &'static [(u64, u64)] {
        match self.rates {
            Rates::Right => &[(8, 8)],
            Rates::Tight => &[(7, 9)],
            Rates::Wandering => &[(7, 9), (9, 7)],
        }
    }

    /// The least step, in units, of a Slicelet's clock and of an Assigner's.
    pub fn least_steps(&self) -> (u64, u64) {
        let ticks = self.ticks();
        let least = |of: fn(&(u64, u64)) -> u64| ticks.iter().map(of).min().unwrap_or(1);
        (least(|tick| tick.0), least(|tick| tick.1))
    }

    /// Whether every step of a clock is as long as every other.
    pub fn even_steps(&self) -> bool {
        self.ticks().len() == 1
    }

    /// The ttl of every session.
    pub fn ttl(&self) -> Duration {
        UNIT * (self.least_steps().0 * self.ttl_ticks) as u32
    }

    /// D of every session.
    pub fn wait(&self) -> Duration {
        let class = ClockClass::Slewed;
        wait_after_answer(self.ttl(), class, class, Duration::ZERO)
    }

    /// How long a source waits for its destination.
    pub fn handoff_deadline(&self) -> Duration {
        if self.impatient {
            UNIT * self.least_steps().0 as u32
        } else {
            HANDOFF_DEADLINE_MAX
        }
    }

    /// The bounds in words.
    pub fn words(&self) -> String {
        let most = &self.most;
        let counted = [
            (most.handoffs, "handoff"),
            (most.cancels, "cancellation"),
            (most.crashes, "crash"),
            (most.elections, "election"),
            (most.faults, "crash or election"),
            (most.duplicates, "duplicate"),
            (most.splits, "split"),
            (most.merges, "merge"),
            (most.flips, "flip of mode"),
            (most.moves, "move at once"),
            (most.copies, "change of replicas"),
            (most.closes, "shutdown"),
            (most.reaped, "proof of death"),
        ];
        let mut words = format!(
            "{} Assigner{}, {} Slicelets, {} slice{}",
            self.assigners,
            if self.assigners == 1 { "" } else { "s" },
            self.slicelets,
            self.slices,
            if self.slices == 1 { "" } else { "s" },
        );
        if self.clerk {
            words += ", 1 Clerk";
        }
        if self.eventual {
            words += ", begins eventual";
        }
        for (count, what) in counted.iter().filter(|(count, _)| *count > 0) {
            words += &format!(", {count} {what}");
        }
        words += match self.rates {
            Rates::Right => "; clocks right",
            Rates::Tight => "; clocks 7/8 and 9/8",
            Rates::Wandering => "; clocks change between 7/8 and 9/8",
        };
        words += &format!(", ttl {} tick(s)", self.ttl_ticks);
        if self.queue > 0 {
            words += &format!(", {} proposal(s) wait", self.queue);
        }
        if self.impatient {
            words += ", sources wait a tick";
        }
        words
    }
}
