//! What happens to a frame on its way from one host to another: pure, with time as an argument.

use std::time::Duration;

/// A queue in front of a slow link is never longer than this.
const LONGEST_QUEUE_NS: u64 = 400_000_000;

/// How the link from one host to another treats frames. The default passes everything at once.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LinkRule {
    /// Nothing passes.
    pub cut: bool,
    /// Every frame is late by this.
    pub delay: Duration,
    /// The delay varies evenly by up to this in both directions; frames stay in order.
    pub jitter: Duration,
    /// This part of the frames is lost, 0 to 1.
    pub loss: f64,
    /// This part of the frames arrives twice, 0 to 1.
    pub duplicate: f64,
    /// This part of the frames overtakes those that are being delayed, 0 to 1.
    pub reorder: f64,
    /// Bytes per second; frames wait in a queue of at most 400 ms, what does not fit is lost.
    pub rate_bytes_per_s: Option<u64>,
}

impl LinkRule {
    /// Nothing passes.
    pub fn cut() -> Self {
        Self {
            cut: true,
            ..Self::default()
        }
    }

    /// Whether it leaves frames alone.
    pub fn is_clear(&self) -> bool {
        *self == Self::default()
    }
}

/// What went over a link so far, in frames (or, behind proxies, in pieces of a stream).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LinkCount {
    /// Arrived, at once or late.
    pub passed: u64,
    /// Lost by a cut, by chance or by a full queue.
    pub dropped: u64,
    /// Held back before they arrived.
    pub delayed: u64,
    /// Arrived a second time.
    pub duplicated: u64,
}

/// A small seeded generator (splitmix64, Steele, Lea and Flood 2014): each link has its own, so
/// that what one link loses does not depend on the traffic of another.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Even in 0 to 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.fraction() < probability
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is lost.
    Lost,
    /// It arrives at this moment; twice, if so.
    Arrives { at_ns: u64, twice: bool },
}

/// The state of the link from one host to another.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    chance: Chance,
    /// When the last frame has left the queue of a slow link.
    free_at_ns: u64,
    /// When the last frame that keeps its place arrives.
    last_at_ns: u64,
}

impl Lane {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            chance: Chance::new(seed),
            free_at_ns: 0,
            last_at_ns: 0,
        }
    }

    /// Decides about a frame of `bytes` that is sent at `now_ns`.
    pub(crate) fn send(&mut self, rule: &LinkRule, now_ns: u64, bytes: usize) -> Fate {
        if rule.cut || self.chance.happens(rule.loss) {
            return Fate::Lost;
        }
        let mut at_ns = now_ns + self.lateness_ns(rule);
        if let Some(rate) = rule.rate_bytes_per_s.filter(|rate| *rate > 0) {
            let begin_ns = self.free_at_ns.max(now_ns);
            if begin_ns > now_ns + LONGEST_QUEUE_NS {
                return Fate::Lost;
            }
            self.free_at_ns = begin_ns + (bytes as u64).saturating_mul(1_000_000_000) / rate;
            at_ns += self.free_at_ns - now_ns;
        }
        let twice = self.chance.happens(rule.duplicate);
        if self.chance.happens(rule.reorder) {
            return Fate::Arrives {
                at_ns: now_ns,
                twice,
            };
        }
        // A frame does not overtake one that is still under way.
        self.last_at_ns = at_ns.max(self.last_at_ns);
        Fate::Arrives {
            at_ns: self.last_at_ns,
            twice,
        }
    }

    fn lateness_ns(&mut self, rule: &LinkRule) -> u64 {
        let delay_ns = nanos(rule.delay);
        let jitter_ns = nanos(rule.jitter);
        if jitter_ns == 0 {
            return delay_ns;
        }
        let shift = self.chance.next() % (2 * jitter_ns + 1);
        (delay_ns + shift).saturating_sub(jitter_ns)
    }
}

/// Half an hour at most: a sum of such times cannot overflow.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos())
        .unwrap_or(u64::MAX)
        .min(1_800_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> Lane {
        Lane::new(7)
    }

    #[test]
    fn a_clear_link_passes_a_frame_at_once() {
        assert_eq!(
            lane().send(&LinkRule::default(), 5, 100),
            Fate::Arrives {
                at_ns: 5,
                twice: false
            }
        );
    }

    #[test]
    fn a_cut_link_passes_nothing() {
        assert_eq!(lane().send(&LinkRule::cut(), 5, 100), Fate::Lost);
    }

    #[test]
    fn loss_and_duplication_strike_the_part_asked_for() {
        let rule = LinkRule {
            loss: 0.3,
            duplicate: 0.1,
            ..LinkRule::default()
        };
        let mut lane = lane();
        let fates: Vec<Fate> = (0..10_000).map(|i| lane.send(&rule, i, 100)).collect();
        let lost = fates.iter().filter(|f| **f == Fate::Lost).count();
        let twice = fates
            .iter()
            .filter(|f| matches!(f, Fate::Arrives { twice: true, .. }))
            .count();
        assert!((2_800..3_200).contains(&lost), "{lost}");
        assert!((600..800).contains(&twice), "{twice}");
    }

    #[test]
    fn a_delay_with_jitter_stays_in_its_bounds_and_in_order() {
        let rule = LinkRule {
            delay: Duration::from_millis(50),
            jitter: Duration::from_millis(10),
            ..LinkRule::default()
        };
        let mut lane = lane();
        let mut before = 0;
        for i in 0..1_000u64 {
            let now_ns = i * 1_000_000;
            let Fate::Arrives { at_ns, .. } = lane.send(&rule, now_ns, 100) else {
                panic!("lost");
            };
            assert!(at_ns >= before && at_ns >= now_ns + 40_000_000);
            assert!(at_ns <= now_ns + 60_000_000);
            before = at_ns;
        }
    }

    #[test]
    fn a_slow_link_passes_its_rate_and_loses_the_rest() {
        let rule = LinkRule {
            rate_bytes_per_s: Some(1_000_000),
            ..LinkRule::default()
        };
        let mut lane = lane();
        let passed = (0..10_000u64)
            .filter(|i| lane.send(&rule, i * 100_000, 1_000) != Fate::Lost)
            .count();
        // One second at a thousand frames a second, and the queue.
        assert!((1_000..=1_402).contains(&passed), "{passed}");
    }

    #[test]
    fn a_frame_that_overtakes_leaves_the_others_in_order() {
        let rule = LinkRule {
            delay: Duration::from_millis(5),
            reorder: 0.5,
            ..LinkRule::default()
        };
        let mut lane = lane();
        let early = (0..1_000u64)
            .filter(
                |i| matches!(lane.send(&rule, *i, 1), Fate::Arrives { at_ns, .. } if at_ns == *i),
            )
            .count();
        assert!((400..600).contains(&early), "{early}");
    }

    #[test]
    fn the_same_seed_gives_the_same_fates() {
        let rule = LinkRule {
            loss: 0.5,
            ..LinkRule::default()
        };
        let (mut one, mut two) = (lane(), lane());
        for i in 0..100 {
            assert_eq!(one.send(&rule, i, 1), two.send(&rule, i, 1));
        }
    }
}
