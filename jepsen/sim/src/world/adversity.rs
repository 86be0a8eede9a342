//! What one schedule does, and how often.

use super::Rng;
use crate::options::{Fault, Options};

/// Drawn from the seed: a schedule that does everything does nothing often.
#[derive(Debug)]
pub struct Adversity {
    pub hosts: usize,
    pub slices: u32,
    /// Chance in percent that time passes where it could: the less, the more happens in one lease.
    pub haste: u64,
    /// Chance in percent of what goes wrong where it could.
    pub unrest: u64,
    /// Messages under way; beyond it, one is lost.
    pub messages: usize,
    /// Whether applications keep state in memory that moves with its slices.
    pub stateful: bool,
    /// By [`Fault`]: a weight among events, or a chance in percent.
    rates: Vec<u64>,
    left_out: Vec<bool>,
}

impl Adversity {
    pub fn draw(rng: &mut Rng, options: &Options) -> Self {
        let mut rates = Vec::with_capacity(Fault::ALL.len());
        for fault in Fault::ALL {
            let often = rng.chance(50);
            let drawn = 1 + rng.below(most(*fault));
            rates.push(if often { drawn } else { 0 });
        }
        let mut adversity = Self {
            hosts: 2 + rng.below(2) as usize,
            slices: 1 << rng.below(3),
            haste: *rng.pick(&[15, 30, 60, 100]),
            unrest: *rng.pick(&[25, 50, 100]),
            messages: *rng.pick(&[8, 16, 48]),
            stateful: rng.chance(40),
            rates,
            left_out: Fault::ALL
                .iter()
                .map(|fault| options.without.contains(fault))
                .collect(),
        };
        for (fault, least) in [
            (Fault::Plans, 2),
            (Fault::Operator, 2),
            (Fault::SlowRounds, 10),
        ] {
            let rate = &mut adversity.rates[fault as usize];
            *rate = (*rate).max(least);
        }
        for rare in [Fault::Deletes, Fault::Restores] {
            adversity.rates[rare as usize] /= 2;
        }
        adversity
    }

    /// How often it happens, as drawn, whether it is left out or not.
    pub fn weight(&self, fault: Fault) -> u64 {
        self.rates[fault as usize]
    }

    pub fn left_out(&self, fault: Fault) -> bool {
        self.left_out[fault as usize]
    }

    /// The chance of it in percent; none where it is left out.
    pub fn chance(&self, fault: Fault) -> u64 {
        if self.left_out(fault) {
            0
        } else {
            self.weight(fault)
        }
    }
}

fn most(fault: Fault) -> u64 {
    match fault {
        Fault::Loss | Fault::Duplication => 10,
        Fault::Cuts => 8,
        Fault::Pauses | Fault::Elections | Fault::Flips => 4,
        Fault::HostCrashes => 3,
        Fault::NodeCrashes | Fault::Deletes | Fault::Restores | Fault::WallJumps => 2,
        Fault::Plans => 10,
        Fault::Operator => 4,
        Fault::Lag | Fault::Suspicion => 60,
        Fault::Reorder | Fault::LateAppends | Fault::Forwarding => 40,
        Fault::SlowRounds => 95,
        Fault::Wander => 30,
        Fault::Impatience => 20,
    }
}
