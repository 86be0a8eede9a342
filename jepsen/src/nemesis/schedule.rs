//! When which fault strikes: drawn from a seed, so that it can be had again.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::catalogue::{self, Mode};

/// How densely faults strike: in bursts, with lulls between them in which the system can recover,
/// so that faults meet a system at work and not one that is down already.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Nothing happens before this.
    pub first: Duration,
    /// Faults in a burst, at most; their times overlap.
    pub together: usize,
    /// A fault lasts at least this long, …
    pub least: Duration,
    /// … and at most this long, unless its mode needs more.
    pub most: Duration,
    /// Between the end of a burst and the next one, on average.
    pub lull: Duration,
    /// Nothing begins after this, and everything is undone by then.
    pub until: Duration,
    /// How long leases last: some modes need to outlast one.
    pub ttl: Duration,
}

impl Timing {
    /// One fault at a time, in a run that lasts `until`.
    pub fn alone(until: Duration, ttl: Duration) -> Self {
        Self {
            first: Duration::from_secs(2).min(until / 4),
            together: 1,
            least: Duration::from_secs(2),
            most: Duration::from_secs(5),
            lull: Duration::from_secs(2).max(ttl),
            until,
            ttl,
        }
    }

    /// Two or three faults at a time.
    pub fn mixed(until: Duration, ttl: Duration) -> Self {
        Self {
            together: 3,
            most: Duration::from_secs(8),
            lull: Duration::from_secs(4).max(ttl * 2),
            ..Self::alone(until, ttl)
        }
    }
}

/// One fault to come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strike {
    /// Its form.
    pub mode: &'static Mode,
    /// When, from the beginning of the schedule.
    pub at: Duration,
    /// For how long.
    pub lasts: Duration,
    /// What is random in it follows from this, and from who leads and owns then.
    pub seed: u64,
}

/// The faults of a run, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// What all of it was drawn from.
    pub seed: u64,
    /// In order of their beginning.
    pub strikes: Vec<Strike>,
}

