//! Whether a transfer gains on the writes to its slice. No clock: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// How often what is left is looked at: to count it may take milliseconds.
const LOOK: Duration = Duration::from_millis(200);
/// What can be sent in this time, or fits a frame, is little: it adds nothing to speak of to the
/// time in which nobody serves the slice.
const LITTLE: Duration = Duration::from_millis(5);
/// The share of the time for the last change in which what is left can be sent when the destination
/// is told that it has caught up although more than little is left.
const SHARE: f64 = 0.25;
/// Once that much could be sent, a transfer still gains if this share, or less, of what was left is
/// left at the next look: so the chase ends soon, one way or the other.
const GAIN: f64 = 0.75;

/// See the module's description.
pub(super) struct Chase {
    /// For what is sent while the slice is frozen.
    finish_deadline: Duration,
    frame_bytes: u64,
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
    /// Little is left; or no less than before, but it can go while the slice is frozen.
    IsNear,
}

impl Chase {
    pub(super) fn new(now: Instant, finish_deadline: Duration, frame_bytes: usize) -> Self {
        Self {
            finish_deadline,
            frame_bytes: frame_bytes as u64,
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
        let in_time = |time: Duration| bytes_per_s * time.as_secs_f64();
        let little = in_time(LITTLE).max(self.frame_bytes as f64);
        let may_go = left as f64 <= in_time(self.finish_deadline) * SHARE;
        let gains = |before: u64| match may_go {
            true => left as f64 <= before as f64 * GAIN,
            false => left < before,
        };
        Some(if left as f64 <= little {
            Chased::IsNear
        } else if before.is_none_or(gains) {
            Chased::Gains
        } else if may_go {
            Chased::IsNear
        } else {
            Chased::FallsBehind
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 1_000;

    /// Looks in turn, each with what was sent since the one before and what is left.
    fn looks(seen: &[(usize, u64)]) -> Vec<Option<Chased>> {
        let begun = Instant::now();
        let mut chase = Chase::new(begun, Duration::from_millis(500), FRAME);
        let mut look = |(n, &(sent, left)): (usize, &(usize, u64))| {
            chase.sent(sent);
            chase.look(begun + LOOK * (n as u32 + 1), || Some(left))
        };
        seen.iter().enumerate().map(&mut look).collect()
    }

    #[test]
    fn it_is_looked_at_now_and_then_where_what_is_left_is_known() {
        let begun = Instant::now();
        let mut chase = Chase::new(begun, Duration::from_millis(500), FRAME);
        assert_eq!(chase.look(begun + LOOK / 2, || Some(0)), None);
        assert_eq!(chase.look(begun + LOOK, || None), None);
        assert_eq!(chase.look(begun + LOOK, || Some(0)), Some(Chased::IsNear));
    }

    /// A megabyte in a second: an eighth of it goes in the share of the deadline.
    #[test]
    fn what_does_not_gain_is_near_if_what_is_left_can_go_while_the_slice_is_frozen() {
        let (gains, behind, near) = (Chased::Gains, Chased::FallsBehind, Chased::IsNear);
        let a_megabyte_per_s = |left: &[u64]| {
            let seen: Vec<_> = left.iter().map(|left| (200_000, *left)).collect();
            looks(&seen).into_iter().flatten().collect::<Vec<_>>()
        };
        assert_eq!(
            a_megabyte_per_s(&[900_000, 800_000, 800_000, 790_000]),
            [gains, gains, behind, gains]
        );
        // It could go, but each time there is much less of it.
        assert_eq!(
            a_megabyte_per_s(&[120_000, 90_000, 60_000, 5_001, 5_000]),
            [gains, gains, gains, gains, near]
        );
        assert_eq!(
            a_megabyte_per_s(&[120_000, 90_000, 89_000]),
            [gains, gains, near]
        );
        assert_eq!(
            a_megabyte_per_s(&[124_000, 200_000, 124_000, 124_000]),
            [gains, behind, gains, near]
        );
    }

    #[test]
    fn a_frame_is_little_at_any_speed() {
        let slow = looks(&[(100, 1_001), (100, 1_001), (100, 1_000)]);
        let expected = [Chased::Gains, Chased::FallsBehind, Chased::IsNear];
        assert_eq!(slow, expected.map(Some));
    }
}
