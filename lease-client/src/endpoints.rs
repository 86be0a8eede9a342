//! Which Assigner to speak to next.

use std::time::Duration;

use leasehold_proto::PodAddress;

use crate::channels;
use crate::error::Error;

const FIRST_WAIT: Duration = Duration::from_millis(25);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Hints to the leader that are followed without a wait, between two successes.
const FREE_HOPS: u32 = 3;

/// A list of Assigners, the one in use, and the leader if another one named it.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    list: Vec<String>,
    at: usize,
    leader: Option<String>,
    failures: u32,
    hops: u32,
}

impl Endpoints {
    /// Begins at any one, so that many processes spread.
    ///
    /// # Errors
    /// `Invalid` when the list is empty or an address is none.
    pub(crate) fn new(list: Vec<String>, seed: u64) -> Result<Self, Error> {
        if list.is_empty() {
            return Err(Error::invalid("no Assigner endpoints were given"));
        }
        list.iter()
            .try_for_each(|address| channels::check_address(address))?;
        let at = (seed % list.len() as u64) as usize;
        Ok(Self {
            list,
            at,
            leader: None,
            failures: 0,
            hops: 0,
        })
    }

    pub(crate) fn current(&self) -> &str {
        self.leader.as_deref().unwrap_or(&self.list[self.at])
    }

    /// The present one does its work.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.hops = 0;
    }

    /// The present one does not answer: goes to the next. Returns how long to wait first.
    pub(crate) fn failed(&mut self) -> Duration {
        if self.leader.take().is_none() {
            self.at = (self.at + 1) % self.list.len();
        }
        self.failures = self.failures.saturating_add(1);
        // Each may fail once before anything is waited for.
        let rounds = self.failures / self.list.len() as u32;
        if rounds == 0 {
            return Duration::ZERO;
        }
        let longest = (FIRST_WAIT * 2u32.saturating_pow((rounds - 1).min(6))).min(LONGEST_WAIT);
        longest.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    /// The present one does not lead and perhaps names who does. Returns how long to wait first.
    pub(crate) fn not_leader(&mut self, leader: Option<PodAddress>) -> Duration {
        match leader {
            Some(leader) if leader.as_str() != self.current() && self.hops < FREE_HOPS => {
                self.hops += 1;
                self.leader = Some(leader.as_str().to_owned());
                Duration::ZERO
            }
            _ => self.failed(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn three() -> Endpoints {
        Endpoints::new(vec!["a:1".into(), "b:1".into(), "c:1".into()], 0).unwrap()
    }

    #[test]
    fn a_named_leader_is_followed_at_once_but_not_for_ever() {
        let mut endpoints = three();
        assert_eq!(
            endpoints.not_leader(Some(PodAddress::new("d:1").unwrap())),
            Duration::ZERO
        );
        assert_eq!(endpoints.current(), "d:1");
        // Two that name each other must not be followed in a circle.
        let mut waited = false;
        for n in 0..10 {
            let leader = PodAddress::new(if n % 2 == 0 { "e:1" } else { "d:1" }).unwrap();
            waited |= endpoints.not_leader(Some(leader)) > Duration::ZERO;
        }
        assert!(waited);
    }

    #[test]
    fn every_endpoint_is_tried_once_before_anything_is_waited_for() {
        let mut endpoints = three();
        assert_eq!(endpoints.current(), "a:1");
        assert_eq!(endpoints.failed(), Duration::ZERO);
        assert_eq!(endpoints.current(), "b:1");
        assert_eq!(endpoints.failed(), Duration::ZERO);
        assert_eq!(endpoints.current(), "c:1");
        assert!(endpoints.failed() > Duration::ZERO);
        for _ in 0..100 {
            assert!(endpoints.failed() <= LONGEST_WAIT);
        }
    }
}
