//! Handoffs that ended without effect: the same one is not begun again at once. What made it fail
//! may last (a destination that cannot read the state, say), and each try may freeze the slice for
//! a moment or send all of its state in vain.
//!
//! All of it is preference. To forget it, as a new leader does, costs tries and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use leasehold_proto::{ClockTime, SessionId, SliceKey};

/// How long a slice rests after its first failed handoff; twice as long after each further one.
const FIRST_REST: Duration = Duration::from_secs(1);
/// Longer than this it never rests: an operator mends what is wrong and expects things to go on.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// What failed so long ago counts no more.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The slices of one target whose last handoff ended without effect, by their first keys.
#[derive(Clone, Debug, Default)]
pub struct Failures(BTreeMap<SliceKey, Failure>);

#[derive(Clone, Copy, Debug)]
struct Failure {
    times: u32,
    to: SessionId,
    at: ClockTime,
}

impl Failure {
    fn until(self) -> ClockTime {
        let doubled = FIRST_REST * 2u32.saturating_pow(self.times - 1).min(64);
        self.at + doubled.min(LONGEST_REST)
    }
}

/// What the planner is to know of a slice whose handoff failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Where it was to go: others are tried first.
    pub to: SessionId,
    /// It is too early to try again.
    pub rests: bool,
}

impl Failures {
    /// A handoff of the slice that begins at `first` has ended.
    pub fn ended(&mut self, now: ClockTime, first: SliceKey, to: SessionId, completed: bool) {
        self.0.retain(|_, failure| failure.at + REMEMBERED > now);
        let before = self.0.remove(&first);
        if !completed {
            let times = before.map_or(1, |failure| failure.times.saturating_add(1));
            self.0.insert(first, Failure { times, to, at: now });
        }
    }

    /// What is known of each of them.
    pub fn known(&self, now: ClockTime) -> BTreeMap<SliceKey, Failed> {
        let known = |(first, failure): (&SliceKey, &Failure)| {
            let rests = now < failure.until();
            let to = failure.to;
            (*first, Failed { to, rests })
        };
        self.0.iter().map(known).collect()
    }

    /// When the first of those that rest now may be tried again.
    pub fn next_try(&self, now: ClockTime) -> Option<ClockTime> {
        let ends = self.0.values().map(|failure| failure.until());
        ends.filter(|until| *until > now).min()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const BEGUN: ClockTime = ClockTime::from_nanos(1);

    fn session(number: u64) -> SessionId {
        format!("s{number}").parse().unwrap()
    }

    #[test]
    fn rests_double_up_to_a_minute_and_end_with_a_success() {
        let (first, to) = (SliceKey::from_u64(7), session(3));
        let mut failures = Failures::default();
        let mut now = BEGUN;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            failures.ended(now, first, to, false);
            let until = now + Duration::from_secs(seconds);
            assert_eq!(failures.next_try(now), Some(until));
            assert_eq!(failures.known(now)[&first], Failed { to, rests: true });
            now = until;
            assert_eq!(failures.next_try(now), None);
            assert_eq!(failures.known(now)[&first], Failed { to, rests: false });
        }
        failures.ended(now, first, to, true);
        assert_eq!(failures.known(now), BTreeMap::new());
    }

    #[test]
    fn what_failed_long_ago_is_forgotten() {
        let mut failures = Failures::default();
        let to = session(1);
        failures.ended(BEGUN, SliceKey::from_u64(1), to, false);
        let now = BEGUN + REMEMBERED;
        failures.ended(now, SliceKey::from_u64(2), to, false);
        let known: Vec<SliceKey> = failures.known(now).into_keys().collect();
        assert_eq!(known, [SliceKey::from_u64(2)]);
    }
}
