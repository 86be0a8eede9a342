//! Eventual mode: for how long a slice stays where it is because its owner still takes in the state
//! that it came with.
//!
//! As every wait of the planner it is forgotten with the leader: the next one waits anew.

use std::collections::BTreeMap;
use std::time::Duration;

use leasehold_proto::view::Lease;
use leasehold_proto::{ClockTime, Epoch, SessionId};

/// For longer than this it is not waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same while the owner drains: what it does not give away in its grace period is lost.
const PATIENCE_IN_DRAIN: Duration = Duration::from_secs(5);

/// The leases of one target whose owner still takes state in.
#[derive(Clone, Debug, Default)]
pub struct TakingIn(BTreeMap<SessionId, BTreeMap<Epoch, Wait>>);

#[derive(Clone, Copy, Debug)]
struct Wait {
    since: ClockTime,
    until: ClockTime,
}

impl TakingIn {
    /// What follows from what was known `before` and the leases whose owner `still` takes state in,
    /// each with whether the owner drains. A lease that was known keeps its time.
    pub fn look(
        before: &Self,
        now: ClockTime,
        still: impl IntoIterator<Item = (Lease, bool)>,
    ) -> Self {
        let mut found = Self::default();
        for (owner, draining) in still {
            let since = before.wait(owner).map_or(now, |wait| wait.since);
            let until = since
                + if draining {
                    PATIENCE_IN_DRAIN
                } else {
                    PATIENCE
                };
            let waits = found.0.entry(owner.session).or_default();
            waits.insert(owner.epoch, Wait { since, until });
        }
        found
    }

    fn wait(&self, owner: Lease) -> Option<Wait> {
        self.0.get(&owner.session)?.get(&owner.epoch).copied()
    }

    /// Whether what came with this lease is waited for, if it was not taken in. A lease that no
    /// look has seen is.
    pub fn waits_for(&self, now: ClockTime, owner: Lease) -> bool {
        self.wait(owner).is_none_or(|wait| now < wait.until)
    }

    /// Whether the session still took state in at the last look.
    pub fn concerns(&self, session: SessionId) -> bool {
        self.0.contains_key(&session)
    }

    /// When the first of the waits that go on now ends.
    pub fn next_end(&self, now: ClockTime) -> Option<ClockTime> {
        let ends = self.0.values().flat_map(BTreeMap::values);
        ends.map(|wait| wait.until)
            .filter(|until| *until > now)
            .min()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use leasehold_proto::wire::pb;

    use super::*;

    const BEGUN: ClockTime = ClockTime::from_nanos(1);

    fn lease(number: u64) -> Lease {
        let epoch = pb::Epoch {
            incarnation: 1,
            number,
        };
        Lease {
            session: "s1".parse().unwrap(),
            epoch: epoch.try_into().unwrap(),
        }
    }

    fn after(seconds: u64) -> ClockTime {
        BEGUN + Duration::from_secs(seconds)
    }

    #[test]
    fn each_lease_is_waited_for_half_a_minute_whatever_else_its_owner_takes_in() {
        let (one, other) = (lease(1), lease(2));
        let none = TakingIn::default();
        assert!(none.waits_for(BEGUN, one), "not looked at yet");
        let first = TakingIn::look(&none, BEGUN, [(one, false)]);
        let both = TakingIn::look(&first, after(20), [(one, false), (other, false)]);
        assert_eq!(both.next_end(after(20)), Some(after(30)));
        assert!(both.waits_for(after(29), one));
        assert!(!both.waits_for(after(30), one));
        assert!(both.waits_for(after(49), other));
        assert_eq!(both.next_end(after(30)), Some(after(50)));
        // The one that is not waited for any more is remembered as long as its owner merges.
        let later = TakingIn::look(&both, after(40), [(one, false)]);
        assert!(!later.waits_for(after(40), one) && later.concerns(one.session));
        assert_eq!(later.next_end(after(40)), None);
        assert!(!TakingIn::look(&later, after(41), []).concerns(one.session));
    }

    #[test]
    fn while_the_owner_drains_it_is_waited_for_five_seconds() {
        let owner = lease(1);
        let calm = TakingIn::look(&TakingIn::default(), BEGUN, [(owner, false)]);
        let draining = TakingIn::look(&calm, after(2), [(owner, true)]);
        assert_eq!(draining.next_end(after(2)), Some(after(5)));
        assert!(draining.waits_for(after(4), owner));
        assert!(!draining.waits_for(after(5), owner));
        // It has waited for longer when it begins to drain.
        let late = TakingIn::look(&calm, after(7), [(owner, true)]);
        assert!(!late.waits_for(after(7), owner));
    }
}
