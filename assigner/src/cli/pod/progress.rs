//! How far a drain is, for people who wait for it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use leasehold_proto::{SessionId, TargetName};

use crate::cli::client::Client;
use crate::cli::error::Failure;
use crate::cli::table::{ago, size};
use crate::cli::target::ms;
use crate::cli::{handoff, slice};

/// How often handoffs and sizes are asked for: each is a walk over the target's slices.
const CLOSER_EVERY: Duration = Duration::from_secs(1);
/// How long nothing goes and nothing is open before that is said without waiting for the end.
const STUCK: Duration = Duration::from_secs(3);
const NOBODY: &str = "no handoff is open: is there another pod that lives and is not draining? `leasehold pod list` \
                      shows all";
/// Handoffs named when the time is over.
const NAMED: usize = 5;

/// How far a drain is.
pub struct Progress {
    /// Slices that the pod still owns.
    pub slices_left: u64,
    slices_all: u64,
    /// State in the slices left, and the most that was seen; none where nobody reports any.
    bytes: Option<(u64, u64)>,
    /// Handoffs away from the pod; the one that is open for longest first.
    open: Vec<Open>,
    elapsed: Duration,
    looked_at: Option<Duration>,
}

/// An open handoff.
struct Open {
    name: String,
    open_for_ms: Option<u64>,
    state_bytes: Option<u64>,
}

impl Progress {
    /// Nothing has moved of `slices_all` slices.
    pub fn new(slices_all: u64) -> Self {
        Self {
            slices_left: slices_all,
            slices_all,
            bytes: None,
            open: Vec::new(),
            elapsed: Duration::ZERO,
            looked_at: None,
        }
    }

    /// Asks what is open and how much state is left; from time to time only.
    pub async fn look_closer(
        &mut self,
        client: &mut Client,
        sessions: &[(TargetName, SessionId, u64)],
        elapsed: Duration,
    ) -> Result<(), Failure> {
        self.elapsed = elapsed;
        let due = |at: Duration| elapsed.saturating_sub(at) >= CLOSER_EVERY;
        if !self.looked_at.is_none_or(due) {
            return Ok(());
        }
        self.looked_at = Some(elapsed);
        let (mut open, mut bytes) = (Vec::new(), None);
        for (target, session, _) in sessions {
            let since: BTreeMap<String, Option<u64>> = handoff::list(client, target)
                .await?
                .into_iter()
                .map(|report| (report.handoff, report.open_for_ms))
                .collect();
            let (_, slices) = slice::of_session(client, target, *session).await?;
            for info in slices {
                let owner = info.assigned.owner.map(|owner| owner.session);
                if owner != Some(*session) {
                    continue;
                }
                if let Some(state) = info.state_bytes {
                    bytes = Some(bytes.unwrap_or(0_u64).saturating_add(state));
                }
                open.extend(info.assigned.handoff.map(|handoff| Open {
                    name: format!("{} of {target} to {}", handoff.id, handoff.to),
                    open_for_ms: since.get(&handoff.id.to_string()).copied().flatten(),
                    state_bytes: info.state_bytes,
                }));
            }
        }
        open.sort_by_key(|open| Reverse(open.open_for_ms));
        self.open = open;
        self.bytes = bytes.map(|left| {
            let most = self.bytes.map_or(left, |(_, most)| most.max(left));
            (left, most)
        });
        Ok(())
    }

    fn is_stuck(&self) -> bool {
        self.open.is_empty() && self.estimate().is_none() && self.elapsed >= STUCK
    }

    /// What keeps the drain from ending, where it is not said anyway.
    pub fn slow(&self) -> String {
        if self.is_stuck() {
            return String::new();
        }
        if self.open.is_empty() {
            return NOBODY.to_owned();
        }
        let named: Vec<String> = self.open.iter().take(NAMED).map(Open::to_string).collect();
        let more = match self.open.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("slow: {}{more}", named.join(", "))
    }

    /// Time until it is done if it goes on as it did; by bytes where they are known. None before
    /// anything has gone.
    fn estimate(&self) -> Option<Duration> {
        let slices = (self.slices_left, self.slices_all);
        let gone = |(left, all): &(u64, u64)| all > left;
        let (left, all) = self.bytes.filter(gone).or(Some(slices).filter(gone))?;
        let (left, gone) = (u128::from(left), u128::from(all - left));
        let nanos = self.elapsed.as_nanos().saturating_mul(left) / gone;
        Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
    }
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some(open_for) = self.open_for_ms {
            write!(f, ", open for {}", ago(open_for))?;
        }
        if let Some(bytes) = self.state_bytes {
            write!(f, ", {} of state", size(bytes))?;
        }
        Ok(())
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} slices left", self.slices_left, self.slices_all)?;
        if let Some((left, _)) = self.bytes {
            write!(f, ", {} of state", size(left))?;
        }
        let elapsed = ago(ms(self.elapsed));
        write!(f, ", {} handoffs open, {elapsed} so far", self.open.len())?;
        if let Some(estimate) = self.estimate() {
            write!(f, ", about {} to go", ago(ms(estimate)))?;
        }
        if self.is_stuck() {
            write!(f, "; {NOBODY}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(slices_left: u64, bytes: Option<(u64, u64)>, seconds: u64) -> Progress {
        Progress {
            slices_left,
            bytes,
            elapsed: Duration::from_secs(seconds),
            ..Progress::new(40)
        }
    }

    fn open(handoff: u64) -> Open {
        Open {
            name: format!("h{handoff} of cart to s18"),
            open_for_ms: Some(12_345),
            state_bytes: (handoff == 1).then_some(3 << 30),
        }
    }

    #[test]
    fn it_says_how_far_it_is() {
        assert_eq!(
            progress(40, None, 0).to_string(),
            "40 of 40 slices left, 0 handoffs open, 0ms so far"
        );
        assert_eq!(
            progress(10, None, 30).to_string(),
            "10 of 40 slices left, 0 handoffs open, 30.0s so far, about 10.0s to go"
        );
        let mut large = progress(39, Some((3 << 30, 4 << 30)), 10);
        large.open = vec![open(1)];
        assert_eq!(
            large.to_string(),
            "39 of 40 slices left, 3.0 GiB of state, 1 handoffs open, 10.0s so far, about 30.0s to go"
        );
        assert_eq!(
            progress(20, Some((7, 7)), 5).to_string(),
            "20 of 40 slices left, 7 B of state, 0 handoffs open, 5.0s so far, about 5.0s to go"
        );
    }

    #[test]
    fn it_names_what_is_slow() {
        let mut stuck = progress(40, None, 1);
        assert!(stuck.slow().contains("no handoff is open"));
        assert!(!stuck.to_string().contains("no handoff is open"));
        stuck = progress(40, None, 60);
        assert!(stuck.to_string().contains("no handoff is open"));
        assert_eq!(stuck.slow(), "");
        stuck.open = (1..=7).map(open).collect();
        let slow = stuck.slow();
        let first = "slow: h1 of cart to s18, open for 12.3s, 3.0 GiB of state, h2 of cart";
        assert!(slow.starts_with(first), "{slow}");
        assert!(
            slow.ends_with("h5 of cart to s18, open for 12.3s and 2 more"),
            "{slow}"
        );
    }

    #[test]
    fn no_number_overflows() {
        let huge = progress(u64::MAX, Some((u64::MAX - 1, u64::MAX)), u64::MAX);
        assert!(huge.estimate().is_none());
    }
}
