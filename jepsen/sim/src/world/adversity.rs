//! What a schedule may do, and what it did.

use super::Rng;

/// What a schedule may do, drawn from its seed: a schedule that does everything does nothing often.
#[derive(Debug)]
pub struct Adversity {
    pub hosts: usize,
    pub slices: u32,
    pub loss: u64,
    pub cuts: u64,
    pub elections: u64,
    pub crashes: u64,
    pub flips: u64,
    pub plans: u64,
    pub deletes: u64,
    pub restores: u64,
    pub lag: u64,
    pub slow_rounds: u64,
    pub late_appends: u64,
    /// Whether clocks change their rate, within its bounds, from event to event.
    pub wander: bool,
}

impl Adversity {
    pub fn draw(rng: &mut Rng) -> Self {
        let mut sometimes = |most: u64| {
            if rng.chance(50) {
                1 + rng.below(most)
            } else {
                0
            }
        };
        let (loss, cuts, elections, crashes) =
            (sometimes(20), sometimes(8), sometimes(4), sometimes(3));
        let (flips, deletes, restores) = (sometimes(4), sometimes(2) / 2, sometimes(2) / 2);
        let (lag, late_appends, slow_rounds) =
            (sometimes(60), sometimes(40), sometimes(95).max(10));
        Self {
            hosts: 2 + rng.below(2) as usize,
            slices: 1 << rng.below(3),
            loss,
            cuts,
            elections,
            crashes,
            flips,
            plans: 2 + rng.below(10),
            deletes,
            restores,
            lag,
            slow_rounds,
            late_appends,
            wander: rng.chance(30),
        }
    }
}

/// What a run has seen; shows that a schedule is not idle.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stats {
    pub steps: u64,
    pub commits: u64,
    pub completed: u64,
    pub cancelled: u64,
    pub direct_accepts: u64,
    pub expired: u64,
    pub armed: u64,
    pub passes: u64,
    pub terms: u64,
    pub restores: u64,
}

impl Stats {
    pub fn add(&mut self, other: Stats) {
        self.steps += other.steps;
        self.commits += other.commits;
        self.completed += other.completed;
        self.cancelled += other.cancelled;
        self.direct_accepts += other.direct_accepts;
        self.expired += other.expired;
        self.armed += other.armed;
        self.passes += other.passes;
        self.terms += other.terms;
        self.restores += other.restores;
    }
}