impl Schedule {
    /// Draws a schedule of the faults of these names (groups or modes; `none` is none). The
    /// names take turns; each mode of a name comes once before any of that name comes again.
    ///
    /// # Errors
    ///
    /// A name is unknown: the message lists those known.
    pub fn from_seed(seed: u64, names: &[impl AsRef<str>], timing: &Timing) -> Result<Self> {
        let mut asked: Vec<Vec<&'static Mode>> = Vec::new();
        for name in names
            .iter()
            .map(AsRef::as_ref)
            .filter(|name| *name != "none")
        {
            let found = catalogue::find(name);
            if found.is_empty() {
                let known = catalogue::groups().join(", ");
                bail!("no fault is called `{name}`; groups are {known}");
            }
            asked.push(found);
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let mut strikes = Vec::new();
        let mut deck = Vec::new();
        let mut at = timing.first;
        while at < timing.until && !asked.is_empty() {
            let together = rng.random_range(timing.together.min(2)..=timing.together.max(1));
            let mut end = at;
            for _ in 0..together {
                if deck.is_empty() {
                    deck = deal(&asked, &mut rng);
                }
                let Some(mode) = deck.pop() else { break };
                let strike = Strike {
                    mode,
                    at,
                    lasts: lasting(mode, timing, &mut rng),
                    seed: rng.random(),
                };
                end = end.max(strike.at + strike.lasts);
                strikes.push(strike);
                // The next one of the burst begins while this one lasts.
                at += timing.least.mul_f64(rng.random_range(0.1..0.9));
            }
            at = end + timing.lull.mul_f64(rng.random_range(0.7..1.3));
        }
        strikes.retain(|strike| strike.at < timing.until);
        Ok(Self { seed, strikes })
    }
}

/// Modes in a random order, to be taken from the end: one of each name asked for in turn, until
/// each mode has come. So a short run has seen each name, and one with few modes comes as often as
/// one with many.
fn deal(asked: &[Vec<&'static Mode>], rng: &mut StdRng) -> Vec<&'static Mode> {
    let mut piles = asked.to_vec();
    piles.shuffle(rng);
    for pile in &mut piles {
        pile.shuffle(rng);
    }
    let most = piles.iter().map(Vec::len).max().unwrap_or(0);
    let mut deck: Vec<&'static Mode> = (0..most)
        .flat_map(|round| piles.iter().map(move |pile| pile[round % pile.len()]))
        .collect();
    deck.reverse();
    deck
}

fn lasting(mode: &Mode, timing: &Timing, rng: &mut StdRng) -> Duration {
    let most = timing.most.max(timing.least + Duration::from_millis(1));
    let drawn = rng.random_range(timing.least..most);
    drawn.max(timing.ttl.mul_f64(mode.least_ttls))
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        for strike in &self.strikes {
            writeln!(
                f,
                "{:7.2} s  {:<18} for {:5.2} s",
                strike.at.as_secs_f64(),
                strike.mode.name,
                strike.lasts.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing() -> Timing {
        Timing::alone(Duration::from_secs(60), Duration::from_secs(1))
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_another() {
        let draw = |seed| Schedule::from_seed(seed, &["kill", "partition"], &timing()).unwrap();
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3).strikes, draw(4).strikes);
    }

    #[test]
    fn every_mode_comes_once_before_any_comes_again() {
        let schedule = Schedule::from_seed(5, &["kill"], &timing()).unwrap();
        let names: Vec<&str> = schedule.strikes.iter().map(|s| s.mode.name).collect();
        let first: std::collections::BTreeSet<&str> = names.iter().take(6).copied().collect();
        assert_eq!(first.len(), 6, "seed 5: {names:?}");
    }

    #[test]
    fn alone_means_one_at_a_time() {
        let schedule = Schedule::from_seed(6, &["partition", "clock-beyond"], &timing()).unwrap();
        for pair in schedule.strikes.windows(2) {
            assert!(
                pair[0].at + pair[0].lasts < pair[1].at,
                "seed 6: {schedule}"
            );
        }
    }

    #[test]
    fn mixed_faults_overlap_in_bursts_with_lulls_between() {
        let timing = Timing::mixed(Duration::from_secs(120), Duration::from_secs(1));
        let schedule = Schedule::from_seed(7, &["kill", "partition"], &timing).unwrap();
        let under_way = |at: Duration| {
            let strikes = schedule.strikes.iter();
            strikes
                .filter(|s| s.at <= at && at < s.at + s.lasts)
                .count()
        };
        let counts: Vec<usize> = (0..1_200)
            .map(|i| under_way(Duration::from_millis(100 * i)))
            .collect();
        assert!(counts.contains(&3), "seed 7: {schedule}");
        assert!(
            counts.iter().filter(|count| **count == 0).count() > 200,
            "seed 7: {schedule}"
        );
        assert!(counts.iter().all(|count| *count <= 3), "seed 7: {schedule}");
    }

    #[test]
    fn each_name_asked_for_strikes_in_turn_and_each_mode_comes() {
        let asked = ["partition", "kill", "pause-one", "restart"].map(catalogue::find);
        let deck = deal(&asked, &mut StdRng::seed_from_u64(7));
        for round in deck.rchunks(asked.len()) {
            let groups: std::collections::BTreeSet<&str> =
                round.iter().map(|mode| mode.group).collect();
            assert_eq!(groups.len(), asked.len(), "seed 7");
        }
        for mode in asked.iter().flatten() {
            assert!(deck.contains(mode), "seed 7: {} never comes", mode.name);
        }
    }

    #[test]
    fn an_unknown_name_is_refused_and_none_is_nothing() {
        assert!(Schedule::from_seed(1, &["rain"], &timing()).is_err());
        assert!(
            Schedule::from_seed(1, &["none"], &timing())
                .unwrap()
                .strikes
                .is_empty()
        );
    }
}
