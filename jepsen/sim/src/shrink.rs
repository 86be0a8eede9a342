//! Makes a failed schedule small: first its end is cut off, then whole kinds of faults, then single
//! events, as long as the same invariant still breaks.
//!
//! Every event draws from numbers of its own, so that leaving one out leaves the others what they
//! are. The last part is ddmin: Zeller and Hildebrandt, "Simplifying and isolating failure-inducing
//! input" (IEEE TSE 28, 2002), section 3, without testing subsets by themselves.

use crate::failure::Failure;
use crate::options::{Fault, Options};
use crate::world::play;

/// Plays that shrinking may cost.
const BUDGET: usize = 4_000;

struct Search {
    seed: u64,
    invariant: &'static str,
    plays: usize,
}

impl Search {
    /// The number of the event at which it still fails in the same way.
    fn fails(&mut self, options: &Options) -> Option<u64> {
        if self.plays >= BUDGET {
            return None;
        }
        self.plays += 1;
        let (broken, step) = play(self.seed, options, false).broken?;
        (broken.invariant == self.invariant).then_some(step)
    }
}

/// The smallest schedule found that fails as `failure` does. Costs some thousand plays.
pub fn shrink(failure: &Failure) -> Box<Failure> {
    let mut search = Search {
        seed: failure.seed,
        invariant: failure.invariant,
        plays: 0,
    };
    let mut best = failure.options.clone();
    cut_end(&mut search, &mut best);
    drop_kinds(&mut search, &mut best);
    drop_events(&mut search, &mut best);
    match crate::run(failure.seed, &best) {
        Err(small) if small.invariant == failure.invariant => small,
        _ => Box::new(failure.clone()),
    }
}

/// Nothing after the failure matters; where healing fails the shortest beginning is sought.
fn cut_end(search: &mut Search, best: &mut Options) {
    let (mut good, mut bad) = (0, best.events);
    while good < bad {
        let events = good + (bad - good) / 2;
        let shorter = Options {
            events,
            ..best.clone()
        };
        if search.fails(&shorter).is_some() {
            (bad, *best) = (events, shorter);
        } else {
            good = events + 1;
        }
    }
}

fn drop_kinds(search: &mut Search, best: &mut Options) {
    for fault in Fault::ALL {
        let mut less = best.clone();
        less.without.push(*fault);
        if search.fails(&less).is_some() {
            *best = less;
        }
    }
}

fn drop_events(search: &mut Search, best: &mut Options) {
    let mut kept = best.numbers();
    let mut pieces = 2;
    while pieces <= kept.len() && search.plays < BUDGET {
        let size = kept.len().div_ceil(pieces);
        let mut dropped = false;
        let mut from = 0;
        while from < kept.len() {
            let to = (from + size).min(kept.len());
            let mut fewer = kept.clone();
            fewer.drain(from..to);
            let options = Options {
                only: Some(fewer.clone()),
                ..best.clone()
            };
            if search.fails(&options).is_some() {
                (kept, *best, dropped) = (fewer, options, true);
            } else {
                from = to;
            }
        }
        pieces = match (dropped, size) {
            (true, _) => pieces.max(2),
            (false, 1) => break,
            (false, _) => pieces * 2,
        };
    }
}
