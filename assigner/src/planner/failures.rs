//! Handoffs that ended without effect: the same one is not begun again at once. What made it fail
//! may last (a destination that cannot read the state, say), and each try may freeze the slice for
//! a moment or send all of its state in vain.
//!
//! All of it is preference. To forget it, as a new leader does, costs tries and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use leasehold_proto::{ClockTime, SessionId, SliceKey};

/// How long a slice rests after its first failed handoff; twice as long after each further one, but
/// not while its owner drains: what has not gone when the grace period ends is lost.
const FIRST_REST: Duration = Duration::from_secs(1);
/// Longer than this it never rests: an operator mends what is wrong and expects things to go on.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// What failed so long ago counts no more.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The slices of one target whose last handoff ended without effect, by their first keys.
#[derive(Clone, Debug, Default)]
pub struct Failures(BTreeMap<SliceKey, Failure>);

#[derive(Clone, Debug)]
struct Failure {
    times: u32,
    to: BTreeSet<SessionId>,
    at: ClockTime,
}

impl Failure {
    fn until(&self) -> ClockTime {
        let doubled = FIRST_REST * 2u32.saturating_pow(self.times - 1).min(64);
        self.at + doubled.min(LONGEST_REST)
    }

    fn until_in_drain(&self) -> ClockTime {
        self.at + FIRST_REST
    }
}

/// What the planner is to know of a slice whose handoff failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Where it was to go, each time since one last succeeded: others are tried first.
    pub to: BTreeSet<SessionId>,
    /// It is too early to try again.
    pub rests: bool,
    /// It is too early to try one of `to` again, although the owner drains. Others are tried at
    /// once.
    pub rests_in_drain: bool,
}

impl Failures {
    /// A handoff of the slice that begins at `first` has ended.
    pub fn ended(&mut self, now: ClockTime, first: SliceKey, to: SessionId, completed: bool) {
        self.0.retain(|_, failure| failure.at + REMEMBERED > now);
        if completed {
            self.0.remove(&first);
            return;
        }
        let failure = self.0.entry(first).or_insert_with(|| Failure {
            times: 0,
            to: BTreeSet::new(),
            at: now,
        });
        failure.times = failure.times.saturating_add(1);
        failure.to.insert(to);
        failure.at = now;
    }

    /// What is known of each of them.
    pub fn known(&self, now: ClockTime) -> BTreeMap<SliceKey, Failed> {
        let known = |(first, failure): (&SliceKey, &Failure)| {
            let failed = Failed {
                to: failure.to.clone(),
                rests: now < failure.until(),
                rests_in_drain: now < failure.until_in_drain(),
            };
            (*first, failed)
        };
        self.0.iter().map(known).collect()
    }

    /// When the first of those that rest now may be tried again.
    pub fn next_try(&self, now: ClockTime) -> Option<ClockTime> {
        let ends = self
            .0
            .values()
            .flat_map(|failure| [failure.until_in_drain(), failure.until()]);
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
            let known = |now| failures.known(now)[&first].clone();
            let (until_in_drain, until) = (now + FIRST_REST, now + Duration::from_secs(seconds));
            assert_eq!(failures.next_try(now), Some(until_in_drain));
            assert!(known(now).rests && known(now).rests_in_drain);
            if until > until_in_drain {
                assert_eq!(failures.next_try(until_in_drain), Some(until));
                assert!(known(until_in_drain).rests);
            }
            assert!(!known(until_in_drain).rests_in_drain);
            assert_eq!(failures.next_try(until), None);
            assert!(!known(until).rests);
            now = until;
        }
        failures.ended(now, first, to, true);
        assert_eq!(failures.known(now), BTreeMap::new());
    }

    #[test]
    fn all_that_failed_since_the_last_success_are_known() {
        let first = SliceKey::from_u64(7);
        let mut failures = Failures::default();
        for number in [1, 2, 1] {
            failures.ended(BEGUN, first, session(number), false);
        }
        let both = BTreeSet::from([session(1), session(2)]);
        assert_eq!(failures.known(BEGUN)[&first].to, both);
        failures.ended(BEGUN, first, session(3), true);
        failures.ended(BEGUN, first, session(3), false);
        let last = BTreeSet::from([session(3)]);
        assert_eq!(failures.known(BEGUN)[&first].to, last);
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
