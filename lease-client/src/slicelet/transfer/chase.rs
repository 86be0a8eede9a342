//! Whether a transfer gains on the writes to its slice. No clock: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// How often what is left is looked at: to count it may take milliseconds.
const LOOK: Duration = Duration::from_millis(200);
/// The share of the time for the last change in which what is left can be sent when the destination
/// is told that it has caught up.
const SHARE: f64 = 0.25;

/// See the module's description.
pub(super) struct Chase {
    /// For what is sent while the slice is frozen.
    finish_deadline: Duration,
    looked_at: Instant,
    left: Option<u64>,
    /// Since it was looked at.
    sent: u64,
}

/// How the chase stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chased {
    /// Less is left than before.
    Gains,
    /// As much is written as is sent.
    FallsBehind,
    /// Never everything, perhaps, but so little is left that it may go while the slice is frozen.
    IsNear,
}

impl Chase {
    pub(super) fn new(now: Instant, finish_deadline: Duration) -> Self {
        Self {
            finish_deadline,
            looked_at: now,
            left: None,
            sent: 0,
        }
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Looks at how many bytes are `left`, if it is time to and that is known.
    pub(super) fn look(
        &mut self,
        now: Instant,
        left: impl FnOnce() -> Option<u64>,
    ) -> Option<Chased> {
        let passed = now.saturating_duration_since(self.looked_at);
        if passed < LOOK {
            return None;
        }
        let left = left()?;
        let bytes_per_s = self.sent as f64 / passed.as_secs_f64();
        (self.looked_at, self.sent) = (now, 0);
        let before = self.left.replace(left);
        let near = bytes_per_s * self.finish_deadline.as_secs_f64() * SHARE;
        Some(if left as f64 <= near {
            Chased::IsNear
        } else if before.is_some_and(|before| left >= before) {
            Chased::FallsBehind
        } else {
            Chased::Gains
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_compared_with_before_and_with_the_speed() {
        let begun = Instant::now();
        let mut chase = Chase::new(begun, Duration::from_millis(500));
        let mut look = |n: u32, sent, left| {
            chase.sent(sent);
            chase.look(begun + LOOK * n, || left)
        };
        assert_eq!(look(0, 200_000, Some(0)), None, "it is early");
        assert_eq!(look(1, 0, None), None);
        // A megabyte in a second: an eighth of it goes in the share of the deadline.
        assert_eq!(look(1, 0, Some(900_000)), Some(Chased::Gains));
        assert_eq!(look(2, 200_000, Some(800_000)), Some(Chased::Gains));
        assert_eq!(look(3, 200_000, Some(800_000)), Some(Chased::FallsBehind));
        assert_eq!(look(4, 200_000, Some(126_000)), Some(Chased::Gains));
        assert_eq!(look(5, 200_000, Some(124_000)), Some(Chased::IsNear));
        assert_eq!(look(6, 0, Some(1)), Some(Chased::Gains));
    }
}
